"""Ground truth from a DICOM Segmentation object (DICOM PS3.3, A.51), laid onto the planes of its image by position.

A frame is laid where its position and directions put it, so a segmentation of part of the slices, of a part of each, or
in another orientation fits as well; frames without a position go to the image that they reference. Planes without a
frame are background. A key of `label_values` is the number of a segment or its label. BINARY, LABELMAP and FRACTIONAL
objects are read; of the last, at least half of the greatest value is in.

Where segments overlap, the one of the highest number counts, and a note says how many pixels that were.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.images._checks import RESTORE
from segcore.io.images._declared import check_size
from segcore.io.images._elements import frames, geometry, header, item, parsing, uid
from segcore.io.images._series import SEGMENTATIONS, Series, read_series
from segcore.io.images._stacking import Frame
from segcore.params.data import Data

ENDINGS = (".dcm",)

_TAGS = (
    *("SOPClassUID", "FrameOfReferenceUID", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("SegmentationType", "MaximumFractionalValue", "SegmentSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
_NEAR = 0.1  # of a voxel; labels that lie off by more were drawn on another grid
_EXPORT = "export the segmentation on the grid of its image series"


@dataclass(frozen=True)
class _Segmentation:
    path: Path
    elements: Any
    kind: str
    names: dict[int, str]  # of segments, by number

    def segment_of(self, frame: int) -> int | None:
        """Number of the segment that a frame shows; None where its values are the numbers."""
        if self.kind == "LABELMAP":
            return None
        with parsing(self.path):
            return int(item(self.elements, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber)

    def frames(self) -> Iterator[np.ndarray]:
        """Stored values of the frames, (rows, columns) each.

        Raises:
            DataError: pixels are missing, truncated or damaged.
        """
        if self.elements.BitsAllocated != 1 or self.elements.file_meta.TransferSyntaxUID.is_encapsulated:
            yield from frames(self.path, raw=True)
            return
        # pydicom 3.0 fails on frames of bits that do not begin with a byte, and passes truncated ones.
        shape = int(self.elements.Rows), int(self.elements.Columns)
        count, size = int(self.elements.get("NumberOfFrames") or 1), shape[0] * shape[1]
        with parsing(self.path):
            packed = np.frombuffer(header(self.path, ("PixelData",), pixels=True).PixelData, np.uint8)
            if len(packed) * 8 < count * size:
                raise DataError(
                    f"{self.path.name}: is truncated: {len(packed)} bytes of pixels for {count} frames of "
                    f"{shape[0]} x {shape[1]} bits",
                    RESTORE,
                    kind="unreadable",
                )
        for start in range(0, count * size, size):
            some = np.unpackbits(packed[start // 8 : (start + size + 7) // 8], bitorder="little")
            yield some[start % 8 : start % 8 + size].reshape(shape)

    def references(self, frame: int) -> list[str]:
        """SOP instances that a frame was drawn on."""
        derivation = item(self.elements, frame, "DerivationImageSequence")
        sources = derivation.get("SourceImageSequence", []) if derivation is not None else []
        return [str(source.ReferencedSOPInstanceUID) for source in sources]


def _opened(path: Path) -> _Segmentation:
    elements = header(path, _TAGS)
    if elements.get("SOPClassUID") not in SEGMENTATIONS:
        raise DataError(
            f"{path.name}: is no DICOM segmentation",
            "give a Segmentation object, or convert the mask (an RTSTRUCT, perhaps) to one or to NIfTI",
            kind="unreadable",
        )
    with parsing(path):
        names = {
            int(s.SegmentNumber): str(s.get("SegmentLabel", ""))[:64]
            for s in elements.get("SegmentSequence", [])
        }
        values = int(elements.Rows) * int(elements.Columns) * int(elements.get("NumberOfFrames") or 1)
        packed = elements.file_meta.TransferSyntaxUID.is_encapsulated
        check_size(path.name, values * int(elements.BitsAllocated) // 8, values, path.stat().st_size, packed)
        return _Segmentation(path, elements, str(elements.SegmentationType), names)


def _class_of(path: Path, number: int, label: str, table: dict[int | str, int]) -> int:
    for key in (number, label, "others"):
        if key in table:
            return table[key]
    raise DataError(
        f"{path.name}: segment {number} ({label!r}) is not in data.label_values",
        f'add {number} or "{label}" to data.label_values, or "others" for all segments that it does not name',
        kind="unknown-category",
    )


def _background(data: Data) -> int:
    """Class of pixels that no segment holds."""
    if 0 in data.label_table:
        return data.label_table[0]
    return IGNORE if data.background is None else data.classes.index(data.background)


class _Places:
    """Where pixels of frames lie in the planes (D, H, W) of the image."""

    def __init__(self, found: _Segmentation, image_path: Path, image: Info, series: Series | None) -> None:
        self._pair = f"{found.path.name} and its image {image_path.name}"
        self._found, self._image, self._series = found, image, series
        self.shape = (image.depth, image.height, image.width)
        if image.canonical is not None:
            self._to_index = np.linalg.inv(np.reshape(image.canonical, (4, 4)))
        ours = uid(found.elements, "FrameOfReferenceUID")
        theirs = series.frame_of_reference if series else None
        if ours and theirs and ours != theirs:
            raise DataError(
                f"{self._pair}: frames of reference differ, image {theirs}, segmentation {ours}",
                "pair the segmentation with the series that it was drawn on",
                kind="affine-mismatch",
            )

    def of(self, frame: int) -> np.ndarray:
        """(3, 3): origin, step along a row and step down a column of a frame, in planes, rows and columns.

        Raises:
            DataError: it lies off the image's grid, or nothing tells where it lies.
        """
        with parsing(self._found.path):
            known = geometry(self._found.elements, frame)
        position, directions, spacing = known["position"], known["directions"], known["spacing"]
        if self._image.canonical is None or position is None or directions is None or spacing is None:
            plane, source = self._referenced(frame)
            position, directions, spacing = source.position, source.directions, source.spacing
        if self._image.canonical is None or position is None or directions is None or spacing is None:
            return np.array([[plane, 0, 0], [0, 0, 1], [0, 1, 0]])
        # From LPS to RAS: x and y change sign.
        points = np.stack([position, directions[:3] * spacing[1], directions[3:] * spacing[0]], axis=1)
        points *= np.array([[-1], [-1], [1]])
        place = self._to_index[:3, :3] @ points
        place[:, 0] += self._to_index[:3, 3]
        self._check(place, frame)
        return np.rint(place).astype(int)

    def _check(self, place: np.ndarray, frame: int) -> None:
        shape = (int(self._found.elements.Columns), int(self._found.elements.Rows))
        far = place[:, 0] + place[:, 1] * (shape[0] - 1) + place[:, 2] * (shape[1] - 1)
        ends = np.stack([place[:, 0], far])
        whole = np.rint(place)
        exact = whole[:, 0] + whole[:, 1] * (shape[0] - 1) + whole[:, 2] * (shape[1] - 1)
        off = max(np.abs(far - exact).max(), np.abs(place - whole)[:, 0].max())
        if off > _NEAR or (np.abs(whole[:, 1:]).sum(axis=0) != 1).any():
            raise DataError(
                f"{self._pair}: grids differ, image planes at {_list(self._image.canonical or ())}, frame {frame} of "
                f"the segmentation {off:.3g} voxels off them, at (plane, row, column) {_list(place[:, 0])}",
                _EXPORT,
                kind="affine-mismatch",
            )
        if (np.rint(ends) < 0).any() or (np.rint(ends) >= self.shape).any():
            raise DataError(
                f"{self._pair}: sizes differ, image {' x '.join(map(str, self.shape))}, frame {frame} of the "
                f"segmentation reaches from (plane, row, column) {_list(ends[0])} to {_list(ends[1])}",
                _EXPORT,
                kind="size-mismatch",
            )

    def _referenced(self, frame: int) -> tuple[int, Frame]:
        """The slice of the series that a frame without a position was drawn on, and its number."""
        found, series = self._found, self._series
        slices = {f.uid: (k, f) for k, f in enumerate(series.frames)} if series else {}
        with parsing(found.path):
            named = [slices[uid] for uid in found.references(frame) if uid in slices]
        if series is None or len(named) != 1 or len(slices) != len(series.frames):
            raise DataError(
                f"{self._pair}: frame {frame} tells no position that the image knows, and references {len(named)} "
                f"of the image's {len(slices)} files",
                _EXPORT,
                kind="affine-mismatch",
            )
        size = (int(found.elements.Rows), int(found.elements.Columns))
        if size != (series.rows, series.columns):
            raise DataError(
                f"{self._pair}: sizes differ, image {series.rows} x {series.columns}, mask {size[0]} x {size[1]}",
                _EXPORT,
                kind="size-mismatch",
            )
        return named[0]


class SegmentationLabels:
    """Class indices of a DICOM segmentation, on the planes of its image."""

    def __init__(self, found: _Segmentation, places: _Places, data: Data) -> None:
        table = data.label_table
        self._classes = {0: _background(data)}
        for number, label in found.names.items():
            if number == 0:  # a LABELMAP may describe its background
                continue
            self._classes[number] = _class_of(found.path, number, label, table)
        self._found, self._places, self._data = found, places, data
        self._numbers: np.ndarray | None = None
        self.notes: list[tuple[str, str]] = []

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices of a window of a plane; the file is read as a whole with the first.

        With `data.instances`, each segment but those of background is an object.

        Raises:
            DataError: the file is damaged, or a frame does not lie on the image's grid.
        """
        if self._numbers is None:
            self._numbers = self._read()
        row, column, height, width = window
        numbers = self._numbers[plane, row : row + height, column : column + width]
        table = np.full(max(self._classes) + 1, IGNORE, np.uint8)
        table[list(self._classes)] = list(self._classes.values())
        classes = table[numbers]
        if not self._data.instances:
            return Labels(classes)
        objects = (classes != _background(self._data)) & (classes != IGNORE)
        return Labels(classes, np.where(objects, numbers, 0).astype(np.uint32))

    def _read(self) -> np.ndarray:
        """(D, H, W): number of the segment of each voxel, 0 for none."""
        found, doubled = self._found, 0
        out = np.zeros(self._places.shape, np.uint8 if max(self._classes) < 256 else np.uint16)
        half = float(found.elements.get("MaximumFractionalValue") or 1) / 2
        for frame, pixels in enumerate(found.frames()):
            segment = found.segment_of(frame)
            inside = pixels >= half if found.kind == "FRACTIONAL" else pixels > 0
            if not inside.any():
                continue
            numbers = pixels[inside] if segment is None else np.array([segment])
            self._check_known(numbers)
            numbers = numbers.astype(out.dtype)
            rows, columns = np.nonzero(inside)
            place = self._places.of(frame)
            at = tuple(place[:, :1] + place[:, 1:2] * columns + place[:, 2:] * rows)
            before = out[at]
            doubled += int(((before != 0) & (before != numbers)).sum())
            out[at] = np.maximum(before, numbers)
        if doubled:
            self.notes.append(
                ("overlapping-segments", f"{found.path.name}: {doubled} pixels are in more than one segment")
            )
        return out

    def _check_known(self, numbers: np.ndarray) -> None:
        unknown = sorted(set(np.unique(numbers).tolist()) - set(self._classes))
        if unknown:
            raise DataError(
                f"{self._found.path.name}: pixels of segments {unknown[:8]}, which the file does not describe",
                "export the segmentation anew",
                kind="unreadable",
            )


def _list(values: Any) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _is_dicom(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith(".dcm")


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[SegmentationLabels]:
    """Open a segmentation of a volume; the image may be its DICOM series, or a NIfTI file of it.

    Raises:
        DataError: no segmentation, damaged, of another frame of reference or grid, or with segments that label_values
            does not declare.
    """
    found = _opened(path)
    series = read_series(image_path) if _is_dicom(image_path) else None
    yield SegmentationLabels(found, _Places(found, image_path, image, series), data)
