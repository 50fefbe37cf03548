"""Annotations of objects: files that serve many images, the format of a file, and its classes."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from segcore.errors import DataError
from segcore.io.annotations import _json, polygons
from segcore.io.annotations.cvat import EXTENSIONS as CVAT
from segcore.planning.guess.class_values import Classes
from segcore.planning.guess.families import OBJECTS, PICTURE, Family
from segcore.planning.guess.names import Names
from segcore.planning.guess.values import spread

# files of annotations that are read, and that are tried as annotations of many images
_READ, _TRIED = 256, 24
# properties of polygons that may be their class, and of OpenStreetMap what they are
_PROPERTY = re.compile(
    r"class|classname|class_?name|klasse?|label|category|type|land_?cover|land_?use|lc|code|species", re.I
)
_THINGS = ("building", "highway", "waterway")
_MOST_CLASSES = 50


class Shared(NamedTuple):
    """An annotation file of many images: its path, its images, and how many of them it names or may cover."""

    path: str
    images: Family
    covered: int


def format_of(path: Path) -> str | None:
    """`coco`, `labelme`, `cityscapes`, `cvat`, `dicomseg`, `yolo` or `polygons`; None if a file has no annotations."""
    lower = path.name.lower()
    if lower.endswith(polygons.EXTENSIONS):
        return "polygons"
    if lower.endswith(CVAT):
        with path.open("rb") as file:
            return "cvat" if re.search(rb"<annotations[\s>]", file.read(2**12)) else None
    if lower.endswith(".dcm"):
        return "dicomseg"
    if lower.endswith(".txt"):
        with path.open("rb") as file:
            head = file.read(2**12).decode("ascii", "replace").splitlines()
        numbers = r"\d+(\s+-?\d+(\.\d+)?([eE][-+]?\d+)?){6,}\s*"
        return "yolo" if head and re.fullmatch(numbers, head[0]) else None
    if lower.endswith(".json"):
        with suppress(DataError):
            for name, lists in (
                ("coco", ("images", "annotations")),
                ("labelme", ("shapes",)),
                ("cityscapes", ("objects",)),
            ):
                if all(_json.has_list(path, one) for one in lists):
                    return name
    return None


def shared(folder: Path, families: Sequence[Family]) -> Shared | None:
    """The annotation file that has most images of a family; of polygons, the images nearest by folder."""
    files = {m.path: m for f in families if f.kind == OBJECTS for m in f.members}
    pictures = [f for f in families if f.kind == PICTURE]
    best = None
    for path in sorted(files)[:_TRIED] if len(files) <= 4 * _TRIED else []:
        kind = format_of(folder / path)
        if kind in ("coco", "cvat"):
            named = _images(folder / path, kind)
            found = [(sum(_is_named(m.path, named) for m in f.members), f) for f in pictures]
        elif kind == "polygons":
            near = {f.folder: _near(f.members[0].path, path) for f in pictures}
            top = max(near.values(), default=0)
            found = [
                (len(f.members), f)
                for f in pictures
                if near[f.folder] == top and len({m.texts for m in f.members}) == 1
            ]
        else:
            continue
        for count, family in found:
            # of families with the same images, the one with fewer words
            if count and (best is None or count > best.covered):
                best = Shared(path, family, count)
    return best


def _near(one: str, other: str) -> int:
    """Number of folders that two paths share."""
    pairs = zip(one.split("/"), other.split("/"), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), 0)


def _images(path: Path, kind: str) -> set[str]:
    """File names that an annotation file lists."""
    if kind == "coco":
        content = _json.content(path)
        # boxes alone have no outlines
        has_outlines = any(annotation.get("segmentation") for annotation in content["annotations"])
        return {str(image.get("file_name")) for image in content["images"]} if has_outlines else set()
    text = path.read_text(encoding="utf-8", errors="replace")
    return set(re.findall(r'<image\b[^>]*?\bname="([^"]*)"', text))


def _is_named(path: str, named: set[str]) -> bool:
    return path in named or path.rpartition("/")[2] in named


def classes_of(folder: Path, paths: Sequence[str], names: Names) -> Classes:
    """Classes of annotation files, from those that are spread over a list.

    Raises:
        DataError: none has a class.
    """
    counts: Counter[Any] = Counter()
    kinds: Counter[str] = Counter()
    keys: dict[str, Any] = {}
    for path in spread(paths, _READ):
        kind = format_of(folder / path)
        if kind:
            kinds[kind] += 1
        if kind == "polygons":
            found, more = _of_polygons(folder / path)
            keys |= more
            counts.update(found)
        elif kind:
            counts.update(_labels(folder / path, kind))
    if not counts:
        raise DataError(
            f"{paths[0]}: no annotation file has an object with a label",
            "export the annotations again as COCO, labelme, CVAT for images 1.1, YOLO segmentation or GeoJSON",
        )
    kind = kinds.most_common(1)[0][0]
    return _finished(counts, kind, keys, names)


def _finished(counts: Counter[Any], kind: str, keys: dict[str, Any], names: Names) -> Classes:
    known = names.of_values(counts) if kind == "yolo" else {}
    labels = sorted(counts, key=lambda label: (isinstance(label, str), label))
    titles = {
        label: known.get(label) or (label if isinstance(label, str) else f"class_{label}") for label in labels
    }
    one = kind == "polygons" and "label_property" not in keys
    reasons = {"classes": f"labels of the annotations ({kind})"}
    if one:
        reasons["classes"] = "no property of the polygons is a class"
    values = {1: labels[0]} if one else titles
    taken = "background" in titles.values()
    keys = {
        "classes": [*([] if taken else ["background"]), *dict.fromkeys(titles.values())],
        "label_values": {0: "background", **values} if one else values,
        **keys,
    }
    if kind in ("coco", "yolo") or one:
        keys["instances"] = True
        reasons["instances"] = (
            "each annotation is taken for an object; remove it if areas matter and not their number"
        )
    return Classes(keys, reasons, {titles[label]: counts[label] for label in labels})


def _labels(path: Path, kind: str) -> Iterable[Any]:
    """Label of each object of a file."""
    if kind == "coco":
        content = _json.content(path)
        names = {str(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        return [names.get(str(a.get("category_id")), "object") for a in content["annotations"]]
    if kind == "labelme":
        return [str(shape.get("label")) for shape in _json.content(path)["shapes"]]
    if kind == "cityscapes":
        return [str(thing.get("label")) for thing in _json.content(path)["objects"]]
    if kind == "dicomseg":
        return _segments(path)
    text = path.read_text(encoding="utf-8", errors="replace")
    if kind == "cvat":
        return re.findall(r'<(?:polygon|box|ellipse|mask)\b[^>]*?\blabel="([^"]*)"', text)
    return [
        int(line.split()[0]) for line in text.splitlines() if line.split()[:1] and line.split()[0].isdecimal()
    ]


def _segments(path: Path) -> list[str]:
    """Labels of the segments of a DICOM segmentation; empty for other files."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"])
    except (OSError, pydicom.errors.InvalidDicomError):
        return []
    return [str(segment.get("SegmentLabel", "object")) for segment in header.get("SegmentSequence", [])]


def _of_polygons(path: Path) -> tuple[Counter[str], dict[str, Any]]:
    """Polygons by class, and the key label_property if a property is one."""
    import pyogrio.raw

    with suppress(Exception):
        meta, _, _, values = pyogrio.raw.read(path, read_geometry=False)
        columns = dict(zip((str(f) for f in meta["fields"]), values, strict=True))
        for name, column in columns.items():
            texts = [v for v in column.tolist() if v is not None and v == v]
            found = Counter(int(v) if isinstance(v, float) and v.is_integer() else v for v in texts)
            if (
                _PROPERTY.fullmatch(name)
                and 2 <= len(found) <= _MOST_CLASSES
                and len(texts) >= 0.95 * len(column)
            ):
                return Counter({str(v): n for v, n in found.items()}), {"label_property": name}
        thing = next((name for name in _THINGS if name in columns), "object")
        return Counter({thing: len(values[0]) if len(values) else 1}), {}
    return Counter(), {}
