"""Draws the objects of one picture, whatever the format of its annotations; polygons as pycocotools draws them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.annotations._coordinates import check_pixels
from segcore.io.annotations._overlaps import Losses, areas
from segcore.io.annotations._runs import Runs, runs_of
from segcore.io.annotations._shared import class_of, ids, unknown_category, value_text
from segcore.io.annotations._unlabelled import Objects, Unlabelled
from segcore.params.data import Data

# All objects of an image are drawn at once, in memory.
_MOST_PIXELS = 2**28
Size = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """An object of an annotation file.

    Attributes:
        id: its number or name in the file, for messages.
        value: its label as it stands in the file.
        outline: polygons, each x, y, x, y, ... in pixels; a run-length mask as in COCO; or its runs of pixels.
        level: shapes of a higher level are drawn on top of those of a lower one, and later ones of a level on top.
        number: its object number; None: its place in the file, from 1 on.
        code: its class; None: that of its value.
    """

    id: object
    value: object
    outline: Any
    level: float = 0
    number: int | None = None
    code: int | None = None


class Drawn:
    """Drawn objects of one image, as a LabelSource.

    Attributes:
        notes: what was done to the objects, and what became of pixels outside them.
        found: objects by label as it stands in the file.
    """

    def __init__(
        self, numbers: np.ndarray, objects: Objects, notes: list[Note], found: dict[str, int]
    ) -> None:
        self.notes, self.found = notes, found
        self._numbers, self._objects = numbers, objects

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and object numbers of a window.

        Raises:
            DataError: pixels outside all objects have no class by the settings (kind "no-unlabelled").
        """
        row, column, height, width = window
        numbers = self._numbers[row : row + height, column : column + width]
        return self._objects.labels(numbers, window, plane)


def size_of(name: str, height: Any, width: Any) -> Size | None:
    """Height and width of an image as an annotation file states them, None where it does not.

    Args:
        name: of the annotation file.
        height: as it stands there: a number or its text; None: not stated.
        width: likewise.

    Raises:
        DataError: they are no numbers.
    """
    if height is None or width is None:
        return None
    try:
        return int(float(height)), int(float(width))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{name}: states a size of {str(height)[:40]} x {str(width)[:40]}, which is no number of pixels",
            "correct height and width in the annotations, or export them again",
            kind="polygons-unreadable",
        ) from error


def check_size(path: Path, stated: Size | None, image_path: Path, image: Info) -> None:
    """Check that annotations in pixels are of an image's size.

    Args:
        path: of the annotations.
        stated: height and width of the image by the annotations; None: not stated.
        image_path: of the image.
        image: its header.

    Raises:
        DataError: sizes differ, or the image is a volume or too large to be drawn.
    """
    pair = f"{path.name} and {image_path.name}"
    height, width = stated or (image.height, image.width)
    if (height, width) != (image.height, image.width) or image.depth != 1:
        planes = f" x {image.depth} planes" if image.depth != 1 else ""
        raise DataError(
            f"{pair}: sizes differ, annotations {height} x {width}, "
            f"image {image.height} x {image.width}{planes}",
            "annotate the picture at its original size, or resize it to the size of the annotations",
            kind="size-mismatch",
        )
    if image.height * image.width > _MOST_PIXELS:
        raise DataError(
            f"{pair}: {image.height} x {image.width} pixels are too many for annotations in pixels",
            "cut the picture into tiles, or provide the polygons as GeoPackage",
            kind="too-large",
        )


def draw(
    path: Path,
    image_path: Path,
    image: Info,
    data: Data,
    shapes: Sequence[Shape],
    notes: list[Note],
    stated: Size | None,
    what: str = "shape",
    reach: float | None = None,
) -> Drawn:
    """Draw the objects of an image.

    Args:
        path: of the annotations.
        image_path: of the image.
        image: its header.
        data: label_values maps the labels to classes.
        shapes: objects in file order.
        notes: what was done to the annotations so far.
        stated: height and width of the image by the annotations; None: not stated.
        what: name of a shape in the file, for messages.
        reach: largest coordinate of all polygons in the file, see `reach_of`; None: not to be checked.

    Raises:
        DataError: sizes differ, a label is not declared, coordinates are no pixels, or an outline cannot be drawn.
    """
    check_size(path, stated, image_path, image)
    notes = [*notes, *check_pixels(path.name, reach, image)]
    codes = _codes(path, image_path, shapes, data)
    count = max((s.number or i for i, s in enumerate(shapes, 1)), default=0)
    painted = _paint(path.name, image, shapes, what, count)
    table, names = np.zeros(count, np.uint8), [object()] * count
    # backwards, so that an object of several shapes has the id of its first one
    for i, (shape, code) in reversed(list(enumerate(zip(shapes, codes, strict=True)))):
        number = shape.number or i + 1
        table[number - 1], names[number - 1] = code, shape.id
    all_notes = [*notes, *painted.notes]
    objects = Objects(table, Unlabelled(path.name, image_path.name, data, all_notes))
    losses = Losses(path.name, what, names, objects.is_object, painted.is_whole)
    kept = areas(painted.numbers, count)[1:]
    losses.add(painted.covered, kept, (0, 0, image.height, image.width))
    all_notes += losses.notes()
    return Drawn(
        painted.numbers, objects, all_notes, dict(Counter(value_text(shape.value) for shape in shapes))
    )


