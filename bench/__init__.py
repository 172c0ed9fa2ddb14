"""Benchmarks: make bench-NAME prints figures and writes bench/results/NAME.json."""
