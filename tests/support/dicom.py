"""Builders and readers of DICOM series, and checks of their errors."""

import numpy as np
import pydicom
import pytest

from segcore.errors import DataError
from segcore.io.images import open_source
from tests.support.volumes import NAME, save, slice_elements


def stack(count=4, seed=0, high=4096):
    """Stored values of the slices: (count, 6, 5) uint16."""
    return np.random.default_rng(seed).integers(0, high, (count, 6, 5)).astype(np.uint16)


def volume(path, slices="auto"):
    """Pixels (D, C, H, W), validity (D, H, W) and header of a volume."""
    with open_source(path, slices) as source:
        planes = [source.read(plane=i) for i in range(source.info.depth)]
    return np.stack([p.pixels for p in planes]), np.stack([p.valid for p in planes]), source.info


def edit(path, **over):
    """Overwrite elements of a file; None removes an element."""
    elements = pydicom.dcmread(path)
    for key, value in over.items():
        if value is None:
            delattr(elements, key)
        else:
            setattr(elements, key, value)
    save(elements, path)


def fails(path, kind, *words):
    """The error of reading a file or folder, checked."""
    with pytest.raises(DataError) as caught, open_source(path) as source:
        source.read()
    return check_error(caught.value, kind, *words)


def check_error(error, kind, *words):
    """The error, if it has the kind and words, a remedy, and no name of a patient."""
    assert error.kind == kind
    for word in words:
        assert word in error.what
    assert NAME not in str(error) and "jane" not in str(error).lower()
    assert error.remedy
    return error


def multiframe(path, values, **over):
    """Write values (N, 6, 5) as one file of N frames, 3 mm apart, in descending order."""

    def dataset(**content):
        item = pydicom.Dataset()
        for key, value in content.items():
            setattr(item, key, value)
        return item

    frames = [
        dataset(PlanePositionSequence=[dataset(ImagePositionPatient=[0, 0, -3 * i])])
        for i in range(len(values))
    ]
    shared = dataset(
        PlaneOrientationSequence=[dataset(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[dataset(PixelSpacing=[1, 1], SliceThickness=3)],
        PixelValueTransformationSequence=[dataset(RescaleSlope=1, RescaleIntercept=-7)],
    )
    return save(
        slice_elements(
            NumberOfFrames=len(values),
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=frames,
            PixelData=values.astype("<u2").tobytes(),
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            **over,
        ),
        path,
    )
