"""CVAT for images 1.1 (XML): polygons, boxes, ellipses and masks of many images; shapes of higher z_order are on top.

https://docs.cvat.ai/docs/manual/advanced/formats/format-cvat/. With data.label_property, the class of a shape is the
value of that attribute, else its label. Shapes with the same group_id and label are one object. The file is parsed
without external entities.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from segcore.data.raster import Info, Note
from segcore.errors import DataError
from segcore.io.annotations import _json
from segcore.io.annotations._coordinates import reach_of
from segcore.io.annotations._drawing import Drawn, Shape, Size, check_size, draw, size_of, skipped
from segcore.io.annotations._entries import Entries
from segcore.io.annotations._outlines import ellipse, mask_runs, rectangle
from segcore.params.data import Data

EXTENSIONS = (".xml",)

_MOST_BYTES = 2**28
_EXPORT = "export the task or project again as `CVAT for images 1.1`"
# Elements of an image that are no shapes.
_NO_SHAPES = ("tag", "attribute")


def _unreadable(name: str, what: str, remedy: str = _EXPORT) -> DataError:
    return DataError(f"{name}: {what}", remedy, kind="polygons-unreadable")


class _Cvat:
    """Images of a file."""

    def __init__(self, name: str, images: list[ElementTree.Element]) -> None:
        self.images = Entries(name, ((str(i.get("name")), i.get("id"), i) for i in images))
        self._elements = images

    @cached_property
    def reach(self) -> float | None:
        """Largest coordinate of all polygons; damaged ones do not count."""
        return reach_of(_polygon(e) for image in self._elements for e in image.findall("polygon"))


def _polygon(element: ElementTree.Element) -> list[list[float]]:
    try:
        return _points(element)
    except ValueError:
        return []


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, changed: int) -> _Cvat:
    """Images of a file; cached, because many images share it and parsing is slow.

    Raises:
        DataError: it is not XML, or not the annotations of images by CVAT.
    """
    if size > _MOST_BYTES:
        what = f"is XML of {size} bytes, more than {_MOST_BYTES}"
        raise DataError(f"{path.name}: {what}", "export fewer images to a file", kind="too-large")
    try:
        text = path.read_text(encoding="utf-8-sig")
        # Entities can expand to gigabytes or read other files, and annotations need none.
        if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
            raise _unreadable(path.name, "declares XML entities")
        root = ElementTree.fromstring(text)
    except (OSError, UnicodeError, ElementTree.ParseError, ValueError, RecursionError) as error:
        raise _unreadable(path.name, f"is not XML ({str(error)[:200]})") from error
    if root.tag != "annotations":
        is_voc = root.tag == "annotation"
        what = (
            "is Pascal VOC, which has boxes but no outlines"
            if is_voc
            else f"is not CVAT but <{str(root.tag)[:40]}>"
        )
        raise _unreadable(path.name, what)
    if root.find("track") is not None:
        raise _unreadable(
            path.name, "is `CVAT for video`, whose tracks do not name the files of their frames"
        )
    images = root.findall("image")
    if any(image.get("name") is None for image in images):
        raise _unreadable(path.name, "has an image without a name")
    return _Cvat(path.name, images)


def entries(path: Path) -> Entries:
    """Entries of all images of a file.

    Raises:
        DataError: it is not the annotations of images by CVAT.
    """
    return _parsed(*_json.stamp(path)).images


def _size(path: Path, element: ElementTree.Element) -> Size | None:
    return size_of(path.name, element.get("height"), element.get("width"))


def _number(element: ElementTree.Element, name: str, default: str | None = None) -> float:
    text = element.get(name, default)
    if text is None:
        raise KeyError(name)
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(f"{name} is {text}")
    return value


def _points(element: ElementTree.Element) -> list[list[float]]:
    return [[float(v) for point in element.get("points", "").split(";") for v in point.split(",")]]


def _mask(element: ElementTree.Element, size: Size) -> tuple[Any, bool]:
    """Runs of a mask: counts of pixels outside and inside in turn, row by row within its box."""
    left, top, width, height = (int(_number(element, key)) for key in ("left", "top", "width", "height"))
    counts = np.array([int(word) for word in element.get("rle", "").split(",")], np.int64)
    if min(width, height) < 1 or height * width > 16 * size[0] * size[1]:
        raise ValueError(f"its box has {height} x {width} pixels, the image {size[0]} x {size[1]}")
    if counts.min() < 0 or counts.sum() != height * width:
        raise ValueError(f"its counts sum to {counts.sum()}, and its box has {height} x {width} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return mask_runs(np.repeat(values, counts).reshape(height, width), left, top, *size)


def _outline(element: ElementTree.Element, size: Size) -> tuple[Any, bool]:
    """Outline of a shape, None for a shape without an area, and whether it is a mask that was clipped.

    Raises:
        ValueError, KeyError: an attribute is damaged or missing.
    """
    if element.tag == "polygon":
        return _points(element), False
    if element.tag == "box":
        left, top, right, bottom = (_number(element, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return [rectangle(left, top, right, bottom, _number(element, "rotation", "0"))], False
    if element.tag == "ellipse":
        x, y, radius_x, radius_y = (_number(element, key) for key in ("cx", "cy", "rx", "ry"))
        return [ellipse(x, y, radius_x, radius_y, _number(element, "rotation", "0"))], False
    if element.tag == "mask":
        return _mask(element, size)
    return None, False


def _value(element: ElementTree.Element, field: str | None) -> str | None:
    """Label of a shape, or the value of its attribute `field`; None where it has no such attribute."""
    if field is None or field == "label":
        return element.get("label")
    values = [a.text or "" for a in element.findall("attribute") if a.get("name") == field]
    return values[0] if values else None


def _shapes(
    name: str, image: ElementTree.Element, size: Size, field: str | None
) -> tuple[list[Shape], list[Note]]:
    """Shapes with an area, and notes on the others.

    Raises:
        DataError: a shape is damaged.
    """
    shapes: list[Shape] = []
    without_area, groups, clipped = [], dict[tuple[str, str], int](), 0
    for index, element in enumerate((e for e in image if e.tag not in _NO_SHAPES), 1):
        try:
            outline, is_clipped = _outline(element, size)
            level = _number(element, "z_order", "0")
        except (KeyError, ValueError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:150]
            what = f"shape {index} of {image.get('name')} is not a {element.tag} of CVAT ({reason})"
            raise _unreadable(name, what) from error
        clipped += is_clipped
        if outline is None:
            without_area.append(element.tag)
            continue
        number, value, group = len(shapes) + 1, _value(element, field), element.get("group_id", "0")
        if group != "0":
            number = groups.setdefault((group, str(value)), number)
        shapes.append(Shape(index, value, outline, level, number))
    notes = skipped(without_area)
    if clipped:
        notes.append(("polygons-outside", f"{clipped} masks reach outside of the image and were clipped"))
    return shapes, notes


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Drawn]:
    """Open and draw the shapes of an image, which is looked up by name, with or without folders.

    A key of data.label_values is a label (with data.label_property the value of that attribute), or "others".

    Raises:
        DataError: the file is not CVAT's, does not list the image or lists it with another size, or has a label that
            is not declared or a damaged shape.
    """
    cvat = _parsed(*_json.stamp(path))
    element, name_notes = cvat.images.of(image_path.absolute())
    stated = _size(path, element)
    check_size(path, stated, image_path, image)
    shapes, notes = _shapes(path.name, element, (image.height, image.width), data.label_property)
    yield draw(path, image_path, image, data, shapes, name_notes + notes, stated, reach=cvat.reach)
