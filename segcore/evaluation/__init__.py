"""Evaluation of a model on the test regions: pixel counts, calibration, size and cost."""
