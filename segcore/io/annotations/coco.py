"""COCO instance annotations (JSON): polygons and run-length masks of many images.

https://cocodataset.org/#format-data. Polygons are drawn as pycocotools draws them. Objects are numbered from 1 in file
order; where they overlap, the later one is on top. Crowd regions (`iscrowd`) are below all objects and become IGNORE,
unless data.crowds is "objects". Programs in which objects are brushed export each brushed object as a crowd. So where
all run-length masks of a file are crowds, they are objects, except in the files of COCO itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note
from segcore.errors import DataError
from segcore.io.annotations import _json
from segcore.io.annotations._coordinates import reach_of
from segcore.io.annotations._drawing import Drawn, Shape, draw, size_of
from segcore.io.annotations._entries import Entries
from segcore.io.annotations._shared import OTHERS, class_of, ids
from segcore.params.data import Data

EXTENSIONS = (".json",)


class _Coco:
    """Annotations of a file, indexed by image."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self.name = name
        images = [{**image, "id": str(image["id"])} for image in content["images"]]
        self.images = Entries(name, ((str(image["file_name"]), image["id"], image) for image in images))
        self.categories = {str(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            self._annotations.setdefault(str(annotation["image_id"]), []).append(annotation)
        brushed = [a for a in content["annotations"] if _is_run_length(a)]
        info = content.get("info")
        is_coco_itself = isinstance(info, dict) and "cocodataset.org" in str(info.get("url"))
        self.crowds_are_objects = bool(brushed) and all(map(_is_crowd, brushed)) and not is_coco_itself

    @cached_property
    def reach(self) -> float | None:
        """Largest coordinate of all polygons."""
        return reach_of(a.get("segmentation") for many in self._annotations.values() for a in many)

    def annotations(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """Annotations of an image, in file order."""
        return self._annotations.get(image["id"], [])


def _is_run_length(annotation: dict[str, Any]) -> bool:
    return isinstance(annotation.get("segmentation"), dict)


def _is_crowd(annotation: dict[str, Any]) -> bool:
    """Whether an annotation is marked as a crowd; exporters also write true, "1" and "true"."""
    return str(annotation.get("iscrowd")).strip().lower() in ("1", "1.0", "true")


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, changed: int) -> _Coco:
    """Content of a file; cached, because many images share it and indexing is slow.

    Raises:
        DataError: the file is not JSON, or not COCO annotations.
    """
    content = _json.parsed(path, size, changed)
    if not _is_coco(content) or _is_panoptic(content):
        raise _other_format(path, content)
    try:
        return _Coco(path.name, content)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"an entry lacks {error}" if isinstance(error, KeyError) else str(error)
        raise _json.unreadable(path.name, f"is not COCO annotations: {reason}") from error


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(k, d), list)
        for k, d in (("images", None), ("annotations", None), ("categories", []))
    )


def _is_panoptic(content: Any) -> bool:
    """Whether annotations are those of COCO panoptic: their objects are in a PNG for each image."""
    return any(isinstance(a, dict) and "segments_info" in a for a in content["annotations"][:1])


def _other_format(path: Path, content: Any) -> DataError:
    """The error for JSON that is of no known format."""
    if _is_coco(content):
        return _json.unreadable(
            path.name,
            "is COCO panoptic: its objects (segments_info) have no outlines here but are in one PNG for each image",
            "convert it to COCO instances, as panoptic2detection_coco_format.py of panopticapi does, or save a mask of "
            "class numbers for each image and set data.masks to these",
        )
    kind = content.get("type") if isinstance(content, dict) else None
    if kind == "FeatureCollection":
        return _json.unreadable(path.name, "is GeoJSON, not COCO annotations", "rename it to end in .geojson")
    if kind == "Feature":
        what, remedy = (
            "is a GeoJSON or STAC item, not COCO annotations",
            "set data.masks to the annotation file",
        )
        return _json.unreadable(path.name, what, remedy)
    if isinstance(content, list) and content and isinstance(content[0], dict) and "result" in str(content[0]):
        return _json.unreadable(
            path.name,
            "is not COCO annotations but Label Studio's own JSON",
            "export the project from Label Studio as COCO",
        )
    return _json.unreadable(
        path.name,
        "is not COCO annotations: it lacks the lists `images` and `annotations` (nor has it the `shapes` of labelme "
        "or the `objects` of Cityscapes)",
    )


