"""Polygons as in Cityscapes (JSON, gtFine_polygons.json): the objects of one image; later ones are on top."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segcore.data.raster import Info
from segcore.io.annotations import _json
from segcore.io.annotations._drawing import Drawn, Shape, Size, draw, size_of, skipped
from segcore.params.data import Data

EXTENSIONS = (".json",)


def reads(path: Path) -> bool:
    """Whether a JSON file has the objects of Cityscapes.

    Raises:
        DataError: it is not JSON.
    """
    return _json.has_list(path, "objects")


def _size(path: Path, content: dict[str, Any]) -> Size | None:
    return size_of(path.name, content.get("imgHeight"), content.get("imgWidth"))


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Drawn]:
    """Open and draw the objects of an image. A key of data.label_values is a label, or "others".

    Raises:
        DataError: the objects are damaged, or the file has another size or a label that is not declared.
    """
    content = _json.content(path)
    shapes, without_area = [], []
    for index, entry in enumerate(content["objects"], 1):
        try:
            points = [float(value) for x, y in entry.get("polygon") or () for value in (x, y)]
            label = str(entry["label"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _json.unreadable(
                path.name, f"object {index} has no label or no polygon of x, y ({str(error)[:100]})"
            ) from error
        if len(points) < 6 or entry.get("deleted"):
            without_area.append("deleted" if entry.get("deleted") else "object without a polygon")
            continue
        shapes.append(Shape(index, label, [points]))
    yield draw(path, image_path, image, data, shapes, skipped(without_area), _size(path, content), "object")
