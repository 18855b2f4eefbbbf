"""Benchmarks: `python -m benchmarks.run --list`."""
