"""Pascal VOC: JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val,test}.txt.

The lists define the items and their split: val becomes validation unless data.splits maps it to another split.
Without a list of test images the test split is empty; to score on VOC's val, set data.splits to
{train: train, val: test}, or use patterns (layout pairs), so that the items are split by fractions.
Images of the test list without a mask are left out, because VOC does not publish them. Object numbers are read with
data.objects, such as "SegmentationObject/{stem}.png".
"""

from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import Builder
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.io.layouts.pairs import no_images
from segcore.params.data import Data

LISTS = ("train", "val", "test")
_DEPTHS = ("JPEGImages", "*/JPEGImages", "*/*/JPEGImages")


def find(data: Data, folder: Path) -> list[Item]:
    """Items of all VOC folders within the source, up to two folders deep (VOCdevkit/VOC2012).

    Raises:
        DataError: no JPEGImages, or no image in it (kind "no-images"); a list cannot be read (kind "no-list").
    """
    source = Folder(folder, data.links_to)
    roots = [m.path.parent for p in _DEPTHS for m in source.find(patterns.images_pattern(p)) if m.is_folder]
    items = [item for root in roots for item in _items(data, source, root, several=len(roots) > 1)]
    if not items:
        raise no_images("JPEGImages/*", folder, source)
    return with_unique_ids(items)


def _items(data: Data, source: Folder, root: PurePosixPath, several: bool) -> list[Item]:
    images = patterns.images_pattern(str(root / "JPEGImages" / "*"))
    by_stem = {patterns.stem_of(m.path.name): m for m in source.find(images)}
    lists = _lists(source, root)
    names = {name for stems in lists.values() for name in stems} if lists else set(by_stem)
    items = []
    for name in sorted(names):
        match = by_stem.get(name, patterns.Match(root / "JPEGImages" / f"{name}.jpg"))
        build = Builder(data, source, match)
        in_lists = [list_name for list_name, stems in lists.items() if name in stems]
        build.check_image_exists(f"{in_lists[0]}.txt" if in_lists else "no list")
        path = root / "SegmentationClass" / f"{name}.png"
        if in_lists == ["test"] and not source.exists(path):
            continue
        if len(in_lists) > 1:
            build.note_problem(
                DataError(
                    f"{match.path.name}: is in {' and '.join(f'{o}.txt' for o in in_lists)}",
                    "keep it in one list only",
                    kind="unknown-split",
                )
            )
        mask = build.file(path, "mask")
        split = build.split(in_lists[0], common_names=True) if in_lists else None
        id_text = patterns.safe_id(f"{root}/{name}" if several else name)
        objects = build.objects()
        items.append(build.item(id_text, build.group(data.group), mask, split, objects=objects))
    return items


def _lists(source: Folder, root: PurePosixPath) -> dict[str, set[str]]:
    """Names in each list that exists.

    Raises:
        DataError: a list cannot be read (kind "no-list").
    """
    lists = {}
    for name in LISTS:
        path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
        if not source.exists(path):
            continue
        if not source.is_inside(path):
            raise DataError(
                f"{path.name}: {path} is outside the source folder", "copy it into the folder", kind="no-list"
            )
        if not (source.path / path).is_file():
            raise DataError(
                f"{path.name}: is a folder, FIFO or device, not a file",
                "provide it as UTF-8 text",
                kind="no-list",
            )
        try:
            lines = (source.path / path).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as error:
            raise DataError(
                f"{path.name}: the list cannot be read ({error})", "save it as UTF-8 text", kind="no-list"
            ) from error
        lists[name] = {line.split()[0] for line in lines if line.strip()}
    return lists
