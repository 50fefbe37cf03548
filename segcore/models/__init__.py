"""Architectures: each module defines one, with a function `build`.

`base` has what all architectures share, `instance` the parts of instance networks.
"""
