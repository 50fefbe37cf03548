"""YOLO segmentation text: one object a line, `class x1 y1 x2 y2 ...`, coordinates as fractions of width and height.

A file without lines has no objects. Boxes (`class x y width height`) have no outlines and are refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations._drawing import Drawn, Shape, draw
from segcore.io.images._checks import check_file
from segcore.params.data import Data

EXTENSIONS = (".txt",)

# Coordinates further outside than this are no fractions of the image's size.
_FARTHEST = 1.0
_EXPORT = "export the annotations again in YOLO's format for segmentation"


def _unreadable(path: Path, line: int, what: str, remedy: str = _EXPORT) -> DataError:
    return DataError(f"{path.name}: line {line} {what}", remedy, kind="polygons-unreadable")


def _shape(path: Path, line: int, words: list[str], image: Info) -> Shape:
    """The object of a line.

    Raises:
        DataError: it is a box, damaged, or in pixels.
    """
    try:
        number = int(words[0].removesuffix(".0"))
        points = np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise _unreadable(path, line, f"is not a class and coordinates ({str(error)[:60]})") from error
    if len(points) == 4:
        what = "is a box (a class and four numbers), which has no outline"
        raise _unreadable(path, line, what, "export the outlines of the objects, for segmentation")
    if len(points) < 6 or len(points) % 2:
        raise _unreadable(
            path, line, f"has {len(points)} coordinates; an outline has pairs, and at least three"
        )
    if not np.isfinite(points).all() or points.min() < -_FARTHEST or points.max() > 1 + _FARTHEST:
        what = f"has coordinates from {points.min():g} to {points.max():g}; fractions are from 0 to 1"
        raise _unreadable(path, line, what, "divide x by the width and y by the height of the image")
    outline = points.reshape(-1, 2) * (image.width, image.height)
    return Shape(line, number, [outline.ravel().tolist()])


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Drawn]:
    """Open and draw the objects of an image. A key of data.label_values is the number of a class, or "others".

    Raises:
        DataError: the file is not such text, has boxes instead of outlines, or a class that is not declared.
    """
    if not (path.is_file() and path.stat().st_size == 0):
        check_file(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name}: is not text ({error.reason})", _EXPORT, kind="polygons-unreadable"
        ) from error
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    shapes = [_shape(path, number, words, image) for number, words in lines if words]
    yield draw(path, image_path, image, data, shapes, [], None, "line")
