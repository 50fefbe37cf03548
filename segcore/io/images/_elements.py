"""Header elements and decoded frames of one DICOM file.

Standard: DICOM PS3.3, C.7.6.2 (Image Plane) and C.7.6.16 (Multi-frame Functional Groups). Texts of pydicom may quote
elements that identify a patient, so they are kept out of all messages and logs.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segcore.errors import DataError
from segcore.io.images._checks import RESTORE, check_file
from segcore.io.images._declared import reading

# Transfer syntaxes that deflate the whole data set.
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber"),
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
# Elements that must have a single value.
_SINGLE = tuple(
    tag
    for tag in _TAGS
    if tag not in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    and "Sequence" not in tag
)


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """Silence warnings, and logs of libraries, because both quote values of elements."""
    logs = [logging.getLogger(name) for name in libraries]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turn any exception of pydicom on a damaged file into a DataError without the exception's text."""
    with reading(path), quiet("pydicom"):
        try:
            yield
        except (DataError, OSError, MemoryError):
            raise
        # Damaged bytes make pydicom raise nearly any exception.
        except Exception as error:  # noqa: BLE001
            raise DataError(
                f"{path.name}: is damaged, truncated or not a DICOM file ({type(error).__name__})",
                RESTORE,
                kind="unreadable",
            ) from None


def header(path: Path, tags: tuple[str, ...] = _TAGS, pixels: bool = False) -> Any:
    """Elements of a file, as a pydicom dataset.

    Args:
        path: of the file.
        tags: keywords of the elements to read.
        pixels: whether PixelData may be among them.

    Raises:
        DataError: the file is empty, not a DICOM file, or has a transfer syntax without an installed decoder.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    check_file(path)
    with parsing(path):
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        if not syntax.is_valid:
            raise DataError(
                f"{path.name}: is damaged: it has no valid transfer syntax", RESTORE, kind="unreadable"
            )
        # A deflated data set is refused: it would be decompressed whole before its header can be checked.
        usable = syntax not in _DEFLATED
        if usable and syntax.is_encapsulated:
            try:
                usable = get_decoder(syntax).is_available
            except NotImplementedError:
                usable = False
        if not usable:
            raise DataError(
                f"{path.name}: transfer syntax {syntax.name} ({syntax}) cannot be decoded here",
                "convert it to Explicit VR Little Endian, for example with `gdcmconv --raw`, `dcmdjpeg` or `dcmconv`",
                kind="unreadable",
            )
        elements = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags))
        # pydicom parses elements on first access; accessing all of them raises the errors here.
        several = [e.keyword for e in elements.iterall() if e.VM > 1 and e.keyword in _SINGLE]
        if several:
            raise DataError(
                f"{path.name}: is damaged: {several[0]} has several values",
                RESTORE,
                kind="unreadable",
            )
        return elements


def uid(elements: Any, key: str) -> str | None:
    """A UID; None where it is missing or invalid, because invalid values may hold any text."""
    identifier = elements.get(key)
    return str(identifier) if identifier and identifier.is_valid else None


def item(elements: Any, number: int, sequence: str) -> Any:
    """Functional group of a frame, else the group shared by all frames, else None."""
    per_frame = elements.get("PerFrameFunctionalGroupsSequence")
    shared = elements.get("SharedFunctionalGroupsSequence")
    for holder in ([per_frame[number]] if per_frame else []) + list(shared or [])[:1]:
        if holder.get(sequence):
            return holder[sequence][0]
    return None


def value(elements: Any, number: int, sequence: str, key: str, default: Any = None) -> Any:
    """An element of a frame: from its functional group, else from the file, else the default."""
    group = item(elements, number, sequence)
    element = group.get(key) if group is not None else None
    element = elements.get(key) if element is None else element
    return default if element is None else element


def geometry(elements: Any, number: int) -> dict[str, Any]:
    """Placement of a frame, LPS in mm.

    Returns:
        "position" (3,), "directions" (6,) and "spacing" (between rows, between columns), each None where the file
        lacks it, and "thickness", 1 where the file lacks it.
    """
    position = value(elements, number, "PlanePositionSequence", "ImagePositionPatient")
    directions = value(elements, number, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacing = value(elements, number, "PixelMeasuresSequence", "PixelSpacing")
    between = value(elements, number, "PixelMeasuresSequence", "SpacingBetweenSlices")
    thick = between or value(elements, number, "PixelMeasuresSequence", "SliceThickness") or 1.0
    return {
        "position": np.array(position, float).reshape(3) if position is not None else None,
        "directions": np.array(directions, float).reshape(6) if directions is not None else None,
        "spacing": (float(spacing[0]), float(spacing[1])) if spacing is not None else None,
        "thickness": abs(float(thick)),
    }


def frames(path: Path, **options: Any) -> Iterator[np.ndarray]:
    """Decoded frames of a file, one by one; `options` are those of pydicom's `iter_pixels`.

    Raises:
        DataError: pixels are missing, truncated or damaged.
    """
    from pydicom.pixels import iter_pixels

    with parsing(path):
        yield from iter_pixels(path, **options)
