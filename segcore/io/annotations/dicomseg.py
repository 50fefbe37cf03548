"""Ground truth from a DICOM Segmentation object (DICOM PS3.3, A.51), mapped to the planes of its image by position.

Frames are placed by their position and directions, so a segmentation may cover some of the slices, a part of each, or
have another orientation; frames without a position are placed on the slice that they reference. Planes without a frame
have no label, unless the key 0 gives them a class. A key of `label_values` is the number of a segment or its label.
BINARY, LABELMAP and FRACTIONAL objects are read; a pixel of a FRACTIONAL one belongs to the segment from half of the
maximum value on.

Where segments overlap, the one with the highest number is used, and a note gives the number of such pixels.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.annotations._overlaps import Losses, areas
from segcore.io.annotations._segmentation import Segmentation, read_segmentation
from segcore.io.annotations._unlabelled import Unlabelled
from segcore.io.images._elements import geometry, parsing, uid
from segcore.io.images._series import Series, read_series
from segcore.io.images._stacking import Frame
from segcore.params.data import Data

EXTENSIONS = (".dcm",)

# Largest offset from the image's grid, in voxels; labels further off were drawn on another grid.
_NEAR = 0.1
_EXPORT = "export the segmentation on the grid of its image series"


def _class_of(path: Path, number: int, label: str, table: dict[int | str, int]) -> int:
    for key in (number, label, "others"):
        if key in table:
            return table[key]
    raise DataError(
        f"{path.name}: segment {number} ({label!r}) is not in data.label_values",
        f'add {number} or "{label}" to data.label_values, or "others" for all segments without an entry',
        kind="unknown-category",
    )


class _FrameMap:
    """Maps pixels of frames to voxels of the image's planes (D, H, W)."""

    def __init__(
        self, segmentation: Segmentation, image_path: Path, image: Info, series: Series | None
    ) -> None:
        self._pair = f"{segmentation.path.name} and its image {image_path.name}"
        self._segmentation, self._image, self._series = segmentation, image, series
        self.shape = (image.depth, image.height, image.width)
        if image.canonical is not None:
            self._to_index = np.linalg.inv(np.reshape(image.canonical, (4, 4)))
        ours = uid(segmentation.elements, "FrameOfReferenceUID")
        theirs = series.frame_of_reference if series else None
        if ours and theirs and ours != theirs:
            raise DataError(
                f"{self._pair}: frames of reference differ, image {theirs}, segmentation {ours}",
                "pair the segmentation with the series that it was drawn on",
                kind="affine-mismatch",
            )

    def origin_and_steps(self, frame: int) -> np.ndarray:
        """Placement of a frame: columns are its origin, the step along a row, and the step down a column.

        Returns:
            (3, 3) int, in planes, rows and columns of the image.

        Raises:
            DataError: the frame is off the image's grid, or has neither a position nor a usable reference.
        """
        with parsing(self._segmentation.path):
            placed = geometry(self._segmentation.elements, frame)
        position, directions, spacing = placed["position"], placed["directions"], placed["spacing"]
        if self._image.canonical is None or position is None or directions is None or spacing is None:
            plane, source = self._referenced(frame)
            position, directions, spacing = source.position, source.directions, source.spacing
        if self._image.canonical is None or position is None or directions is None or spacing is None:
            return np.array([[plane, 0, 0], [0, 0, 1], [0, 1, 0]])
        # From LPS to RAS: x and y change sign.
        points = np.stack([position, directions[:3] * spacing[1], directions[3:] * spacing[0]], axis=1)
        points *= np.array([[-1], [-1], [1]])
        voxels = self._to_index[:3, :3] @ points
        voxels[:, 0] += self._to_index[:3, 3]
        self._check(voxels, frame)
        rounded: np.ndarray = np.rint(voxels).astype(int)
        return rounded

    def _check(self, voxels: np.ndarray, frame: int) -> None:
        shape = (int(self._segmentation.elements.Columns), int(self._segmentation.elements.Rows))
        far = voxels[:, 0] + voxels[:, 1] * (shape[0] - 1) + voxels[:, 2] * (shape[1] - 1)
        ends = np.stack([voxels[:, 0], far])
        whole = np.rint(voxels)
        exact = whole[:, 0] + whole[:, 1] * (shape[0] - 1) + whole[:, 2] * (shape[1] - 1)
        off = max(np.abs(far - exact).max(), np.abs(voxels - whole)[:, 0].max())
        if off > _NEAR or (np.abs(whole[:, 1:]).sum(axis=0) != 1).any():
            raise DataError(
                f"{self._pair}: grids differ, image affine {_list(self._image.canonical or ())}, frame {frame} of "
                f"the segmentation is {off:.3g} voxels off it, at (plane, row, column) {_list(voxels[:, 0])}",
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
        """Index and slice of the series that a frame without a position references.

        Raises:
            DataError: it references none or several slices of the series, or one of another size.
        """
        segmentation, series = self._segmentation, self._series
        slices = {f.uid: (k, f) for k, f in enumerate(series.frames)} if series else {}
        with parsing(segmentation.path):
            named = [slices[uid] for uid in segmentation.references(frame) if uid in slices]
        if series is None or len(named) != 1 or len(slices) != len(series.frames):
            raise DataError(
                f"{self._pair}: frame {frame} has no position that fits the image, and references {len(named)} "
                f"of the image's {len(slices)} files",
                _EXPORT,
                kind="affine-mismatch",
            )
        size = (int(segmentation.elements.Rows), int(segmentation.elements.Columns))
        if size != (series.rows, series.columns):
            raise DataError(
                f"{self._pair}: sizes differ, image {series.rows} x {series.columns}, mask {size[0]} x {size[1]}",
                _EXPORT,
                kind="size-mismatch",
            )
        return named[0]


class SegmentationLabels:
    """Class indices of a DICOM segmentation, on the planes of its image."""

    def __init__(
        self, segmentation: Segmentation, frame_map: _FrameMap, image_path: Path, data: Data
    ) -> None:
        self.notes: list[Note] = []
        table = data.label_table
        # The key 0 says what is in no segment.
        self._unlabelled = Unlabelled(segmentation.path.name, image_path.name, data, self.notes, table.get(0))
        self._classes = {0: self._unlabelled.fill}
        for number, label in segmentation.names.items():
            # A LABELMAP may describe its background.
            if number == 0:
                continue
            self._classes[number] = _class_of(segmentation.path, number, label, table)
        self._segmentation, self._frame_map, self._data = segmentation, frame_map, data
        self._numbers: np.ndarray | None = None
        self._pixels = Counter[int]()

    @property
    def found(self) -> dict[str, int]:
        """Pixels by number and label of their segment, as stored."""
        names = self._segmentation.names
        return {f"{n} {names.get(n, '')}".rstrip(): count for n, count in sorted(self._pixels.items())}

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices of a window of a plane; the first call reads the whole file.

        With `data.instances`, each segment except those of the background class is an object.

        Raises:
            DataError: the file is damaged, a frame is not on the image's grid, or pixels in no segment have no class by
                the settings.
        """
        if self._numbers is None:
            self._numbers = self._read()
        row, column, height, width = window
        numbers = self._numbers[plane, row : row + height, column : column + width]
        self._unlabelled.add(numbers.size - int(np.count_nonzero(numbers)), window, plane)
        table = np.full(max(self._classes) + 1, IGNORE, np.uint8)
        table[list(self._classes)] = list(self._classes.values())
        classes = table[numbers]
        if not self._data.masks_have_numbers:
            return Labels(classes)
        objects = ~np.isin(classes, list(self._unlabelled.others))
        return Labels(classes, np.where(objects, numbers, 0).astype(np.uint32))

    def _read(self) -> np.ndarray:
        """Segment number of each voxel: (D, H, W) uint8 or uint16, 0 for none."""
        segmentation, overlapping, repeated = self._segmentation, 0, Counter[int]()
        out = np.zeros(self._frame_map.shape, np.uint8 if max(self._classes) < 256 else np.uint16)
        half = float(segmentation.elements.get("MaximumFractionalValue") or 1) / 2
        for frame, pixels in enumerate(segmentation.frames()):
            segment = segmentation.segment_of(frame)
            inside = pixels >= half if segmentation.kind == "FRACTIONAL" else pixels > 0
            if not inside.any():
                continue
            numbers = pixels[inside] if segment is None else np.array([segment])
            rows, columns = np.nonzero(inside)
            self._check_segments(numbers, len(rows))
            numbers = numbers.astype(out.dtype)
            voxels = self._frame_map.origin_and_steps(frame)
            at = tuple(voxels[:, :1] + voxels[:, 1:2] * columns + voxels[:, 2:] * rows)
            before = out[at]
            overlapping += int(((before != 0) & (before != numbers)).sum())
            repeated.update(before[before == numbers].tolist())
            out[at] = np.maximum(before, numbers)
        if overlapping:
            self.notes.append(
                (
                    "overlapping-segments",
                    f"{segmentation.path.name}: {overlapping} pixels are in more than one segment",
                )
            )
        if self._data.masks_have_numbers:
            self.notes += self._losses(out, repeated)
        return out

    def _losses(self, out: np.ndarray, repeated: Counter[int]) -> list[Note]:
        """Notes on segments that lose voxels to others.

        Args:
            out: segment number of each voxel (D, H, W).
            repeated: voxels that a segment has more than once, by its number.
        """
        segments = [number for number in sorted(self._classes) if number]
        is_object = np.array([self._classes[n] not in self._unlabelled.others for n in segments], bool)
        kept = areas(out.reshape(-1, out.shape[2]), max(self._classes))
        covered = np.array([self._pixels[n] - repeated[n] for n in segments], np.int64)
        losses = Losses(self._segmentation.path.name, "segment", segments, is_object)
        losses.add(covered, kept[segments], (0, 0, *out.shape[1:]))
        return losses.notes()

    def _check_segments(self, numbers: np.ndarray, pixels: int) -> None:
        """Count the pixels of each segment: those of `numbers`, or one number for all.

        Raises:
            DataError: the file does not describe a segment.
        """
        values, counts = np.unique(numbers, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._pixels[value] += pixels if len(numbers) == 1 else count
        unknown = sorted(set(values.tolist()) - set(self._classes))
        if unknown:
            raise DataError(
                f"{self._segmentation.path.name}: pixels of segments {unknown[:8]}, which the file does not describe",
                "export the segmentation again",
                kind="unreadable",
            )


def _list(values: Any) -> str:
    return "(" + ", ".join(f"{v:.4g}" for v in values) + ")"


def _is_dicom(path: Path) -> bool:
    return path.is_dir() or path.name.lower().endswith(".dcm")


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[SegmentationLabels]:
    """Open a segmentation of a volume; the image may be its DICOM series, or a NIfTI file of the series.

    Raises:
        DataError: the file is not a segmentation, is damaged, has another frame of reference or grid, or has segments
            that label_values does not declare.
    """
    segmentation = read_segmentation(path)
    series = read_series(image_path) if _is_dicom(image_path) else None
    frame_map = _FrameMap(segmentation, image_path, image, series)
    yield SegmentationLabels(segmentation, frame_map, image_path, data)
