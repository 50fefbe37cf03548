"""Pairs by name: data.images matches the images, and the other patterns give the mask of each image.

For data sets with one folder per patient or area, use the folder as group: images "*/images/*.png", masks
"{parent2}/masks/{stem}.png", group "{parent2}".
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io import images as images_format
from segcore.io.images._conversions import conversion
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import is_archive, printable
from segcore.io.layouts._pairing import Pairing
from segcore.io.layouts._spelling import better_pattern, other_spellings
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.params.data import Data


def find(data: Data, folder: Path) -> list[Item]:
    """Items of the patterns in the data section of params.yaml.

    Folders that match data.images are DICOM series. A file that is the mask or a further channel of another image is
    not an image, so all may be in one folder. A mask pattern with a wildcard left must match exactly one file, unless
    each file is one object (data.instances).

    Raises:
        DataError: no image matches, or a pattern has a placeholder that does not exist.
    """
    images = patterns.images_pattern(data.image_patterns[0])
    others = [("data.images", pattern) for pattern in data.image_patterns[1:]]
    others += [("data.masks", pattern) for pattern in data.mask_patterns]
    single = {"data.group": data.group, "data.valid": data.valid, "data.objects": data.objects}
    others += [(setting, pattern) for setting, pattern in single.items() if pattern]
    others += [(f"data.baselines.{name}", pattern) for name, pattern in data.baselines.items()]
    for setting, pattern in others:
        patterns.check_placeholders(setting, pattern, images)
    source = Folder(folder, data.links_to)
    matches = [m for m in source.find(images) if not m.is_folder or _is_series(source, m)]
    matches += [patterns.Match(PurePosixPath(link), is_folder=True) for link in sorted(source.links_out)]
    matches = [m for m in matches if not source.is_metadata(m.path)]
    if not matches:
        error = no_images(data.image_patterns[0], folder)
        if spelled := other_spellings(data, source):
            what = f"{error.what}; {printable(spelled[0].path)} differs only in the extension"
            raise DataError(what, f"write {better_pattern(data)!r} in data.images", error.kind)
        raise error
    items = _built(data, source, matches)
    used = {path for item in items for path in item.files[1:]}
    items = [item for item in items if item.image not in used]
    if not items:
        numbers = f" or data.objects {data.objects!r}" if data.objects else ""
        raise DataError(
            f"data.images {data.images!r}: every image is also a mask by data.masks {data.masks!r}{numbers}",
            "use different folders, names or file extensions for images and masks in params.yaml",
            kind="bad-pattern",
        )
    return with_unique_ids(_noting_shared_masks(items))


def find_some(data: Data, folder: Path, paths: Sequence[str]) -> list[Item]:
    """Items of some images, by their paths relative to the folder, which is not searched for others.

    Paths that data.images does not match are left out.

    Raises:
        DataError: a pattern cannot be used for any of them.
    """
    images = patterns.images_pattern(data.image_patterns[0])
    source = Folder(folder, data.links_to)
    matches = [m for path in paths if (m := images.match(path, (folder / path).is_dir()))]
    return with_unique_ids(_built(data, source, matches)) if matches else []


def _noting_shared_masks(items: list[Item]) -> list[Item]:
    """Items, with a note where images share a mask that is no file of many images: they may be channels of one."""
    sharing: dict[Path, list[Item]] = {}
    for item in items:
        if item.mask and images_format.is_image(item.mask.name):
            sharing.setdefault(item.mask, []).append(item)
    out = []
    for item in items:
        others = [o.image.name for o in sharing.get(item.mask or Path(), ()) if o is not item]
        if others:
            text = (
                f"shares its mask {printable(item.mask or '')} with {', '.join(map(printable, others[:3]))}"
            )
            more = f" and {len(others) - 3} more images" if len(others) > 3 else ""
            item = replace(item, notes=(*item.notes, ("shared-mask", text + more)))
        out.append(item)
    return out


def _has_free_stars(data: Data, source: Folder, matches: list[patterns.Match]) -> bool:
    """Whether `*` in data.masks stands for any text: for files of objects, if no image has a mask by its own texts.

    Such a pattern, as "{parent2}/masks/*.png", has a word that ties it to its image.
    """
    wild = [text for text in data.mask_patterns if "*" in text and "{" in text.replace("{cell:", "")]
    return (
        data.masks_have_numbers
        and bool(wild)
        and not any(
            source.exists(PurePosixPath(patterns.text_of(patterns.fill("data.masks", text, match, str))))
            for text in wild
            for match in matches
        )
    )


def _built(data: Data, source: Folder, matches: list[patterns.Match]) -> list[Item]:
    """Items of the images; an image in too few folders for a pattern is a problem of its own if others are sound.

    Raises:
        DataError: a pattern cannot be used for any image (kind "bad-pattern").
    """
    items, errors = [], []
    free = _has_free_stars(data, source, matches)
    for match in matches:
        build = Pairing(data, source, match, free)
        try:
            items.append(build.build_item())
        except DataError as error:
            errors.append(error)
            build = Pairing(data, source, match)
            build.note_problem(DataError(error.what, f"move the image, or {error.remedy}"))
            items.append(build.item(patterns.safe_id(str(build.image)), printable(build.image), None))
    if len(errors) == len(matches):
        raise errors[0]
    return items


def _is_series(source: Folder, match: patterns.Match) -> bool:
    """Whether a folder is an item: a DICOM series, or of a format that is refused by name."""
    is_known = conversion(match.path.name) is not None
    return is_known or not source.is_inside(match.path) or source.holds_files(match.path)


def no_images(pattern: str, folder: Path, source: Folder | None = None) -> DataError:
    """The error for a folder without an image; mentions archives, and links that are not followed."""
    archives = sorted(p.name for p in folder.iterdir() if is_archive(p.name))
    hints = f"; it has archives: {', '.join(map(printable, archives[:5]))}" if archives else ""
    if source and source.links_out:
        hints += f"; {', '.join(sorted(source.links_out))} points outside the folder, and such links are not followed"
    remedy = "correct data.images in params.yaml or fill the folder"
    return DataError(
        f"{folder}: no image matches {pattern!r}{hints}",
        f"unpack the archives, or {remedy}" if archives else remedy,
        kind="no-images",
    )


def mask_files(data: Data, folder: Path) -> list[Path]:
    """Files that data.masks could match, relative to the folder, except images.

    Empty where the pattern is one file for all images.
    """
    images = patterns.images_pattern(data.image_patterns[0])
    source, found = Folder(folder, data.links_to), dict[Path, None]()
    for pattern in data.mask_patterns:
        components = patterns.tokens_of(pattern)
        if all(kind == "text" for tokens in components for kind, _ in tokens):
            continue
        for match in source.find(patterns.Pattern(components)):
            is_file = not match.is_folder and not source.is_metadata(match.path)
            if is_file and not _is_image(pattern, images, match.path):
                found[Path(match.path)] = None
    return list(found)


def _is_image(masks: str, images: patterns.Pattern, path: PurePosixPath) -> bool:
    """Whether a file matches data.images; a file that would be its own mask is a mask, not an image."""
    match = images.match(str(path))
    if match is None or "{cell:" in masks:
        return match is not None
    return patterns.text_of(patterns.fill("data.masks", masks, match, str)) != str(path)
