"""What the sandbox is compared with. Each runs the handler of handler.py with the same modules imported, by two workers."""
