"""COCO: annotations/instances_<split>.json with images in <split>/ or images/<split>/; the mask is the JSON.

Exports of Roboflow work too: <split>/_annotations.coco.json with the images in the same folder. Items are the images
that the JSON lists. Years are removed from names of splits: train2017 is train, val2017 is validation.
"""

import json
import re
from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import Builder
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.io.layouts.pairs import no_images
from segcore.params.data import Data

FILES = ("annotations/instances_{split}.json", "{split}/_annotations.coco.json")


def find(data: Data, folder: Path) -> list[Item]:
    """Items of all annotation files; images that no file lists are not items.

    Raises:
        DataError: no annotation file or no image in it (kind "no-images"); a file cannot be read (kind "no-list").
    """
    source = Folder(folder, data.links_to)
    items = []
    for pattern in FILES:
        for match in source.find(patterns.images_pattern(pattern)):
            if not match.is_folder:
                items += _items(data, source, match)
    if not items:
        raise no_images(FILES[0], folder, source)
    return with_unique_ids(items)


def _items(data: Data, source: Folder, annotations: patterns.Match) -> list[Item]:
    split = annotations.words["split"]
    items = []
    for name in sorted(_names(source, annotations.path)):
        path = _image_path(source, annotations.path, split, name)
        match = patterns.Match(path, {"split": split})
        build = Builder(data, source, match)
        build.check_image_exists(annotations.path.name)
        mask = build.file(annotations.path, "annotation file")
        text = split if split in data.splits else re.sub(r"[-_]?(19|20)\d\d$", "", split)
        id_text = patterns.safe_id(str(path.with_name(patterns.stem_of(path.name))))
        group, part = build.group(data.group), build.split(text, common_names=True)
        items.append(build.item(id_text, group, mask, part, objects=build.objects()))
    return items


def _image_path(source: Folder, annotations: PurePosixPath, split: str, name: str) -> PurePosixPath:
    """Path of an image; the expected path if it does not exist."""
    is_roboflow = annotations.name.startswith("_")
    folders = (
        [annotations.parent]
        if is_roboflow
        else [PurePosixPath(f) for f in (split, f"images/{split}", "images", ".")]
    )
    paths = [source.actual(folder / name) for folder in folders]
    return next((path for path in paths if source.is_inside(path) and source.exists(path)), paths[0])


def _names(source: Folder, path: PurePosixPath) -> set[str]:
    """File names of the images that an annotation file lists."""
    problem = source.problem(path, "annotation file", check_extension=False)
    if problem:
        raise DataError(problem.what, problem.remedy, kind="no-list")
    if not (source.path / path).is_file():
        raise DataError(
            f"{printable(path)}: is a FIFO or device, not a file",
            "provide the annotations as a file",
            kind="no-list",
        )
    try:
        content = json.loads((source.path / path).read_bytes())
        return {str(image["file_name"]) for image in content["images"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{printable(path)}: is not a COCO file with images and their file_name ({reason[:200]})",
            "export the annotations as COCO instances again",
            kind="no-list",
        ) from error
