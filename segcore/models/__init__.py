"""Architectures: each module here is one and has a function `build`; what they share is in `base`."""
