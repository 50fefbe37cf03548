"""Pairs by name: data.images matches the images, and the other patterns give the mask of each image.

For data sets with one folder per patient or area, use the folder as group: images "*/images/*.png", masks
"{parent2}/masks/{stem}.png", group "{parent2}".
"""

from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io.images._conversions import conversion
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import Builder
from segcore.io.layouts._files import Folder, is_archive, printable, with_unique_ids
from segcore.io.layouts._item import Item
from segcore.params.data import Data


def find(data: Data, folder: Path) -> list[Item]:
    """Items of the patterns in the data section of params.yaml.

    Folders that match data.images are DICOM series. A file that is the mask of another image is not an image, so images
    and masks may be in one folder. A mask pattern with a wildcard left must match exactly one file.

    Raises:
        DataError: no image matches, or a pattern has a placeholder that does not exist.
    """
    images = patterns.images_pattern(data.images)
    others = {"data.masks": data.masks, "data.group": data.group}
    if data.valid:
        others["data.valid"] = data.valid
    others |= {f"data.baselines.{name}": pattern for name, pattern in data.baselines.items()}
    for setting, pattern in others.items():
        patterns.check_placeholders(setting, pattern, images)
    source = Folder(folder, data.links_to)
    matches = [m for m in source.find(images) if not m.is_folder or _is_series(source, m)]
    matches += [patterns.Match(PurePosixPath(link), is_folder=True) for link in sorted(source.links_out)]
    if not matches:
        raise no_images(data.images, folder)
    items = _built(data, source, matches)
    used = {path for item in items for path in (item.mask, item.valid, *item.baselines.values()) if path}
    items = [item for item in items if item.image not in used]
    if not items:
        raise DataError(
            f"data.images {data.images!r}: every image is also a mask by data.masks {data.masks!r}",
            "use different folders, names or file extensions for images and masks in params.yaml",
            kind="bad-pattern",
        )
    return with_unique_ids(items)


def _built(data: Data, source: Folder, matches: list[patterns.Match]) -> list[Item]:
    """Items of the images; an image in too few folders for a pattern is a problem of its own if others are sound.

    Raises:
        DataError: a pattern cannot be used for any image (kind "bad-pattern").
    """
    items, errors = [], []
    for match in matches:
        try:
            items.append(_Pairing(data, source, match).build_item())
        except DataError as error:
            errors.append(error)
            build = _Pairing(data, source, match)
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


class _Pairing(Builder):
    """Builds the Item of one image by patterns."""

    def build_item(self) -> Item:
        """The image with its files, group and split.

        Raises:
            DataError: a pattern cannot be used for any image (kind "bad-pattern").
        """
        data, words = self.data, self.match.words
        if self.problem and self.problem.kind in ("outside", "bad-name"):
            return self.item(patterns.safe_id(str(self.image)), printable(self.image), None)
        mask = self._related_file("data.masks", data.masks, "mask")
        valid = self._related_file("data.valid", data.valid, "valid mask") if data.valid else None
        baselines = {
            name: self._related_file(f"data.baselines.{name}", pattern, f"baseline {name}")
            for name, pattern in data.baselines.items()
        }
        split = self.split(words["split"]) if "split" in words else None
        group = self.group(data.group)
        return self.item(patterns.item_id(self.match, data.images), group, mask, split, valid, baselines)

    def _related_file(self, setting: str, pattern: str, what: str) -> Path | None:
        try:
            components = patterns.fill(setting, pattern, self.match, self.cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self.note_problem(error)
            return None
        path = PurePosixPath("/" if pattern.startswith("/") else "", patterns.text_of(components))
        if patterns.has_wildcards(components) and self.source.is_inside(path):
            return self._only_match(components, str(path), what)
        return self.file(path, what)

    def _only_match(self, components: list[list[patterns.Token]], path: str, what: str) -> Path | None:
        matching = [m.path for m in self.source.find(patterns.Pattern(components))]
        if not matching:
            self.note_problem(self.source.missing(self.match.path, what, path))
            return None
        if len(matching) == 1:
            return self.file(matching[0], what)
        listed = ", ".join(printable(p) for p in matching[:3])
        self.note_problem(
            DataError(
                f"{printable(self.match.path.name)}: {len(matching)} files match {path!r} as its {what}: {listed}",
                "use {stem} or another word of data.images in the pattern in params.yaml",
                kind="missing-mask",
            )
        )
        return None


def mask_files(data: Data, folder: Path) -> list[Path]:
    """Files that data.masks could match, relative to the folder, except images.

    Empty where the pattern is one file for all images.
    """
    components = patterns.tokens_of(data.masks)
    if all(kind == "text" for tokens in components for kind, _ in tokens):
        return []
    images = patterns.images_pattern(data.images)
    matches = Folder(folder, data.links_to).find(patterns.Pattern(components))
    return [Path(m.path) for m in matches if not m.is_folder and not _is_image(data, images, m.path)]


def _is_image(data: Data, images: patterns.Pattern, path: PurePosixPath) -> bool:
    """Whether a file matches data.images; a file that would be its own mask is a mask, not an image."""
    match = images.match(str(path))
    if match is None or "{cell:" in data.masks:
        return match is not None
    return patterns.text_of(patterns.fill("data.masks", data.masks, match, str)) != str(path)
