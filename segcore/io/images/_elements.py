"""Elements of one DICOM file, but for its pixels.

Standard: DICOM PS3.3, C.7.6.2 (Image Plane) and C.7.6.16 (Multi-frame Functional Groups). pydicom's own texts may quote
what identifies a patient, so they reach no message and no log.
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

_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "InstanceNumber"),
    *("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
    *("SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"),
    *("PixelPaddingRangeLimit", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_SINGLE = tuple(
    tag
    for tag in _TAGS
    if tag not in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    and "Sequence" not in tag
)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings and no log of pydicom: both quote values of elements."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turn whatever pydicom raises on a damaged file into a DataError without its text."""
    with reading(path), _quiet():
        try:
            yield
        except (DataError, OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 (damaged bytes make pydicom raise nearly anything; told on below)
            raise DataError(
                f"{path.name}: is damaged, truncated or no DICOM file ({type(error).__name__})",
                RESTORE,
                kind="unreadable",
            ) from None


def header(path: Path, tags: tuple[str, ...] = _TAGS, pixels: bool = False) -> Any:
    """Elements of a file, as a pydicom dataset.

    Args:
        tags: the elements that are wanted.
        pixels: whether PixelData may be among them.

    Raises:
        DataError: no DICOM file, empty, or of a transfer syntax that cannot be read here.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    check_file(path)
    with parsing(path):
        syntax = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
        # A deflated data set is unpacked whole before anything of it is known.
        if not syntax.is_valid:
            raise DataError(
                f"{path.name}: is damaged: it names no transfer syntax", RESTORE, kind="unreadable"
            )
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
        found = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=list(tags))
        # Elements are parsed when asked for; damage shall show here.
        several = [e.keyword for e in found.iterall() if e.VM > 1 and e.keyword in _SINGLE]
        if several:
            raise DataError(
                f"{path.name}: is damaged: {several[0]} has several values",
                RESTORE,
                kind="unreadable",
            )
        return found


def uid(elements: Any, key: str) -> str | None:
    """An identifier; None where it is missing or damaged, as what is no identifier may hold anything."""
    found = elements.get(key)
    return str(found) if found and found.is_valid else None


def item(elements: Any, number: int, sequence: str) -> Any:
    """A functional group of a frame, or the one that all frames share, or None."""
    per_frame = elements.get("PerFrameFunctionalGroupsSequence")
    shared = elements.get("SharedFunctionalGroupsSequence")
    for holder in ([per_frame[number]] if per_frame else []) + list(shared or [])[:1]:
        if holder.get(sequence):
            return holder[sequence][0]
    return None


def value(elements: Any, number: int, sequence: str, key: str, default: Any = None) -> Any:
    """An element of a frame: of its functional group, or of the file."""
    group = item(elements, number, sequence)
    found = group.get(key) if group is not None else None
    found = elements.get(key) if found is None else found
    return default if found is None else found


def geometry(elements: Any, number: int) -> dict[str, Any]:
    """Position, directions, spacing and thickness of a frame, LPS in mm; None where not told."""
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
    """Decoded frames of a file one after another; `options` are those of pydicom's `iter_pixels`.

    Raises:
        DataError: pixels are missing, truncated or damaged.
    """
    from pydicom.pixels import iter_pixels

    with parsing(path):
        yield from iter_pixels(path, **options)