def _codes(path: Path, image_path: Path, shapes: Sequence[Shape], data: Data) -> list[int]:
    """Class of each shape.

    Raises:
        DataError: a label that label_values does not declare.
    """
    table, unknown, codes = data.label_table, Counter[str](), []
    for shape in shapes:
        code = class_of(shape.value, table) if shape.code is None else shape.code
        if code is None:
            unknown[value_text(shape.value)] += 1
        codes.append(IGNORE if code is None else code)
    if unknown:
        raise unknown_category(path.name, f"objects of {image_path.name} have labels", unknown, data)
    return codes


class _Painted(NamedTuple):
    """Object numbers (H, W) uint32, pixels that each object covers (N,), whether it is whole (N,), and notes.

    Objects that are outside the image or have no outline are not whole.
    """

    numbers: np.ndarray
    covered: np.ndarray
    is_whole: np.ndarray
    notes: list[Note]


def _paint(name: str, image: Info, shapes: Sequence[Shape], what: str, count: int) -> _Painted:
    """Draw shapes whose numbers are at most `count`.

    Raises:
        DataError: no shape has an outline, or one cannot be drawn.
    """
    height, width = image.height, image.width
    # Column by column, like run-length masks.
    flat = np.zeros(height * width, np.uint32)
    pieces: dict[int, list[Runs]] = {}
    without_outline, outside, clipped = [], [], []
    for index in sorted(range(len(shapes)), key=lambda i: shapes[i].level):
        shape = shapes[index]
        runs, is_clipped = runs_of(shape.outline, f"{name}: {what} {shape.id}", height, width)
        if runs is None:
            without_outline.append(shape.id)
            continue
        number = shape.number or index + 1
        if is_clipped and len(runs[0]) == 0:
            outside.append(shape.id)
            continue
        if is_clipped:
            clipped.append(shape.id)
        pieces.setdefault(number, []).append(runs)
        for start, length in zip(*runs, strict=True):
            flat[start : start + length] = number
    if without_outline and len(without_outline) == len(shapes):
        raise DataError(
            f"{name}: {what}s have no outlines (boxes are not enough): {ids(without_outline)}",
            "export instance segmentations, or provide the polygons as GeoJSON",
            kind="polygons-unreadable",
        )
    notes = []
    if without_outline:
        notes.append(
            ("polygons-invalid", f"{what}s without an outline were left out: {ids(without_outline)}")
        )
    if outside:
        notes.append(("polygons-outside", f"{what}s that cover no pixel: {ids(outside)}"))
    if clipped:
        text = f"{len(clipped)} {what}s reach outside of the image and were clipped: {ids(clipped)}"
        notes.append(("polygons-outside", text))
    covered, is_whole = np.zeros(count, np.int64), np.zeros(count, bool)
    for number, parts in pieces.items():
        covered[number - 1], is_whole[number - 1] = _area(parts), True
    return _Painted(flat.reshape(width, height).T, covered, is_whole, notes)


def _area(parts: Sequence[Runs]) -> int:
    """Pixels of an object that was drawn in parts, which may overlap."""
    if len(parts) == 1:
        return int(parts[0][1].sum())
    runs = [(start, length) for part in parts for start, length in zip(*part, strict=True)]
    return len(np.unique(np.concatenate([np.arange(start, start + length) for start, length in runs])))


def skipped(kinds: Sequence[object]) -> list[Note]:
    """A note with the number of shapes by kind that have no area or are unknown; none for no shapes.

    Args:
        kinds: kind of each skipped shape, such as "point".
    """
    if not kinds:
        return []
    counted = Counter(str(kind)[:40] for kind in kinds).most_common()
    texts = ", ".join(f"{kind} ({count})" for kind, count in counted[:8])
    return [("shapes-skipped", f"{len(kinds)} shapes without an area were left out: {texts}")]
