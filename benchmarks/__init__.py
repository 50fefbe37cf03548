"""Benchmarks: each module is a command, `python -m benchmarks.NAME`; modules with _ are shared code."""
