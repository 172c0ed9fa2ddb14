"""The BTrDB development server: what ingress and handlers need of BTrDB, on one machine, for the public clients."""
