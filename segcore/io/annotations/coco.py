"""COCO instance annotations (JSON): polygons and run-length masks of many images.

https://cocodataset.org/#format-data. Polygons are drawn as pycocotools draws them. Objects are numbered from 1 in file
order; where they overlap, the later one is on top. Crowd regions (`iscrowd`) are below all objects and become IGNORE.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segcore.constants import IGNORE
from segcore.data.raster import Info, Window
from segcore.errors import DataError
from segcore.io.annotations import Labels
from segcore.io.annotations._runs import runs_of
from segcore.io.annotations._shared import background_index, class_of, from_numbers, ids, unknown_category
from segcore.io.images._checks import check_file
from segcore.params.data import Data

EXTENSIONS = (".json",)

# All objects of an image are drawn at once, in memory.
_MOST_PIXELS = 2**28
_EXPORT = "export the annotations again as COCO instances"


class _Coco:
    """Annotations of a file, indexed by image."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self.name = name
        self._images: dict[str, list[tuple[PurePosixPath, dict[str, Any]]]] = {}
        paths = []
        for image in content["images"]:
            path = PurePosixPath(str(image["file_name"]).replace("\\", "/"))
            paths.append(path.parent)
            self._images.setdefault(path.name, []).append((path, {**image, "id": str(image["id"])}))
        # Paths of exports often begin with folders of the exporting machine, the same for all images.
        self._prefix = len(_common(paths)) if paths else 0
        self.categories = {str(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        self._annotations: dict[str, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            self._annotations.setdefault(str(annotation["image_id"]), []).append(annotation)

    def image(self, path: Path) -> dict[str, Any]:
        """Entry of an image.

        The folders in file_name must match those of the image, except for leading folders common to all entries.

        Raises:
            DataError: no entry, or several ones.
        """
        named = self._images.get(path.name, [])
        entries = [i for p, i in named if _ends_with(path, p.parts)]
        entries = entries or [i for p, i in named if _ends_with(path, p.parts[self._prefix :])]
        if len(entries) == 1:
            return entries[0]
        if entries:
            what = f"lists {path.name} {len(entries)} times (ids {ids(i['id'] for i in entries)})"
            remedy = "keep one entry, or include the folders in file_name"
        elif named:
            what = f"lists {path.name} only in other folders ({ids(p for p, _ in named)})"
            remedy = "correct file_name in the annotations, or move the image"
        else:
            what = f"does not list the image {path.name}; it lists {ids(self._images, most=3) or 'none'}"
            remedy = "add it to `images` of the annotations (without objects it is all background), or remove the image"
        raise DataError(f"{self.name}: {what}", remedy, kind="not-annotated")

    def annotations(self, image: dict[str, Any]) -> list[dict[str, Any]]:
        """Annotations of an image, in file order."""
        return self._annotations.get(image["id"], [])


def _common(folders: list[PurePosixPath]) -> tuple[str, ...]:
    """Leading folders common to all."""
    first, last = min(f.parts for f in folders), max(f.parts for f in folders)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: same.index(False) if False in same else len(same)]


def _ends_with(path: Path, parts: tuple[str, ...]) -> bool:
    parts = tuple(p for p in parts if p not in (".", "..", "/"))
    return path.parts[-len(parts) :] == parts


def _unreadable(name: str, what: str, remedy: str = _EXPORT) -> DataError:
    return DataError(f"{name}: {what}", remedy, kind="polygons-unreadable")


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, changed: int) -> _Coco:
    """Content of a file; cached, because many images share it and parsing is slow.

    Raises:
        DataError: the file is not JSON, or not COCO annotations.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _unreadable(path.name, f"is not JSON ({str(error)[:200] or 'nested too deeply'})") from error
    lists = isinstance(content, dict) and all(
        isinstance(content.get(k, d), list)
        for k, d in (("images", None), ("annotations", None), ("categories", []))
    )
    if not lists:
        kind = content.get("type") if isinstance(content, dict) else None
        other_formats = {
            "FeatureCollection": ("is GeoJSON, not COCO annotations", "rename it to end in .geojson"),
            "Feature": (
                "is a GeoJSON or STAC item, not COCO annotations",
                "set data.masks to the annotation file",
            ),
        }
        what, remedy = other_formats.get(
            str(kind), ("is not COCO annotations: it lacks the lists `images` and `annotations`", _EXPORT)
        )
        raise _unreadable(path.name, what, remedy)
    try:
        return _Coco(path.name, content)
    except (KeyError, TypeError, AttributeError) as error:
        reason = f"an entry lacks {error}" if isinstance(error, KeyError) else str(error)
        raise _unreadable(path.name, f"is not COCO annotations: {reason}") from error


class _Annotations:
    """Rasterised annotations of one image."""

    def __init__(
        self, numbers: np.ndarray, codes: np.ndarray, background: int, notes: list[tuple[str, str]]
    ) -> None:
        self.notes = notes
        self.found: dict[str, int] = {}
        self._numbers, self._codes, self._background = numbers, codes, background

    def read(self, window: Window, plane: int = 0) -> Labels:
        """Class indices and object numbers of a window."""
        row, column, height, width = window
        numbers = self._numbers[row : row + height, column : column + width]
        return from_numbers(numbers, self._codes, self._background)


def _check_size(name: str, entry: dict[str, Any], image_path: Path, image: Info) -> None:
    declared = (entry.get("height", image.height), entry.get("width", image.width))
    pair = f"{name} and {image_path.name}"
    if declared != (image.height, image.width) or image.depth != 1:
        planes = f" x {image.depth} planes" if image.depth != 1 else ""
        raise DataError(
            f"{pair}: sizes differ, annotations {declared[0]} x {declared[1]}, "
            f"image {image.height} x {image.width}{planes}",
            "annotate the picture at its original size, or resize it to the size of the annotations",
            kind="size-mismatch",
        )
    if image.height * image.width > _MOST_PIXELS:
        raise DataError(
            f"{pair}: {image.height} x {image.width} pixels are too many for COCO annotations",
            "cut the picture into tiles, or provide the polygons as GeoPackage",
            kind="too-large",
        )


def _classes(coco: _Coco, annotations: list[dict[str, Any]], image_path: Path, data: Data) -> list[int]:
    """Class of each annotation, by its category's name or id; IGNORE for crowds.

    Raises:
        DataError: a category that label_values does not declare.
    """
    table = data.label_table
    codes, unknown = [], Counter[str]()
    for annotation in annotations:
        number = annotation.get("category_id")
        name = coco.categories.get(str(number))
        code = table[name] if name in table else class_of(number, table)
        if annotation.get("iscrowd"):
            code = IGNORE
        if code is None:
            unknown[f"{name!r} (id {number})" if name is not None else f"id {number}"] += 1
        codes.append(IGNORE if code is None else code)
    if unknown:
        raise unknown_category(coco.name, f"annotations of {image_path.name} have categories", unknown, data)
    return codes


def _draw(
    coco: _Coco, annotations: list[dict[str, Any]], image: Info, crowds: set[int]
) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Object numbers (H, W) uint32, and notes.

    Raises:
        DataError: no annotation has an outline, or one cannot be drawn.
    """
    height, width = image.height, image.width
    # Column by column, like run-length masks.
    flat = np.zeros(height * width, np.uint32)
    without_outline, outside = [], []
    for index in sorted(range(len(annotations)), key=lambda i: (i not in crowds, i)):
        annotation = annotations[index]
        runs = runs_of(annotation, coco.name, height, width)
        if runs is None:
            without_outline.append(annotation.get("id"))
            continue
        if len(runs[0]) == 0:
            outside.append(annotation.get("id"))
        for start, length in zip(*runs, strict=True):
            flat[start : start + length] = index + 1
    if without_outline and len(without_outline) == len(annotations):
        raise _unreadable(
            coco.name,
            f"annotations have no outlines (`segmentation`; boxes are not enough): ids {ids(without_outline)}",
            "export instance segmentations, or provide the polygons as GeoJSON",
        )
    notes = []
    if without_outline:
        notes.append(
            ("polygons-invalid", f"annotations without an outline were left out: {ids(without_outline)}")
        )
    if outside:
        notes.append(("polygons-outside", f"annotations that cover no pixel: {ids(outside)}"))
    return flat.reshape(width, height).T, notes


@contextmanager
def open_labels(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[_Annotations]:
    """Open and draw the annotations of an image.

    The image is looked up by file_name, with or without folders; an image without annotations is all background. A
    key of data.label_values is the name or the id of a category, or "others".

    Raises:
        DataError: the file is not COCO annotations, does not list the image or lists it with another size, a category
            is not declared, no annotation has an outline, or a run-length mask does not fit.
    """
    check_file(path)
    status = path.stat()
    coco = _parsed(path.absolute(), status.st_size, status.st_mtime_ns)
    entry = coco.image(image_path.absolute())
    _check_size(path.name, entry, image_path, image)
    annotations = coco.annotations(entry)
    codes = _classes(coco, annotations, image_path, data)
    crowds = {i for i, a in enumerate(annotations) if a.get("iscrowd")}
    numbers, notes = _draw(coco, annotations, image, crowds)
    background = background_index(data)
    yield _Annotations(numbers, np.array([background, *codes], np.uint8), background, notes)
