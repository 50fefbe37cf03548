"""Evaluation tables, from which every score derives."""
