"""Candidates of the promotion gate and records of its decisions."""
