"""Inference: device, precision, tiling and test-time augmentation, as used in validation and evaluation."""
