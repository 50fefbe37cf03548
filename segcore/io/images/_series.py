"""Headers of a DICOM series: its files, their order, and the geometry of the volume.

Messages name files, never values of identifying elements.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.volumes import check_affine
from segcore.errors import DataError
from segcore.io.images._declared import check_size, reading
from segcore.io.images._elements import geometry, header, parsing, uid, value
from segcore.io.images._stacking import Frame, affine_of, in_order

# SOP classes of segmentations.
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
# Files in a series' folder that are skipped.
_NOT_IMAGES = {"dicomdir", "thumbs.db", "desktop.ini", "readme", "license", "version"}
_NOT_IMAGE_EXTENSIONS = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".htm", ".pdf", ".log", ".ini", ".yaml"),
    *(".yml", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".nii", ".nii.gz", ".mha", ".mhd"),
    *(".nrrd", ".nhdr", ".zip", ".exe", ".db", ".part"),
)
# identifies a DICOM file, and its offset in bytes
_MAGIC, _MAGIC_AT = b"DICM", 128
_SUPPORTED_COLOURS = (
    *("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT"),
    "YBR_RCT",
)
# Known but unsupported, so that the error may name it.
_PALETTE = "PALETTE COLOR"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Series:
    """Ordered slices, and the elements that all of them share.

    Attributes:
        frames: slices, sorted along their normal.
        affine: (4, 4), (column, row, slice) to mm in RAS+; None where the files have no positions.
        rows: height in pixels.
        columns: width in pixels.
        samples: values per pixel.
        photometric: PhotometricInterpretation.
        dtype: of stored values, before rescaling.
        bits: number of bits used of each stored value.
        padding: lowest and highest stored value that mark pixels without data; None for none.
        frame_of_reference: its UID; None where missing.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray | None
    rows: int
    columns: int
    samples: int
    photometric: str
    dtype: np.dtype
    bits: int
    padding: tuple[float, float] | None
    frame_of_reference: str | None

    @property
    def has_unknown_frames(self) -> bool:
        """Whether it is one file of several frames without positions, such as a video."""
        return self.affine is None and self._is_one_file and len(self.frames) > 1

    @property
    def is_backwards(self) -> bool:
        """Whether it is one file whose frames are in descending order of their position."""
        numbers = [frame.number for frame in self.frames]
        return self._is_one_file and numbers[0] > numbers[-1]

    @property
    def _is_one_file(self) -> bool:
        return len({frame.file for frame in self.frames}) == 1


def _may_be_image(file: Path) -> bool:
    name = file.name.lower()
    return not (name.startswith(".") or name in _NOT_IMAGES or name.endswith(_NOT_IMAGE_EXTENSIONS))


def is_slice(file: Path) -> bool:
    """Whether a file is DICOM, by the extension .dcm or, whatever its name, by its first bytes."""
    if not _may_be_image(file):
        return False
    try:
        # reading from a pipe would wait without end
        if not file.is_file():
            return False
        if file.name.lower().endswith(".dcm"):
            return True
        with file.open("rb") as stream:
            return stream.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    with reading(path):
        return sorted(p for p in path.iterdir() if p.is_file() and _may_be_image(p))


def _other_files(path: Path) -> str:
    """Number of files in a folder without a DICOM image, and one of them."""
    with reading(path):
        names = sorted(p.name for p in path.iterdir() if p.is_file())
    if not names:
        return ""
    return f", but {len(names)} other files, such as {names[0]}" if len(names) > 1 else f", but {names[0]}"


def _headers(path: Path) -> list[tuple[Path, Any]]:
    headers = [(file, header(file)) for file in _files(path)]
    if not path.is_dir() and headers[0][1].get("SOPClassUID") in SEGMENTATIONS:
        raise DataError(
            f"{path.name}: is a DICOM segmentation where an image is expected",
            "correct data.images and data.masks",
            kind="swapped",
        )
    # A folder may also hold reports, presentation states and segmentations.
    images = [f for f in headers if "Rows" in f[1] and f[1].get("SOPClassUID") not in SEGMENTATIONS]
    if not images:
        raise DataError(
            f"{path.name}: is a folder that holds no DICOM image{_other_files(path)}"
            if path.is_dir()
            else f"{path.name}: holds no DICOM image",
            "if it is an image or a mask, save its pictures as one volume (NIfTI) or one TIFF of several pages; if "
            "not, correct data.images and data.masks",
            kind="unreadable",
        )
    return images


