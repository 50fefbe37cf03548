"""labelme (JSON): the shapes of one image; polygons, rectangles, circles and masks are drawn, others are counted.

https://github.com/wkentaro/labelme. Shapes with the same group_id and label are one object.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from segcore.data.raster import Info, Note
from segcore.io.annotations import _json
from segcore.io.annotations._coordinates import reach_of
from segcore.io.annotations._drawing import Drawn, Shape, Size, check_size, draw, size_of, skipped
from segcore.io.annotations._outlines import ellipse, mask_runs, rectangle
from segcore.params.data import Data

EXTENSIONS = (".json",)


def reads(path: Path) -> bool:
    """Whether a JSON file has the shapes of labelme.

    Raises:
        DataError: it is not JSON.
    """
    return _json.has_list(path, "shapes")


def _points(shape: dict[str, Any]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in shape["points"]]


def _mask(shape: dict[str, Any], where: str, size: Size) -> tuple[Any, bool]:
    """Runs of a shape of the type mask: a PNG of the box from its first to its second point."""
    (left, top), (right, bottom) = (np.rint(point).astype(int) for point in _points(shape))
    expected = (int(bottom - top + 1), int(right - left + 1))
    if min(expected) < 1 or expected[0] * expected[1] > 16 * size[0] * size[1]:
        raise _json.unreadable(
            where, f"has a mask in a box of {expected[0]} x {expected[1]}, the image is {size[0]} x {size[1]}"
        )
    try:
        with Image.open(
            io.BytesIO(base64.b64decode(str(shape["mask"]), validate=True)), formats=["PNG"]
        ) as png:
            if (png.height, png.width) != expected:
                raise _json.unreadable(
                    where,
                    f"has a mask of {png.height} x {png.width} pixels in a box of {expected[0]} x {expected[1]}",
                )
            mask = np.asarray(png.convert("L")) > 0
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _json.unreadable(where, f"has a mask that is not a PNG ({str(error)[:100]})") from error
    return mask_runs(mask, int(left), int(top), *size)


def _outline(shape: dict[str, Any], where: str, size: Size) -> tuple[Any, bool]:
    """Outline of a shape, None for a shape without an area, and whether it is a mask that was clipped.

    Raises:
        DataError: its points do not fit its type.
    """
    kind = shape.get("shape_type") or "polygon"
    try:
        if kind == "mask":
            return _mask(shape, where, size)
        points = _points(shape)
        if kind in ("polygon", "oriented_rectangle", "rotation"):
            return ([[value for point in points for value in point]] if len(points) > 2 else None), False
        if kind == "rectangle":
            x, y = zip(*points, strict=True)
            return [rectangle(min(x), min(y), max(x), max(y))], False
        if kind == "circle":
            centre, edge = points
            radius = float(np.hypot(edge[0] - centre[0], edge[1] - centre[1]))
            return [ellipse(*centre, radius, radius)], False
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)[:100]
        raise _json.unreadable(where, f"is not a {kind} of labelme ({reason})") from error
    return None, False


def _size(path: Path, content: dict[str, Any]) -> Size | None:
    return size_of(path.name, content.get("imageHeight"), content.get("imageWidth"))


def _shapes(name: str, content: dict[str, Any], size: Size) -> tuple[list[Shape], list[Note]]:
    """Shapes with an area, and notes on the others.

    Raises:
        DataError: a shape is damaged.
    """
    shapes: list[Shape] = []
    without_area, groups, clipped = [], dict[tuple[str, str], int](), 0
    for index, shape in enumerate(content["shapes"], 1):
        if not isinstance(shape, dict) or "label" not in shape:
            raise _json.unreadable(name, f"shape {index} has no label")
        outline, is_clipped = _outline(shape, f"{name}: shape {index}", size)
        clipped += is_clipped
        if outline is None:
            kind = shape.get("shape_type") or "polygon"
            without_area.append("polygon of less than three points" if kind == "polygon" else kind)
            continue
        number, group = len(shapes) + 1, shape.get("group_id")
        if group is not None:
            number = groups.setdefault((str(group), str(shape["label"])), number)
        shapes.append(Shape(index, shape["label"], outline, number=number))
    notes = skipped(without_area)
    if clipped:
        notes.append(("polygons-outside", f"{clipped} masks reach outside of the image and were clipped"))
    return shapes, notes


def _other_image(content: dict[str, Any], image_path: Path) -> list[Note]:
    """A note if the annotations name another image."""
    named = PurePosixPath(str(content.get("imagePath") or image_path.name).replace("\\", "/"))
    if named.stem == image_path.stem:
        return []
    return [
        ("other-image", f"the annotations name the image {named.name}, and were read for {image_path.name}")
    ]


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Drawn]:
    """Open and draw the shapes of an image. A key of data.label_values is a label, or "others".

    Raises:
        DataError: the file is not labelme's, has another size, a label that is not declared, or a damaged shape.
    """
    content = _json.content(path)
    stated = _size(path, content)
    check_size(path, stated, image_path, image)
    shapes, notes = _shapes(path.name, content, (image.height, image.width))
    notes += _other_image(content, image_path)
    reach = reach_of(shape.outline for shape in shapes)
    yield draw(path, image_path, image, data, shapes, notes, stated, reach=reach)
