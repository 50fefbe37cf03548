"""Inference as in validation and evaluation: device, precision, tiling, test-time augmentation, post-processing."""