def _check_uniform(path: Path, headers: list[tuple[Path, Any]]) -> None:
    """Check that all files belong to one series and have pixels of the same type.

    Raises:
        DataError: of kind "mixed-series".
    """
    series: dict[str, list[str]] = {}
    for file, elements in headers:
        series.setdefault(str(elements.get("SeriesInstanceUID")), []).append(file.name)
    if len(series) > 1:
        parts = ", ".join(f"{len(names)} files such as {names[0]}" for names in series.values())
        raise DataError(
            f"{path.name}: holds {len(series)} series: {parts}",
            "put each series into a separate folder",
            kind="mixed-series",
        )
    keys = (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "PixelRepresentation",
    )
    for key in keys:
        counts = Counter(elements.get(key) for _, elements in headers)
        if len(counts) > 1:
            parts = ", ".join(f"{value} in {count}" for value, count in counts.most_common(4))
            raise DataError(
                f"{path.name}: {key} differs between slices: {parts}",
                "remove the slices that do not belong to the series (a localizer, perhaps)",
                kind="mixed-series",
            )


def _frames(file: Path, elements: Any) -> list[Frame]:
    instance = elements.get("InstanceNumber")
    with parsing(file):
        return [
            Frame(
                file=file,
                number=i,
                uid=str(elements.get("SOPInstanceUID")),
                instance=None if instance is None else int(instance),
                slope=float(value(elements, i, "PixelValueTransformationSequence", "RescaleSlope", 1)),
                intercept=float(
                    value(elements, i, "PixelValueTransformationSequence", "RescaleIntercept", 0)
                ),
                **geometry(elements, i),
            )
            for i in range(int(elements.get("NumberOfFrames") or 1))
        ]


def _without_shared_position(frames: list[Frame]) -> list[Frame]:
    """Frames; those of one file that all have the same position have none of their own, such as those of a video."""
    places = {None if f.position is None else tuple(f.position) for f in frames}
    if len(frames) == 1 or len(places) > 1 or len({f.file for f in frames}) > 1:
        return frames
    return [replace(f, position=None, directions=None, spacing=None) for f in frames]


def _check_pixels(file: Path, elements: Any) -> None:
    """Check that the file can hold the declared size and that the colour type is supported.

    Raises:
        DataError: of kind "unreadable", "not-3d" or "too-large".
    """
    with parsing(file):
        bits, photometric = int(elements.BitsAllocated), str(elements.PhotometricInterpretation)
        values = int(elements.Rows) * int(elements.Columns) * int(elements.get("SamplesPerPixel") or 1)
        values *= int(elements.get("NumberOfFrames") or 1)
        size, packed = file.stat().st_size, elements.file_meta.TransferSyntaxUID.is_encapsulated
        used = int(elements.get("BitsStored") or bits)
        if values < 1 or "PixelRepresentation" not in elements or not 1 <= used <= bits:
            raise DataError(
                f"{file.name}: declares no pixels, or an invalid pixel format",
                "restore it from its source",
                kind="unreadable",
            )
    if bits not in (8, 16, 32) or photometric not in _SUPPORTED_COLOURS:
        known = photometric in (*_SUPPORTED_COLOURS, _PALETTE)
        colours = photometric if known else "an unknown photometric interpretation"
        raise DataError(
            f"{file.name}: {colours} with {bits} bits is not supported",
            "convert it to MONOCHROME2 or RGB with 8 or 16 bits",
            kind="not-3d",
        )
    check_size(
        file.name, values * bits // 8 if "422" not in photometric else values // 2, values, size, packed
    )


def read_series(path: Path) -> Series:
    """Headers of a folder that holds one series, or of one file.

    Slices are sorted along their normal, which is the third axis of the affine. Where no file has a position they are
    sorted by InstanceNumber, and the affine is None.

    Raises:
        DataError: no series or several ones, slices that are missing, duplicated or of different size, or positions
            that do not form a volume.
    """
    headers = _headers(path)
    for file, elements in headers:
        _check_pixels(file, elements)
    _check_uniform(path, headers)
    stored = [frame for file, elements in headers for frame in _frames(file, elements)]
    frames = in_order(path.name, _without_shared_position(stored))
    first = headers[0][1]
    affine = affine_of(path.name, frames)
    if affine is not None:
        affine = _LPS_TO_RAS @ affine
        check_affine(path.name, affine)
    with parsing(headers[0][0]):
        pad = first.get("PixelPaddingValue")
        limit = first.get("PixelPaddingRangeLimit", pad)
        return Series(
            frames=tuple(frames),
            affine=affine,
            rows=int(first.Rows),
            columns=int(first.Columns),
            samples=int(first.get("SamplesPerPixel") or 1),
            photometric=str(first.PhotometricInterpretation),
            dtype=np.dtype(f"{'int' if first.PixelRepresentation else 'uint'}{int(first.BitsAllocated)}"),
            bits=max(int(e.get("BitsStored") or e.BitsAllocated) for _, e in headers),
            padding=None if pad is None else (float(min(pad, limit)), float(max(pad, limit))),
            frame_of_reference=uid(first, "FrameOfReferenceUID"),
        )
