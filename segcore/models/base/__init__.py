"""Shared by all architectures: base class, encoders, pretrained weights, factory and bundles."""