def reads(path: Path) -> bool:
    """Whether a JSON file has the lists of COCO annotations.

    Raises:
        DataError: it is not JSON.
    """
    return _is_coco(_json.content(path))


def entries(path: Path) -> Entries:
    """Entries of all images of a file.

    Raises:
        DataError: it is not COCO annotations.
    """
    return _parsed(*_json.stamp(path)).images


def _ignored(coco: _Coco, annotation: dict[str, Any], data: Data) -> bool:
    """Whether an annotation is a crowd that becomes IGNORE."""
    if not _is_crowd(annotation) or data.crowds == "objects":
        return False
    return not (data.crowds is None and coco.crowds_are_objects and _is_run_length(annotation))


def _crowd_notes(annotations: list[dict[str, Any]], ignored: list[bool], data: Data) -> list[Note]:
    """Notes with the numbers of crowds that are ignored, and of those that are objects."""
    crowds = [(a.get("id"), out) for a, out in zip(annotations, ignored, strict=True) if _is_crowd(a)]
    left_out, kept = [i for i, out in crowds if out], [i for i, out in crowds if not out]
    reason = "data.crowds is `objects`" if data.crowds else "all run-length masks of the file are marked so"
    what = "objects" if len(kept) > 1 else "an object"
    notes = []
    if left_out:
        notes.append(("crowds-ignored", f"{_marked(left_out)} iscrowd and ignored"))
    if kept:
        notes.append(("crowds-objects", f"{_marked(kept)} iscrowd, but read as {what}, because {reason}"))
    return notes


def _marked(numbers: list[object]) -> str:
    if len(numbers) == 1:
        return f"annotation {numbers[0]} is marked"
    return f"{len(numbers)} annotations (ids {ids(numbers)}) are marked"


def _code(file: str, name: str | None, number: Any, table: dict[int | str, int]) -> int | None:
    """Class of a category by its name or its id.

    Raises:
        DataError: both are keys, of different classes.
    """
    by_name = class_of(name, {**table, OTHERS: -1}) if name is not None else -1
    by_number = class_of(number, {**table, OTHERS: -1})
    if name is None or by_name == -1:
        return class_of(number, table)
    if name.isdecimal() and by_number not in (-1, by_name):
        raise DataError(
            f"{file}: the category of id {number} has the name {name!r}, and data.label_values has both numbers as "
            "keys, of different classes",
            "give the categories names in the file that are no numbers, and use these as keys",
            kind="unknown-category",
        )
    return by_name


def _shapes(
    coco: _Coco, annotations: list[dict[str, Any]], ignored: list[bool], table: dict[int | str, int]
) -> list[Shape]:
    """Annotations with their classes, by name or id of their category; crowds that are ignored are below all others."""
    shapes = []
    numbers = {
        str(annotation.get("category_id")): annotation.get("category_id") for annotation in annotations
    }
    codes = {key: _code(coco.name, coco.categories.get(key), n, table) for key, n in numbers.items()}
    for annotation, out in zip(annotations, ignored, strict=True):
        number = annotation.get("category_id")
        name, code = coco.categories.get(str(number)), codes[str(number)]
        named = f"id {number}" if name is None else name if code is not None else f"{name!r} (id {number})"
        shapes.append(
            Shape(
                annotation.get("id"),
                named,
                annotation.get("segmentation"),
                level=-1 if out else 0,
                code=IGNORE if out else code,
            )
        )
    return shapes


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[Drawn]:
    """Open and draw the annotations of an image.

    The image is looked up by file_name, with or without folders; an image without annotations has no labelled pixel. A
    key of data.label_values is the name or the id of a category, or "others".

    Raises:
        DataError: the file is not COCO annotations, does not list the image or lists it with another size, a category
            is not declared, no annotation has an outline, or a run-length mask does not fit.
    """
    coco = _parsed(*_json.stamp(path))
    entry, name_notes = coco.images.of(image_path.absolute())
    annotations = coco.annotations(entry)
    ignored = [_ignored(coco, annotation, data) for annotation in annotations]
    shapes = _shapes(coco, annotations, ignored, data.label_table)
    notes = name_notes + _crowd_notes(annotations, ignored, data)
    stated = size_of(path.name, entry.get("height"), entry.get("width"))
    yield draw(path, image_path, image, data, shapes, notes, stated, "annotation", coco.reach)
