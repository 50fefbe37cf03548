"""Helpers for tests of image readers."""

import numpy as np
import pytest
from PIL import Image

from segcore.errors import DataError
from segcore.io import images

RNG = np.random.default_rng(0)
NOISE = RNG.integers(1, 250, (3, 40, 50)).astype(np.uint8)


def kind_of(path):
    """Kind and message of the DataError that reading a whole file raises."""
    with pytest.raises(DataError) as caught:
        images.read(path)
    assert caught.value.what.startswith(path.name) and caught.value.remedy
    assert str(path.parent) not in caught.value.what and "\n" not in caught.value.what
    return caught.value.kind, caught.value.what


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path
