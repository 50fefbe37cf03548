"""Architectures: each module defines one, with a function `build`; shared code is in `base`."""
