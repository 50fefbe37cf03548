"""Pairs by name: data.images finds the images, and the other patterns say where the mask of each one is."""

from decimal import Decimal
from pathlib import Path, PurePosixPath

from segcore import formats
from segcore.errors import DataError
from segcore.items import Item
from segcore.layouts import _patterns as patterns
from segcore.layouts._files import Folder, is_archive, shown, with_unique_ids
from segcore.params import Data


def find(data: Data, folder: Path) -> list[Item]:
    """Items of `params.Data`'s patterns.

    Folders that match data.images are DICOM series. A file that is another image's mask is no image of its own, so
    images and masks may lie in one folder. A mask's pattern that keeps a wildcard must match exactly one file.

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
    source = Folder(folder)
    matches = [m for m in source.find(images) if not m.is_folder or _is_series(source, m)]
    if not matches:
        raise _no_images(data, folder)
    items = [_Pairing(data, source, match).item() for match in matches]
    used = {path for item in items for path in (item.mask, item.valid, *item.baselines.values()) if path}
    return with_unique_ids([item for item in items if item.image not in used or item.image == item.mask])


def _is_series(source: Folder, match: patterns.Match) -> bool:
    return not source.is_inside(match.path) or source.holds_files(match.path)


def _no_images(data: Data, folder: Path) -> DataError:
    archives = sorted(p.name for p in folder.iterdir() if is_archive(p.name))
    packed = f"; it holds archives: {', '.join(map(shown, archives[:5]))}" if archives else ""
    remedy = "correct data.images in params.yaml or fill the folder"
    return DataError(
        f"{folder}: no image matches {data.images!r}{packed}",
        f"unpack the archives, or {remedy}" if archives else remedy,
        kind="no-images",
    )


class _Pairing:
    """Finds what belongs to one image; the first problem is kept."""

    def __init__(self, data: Data, source: Folder, match: patterns.Match) -> None:
        self._data = data
        self._source = source
        self._match = match
        self._problem = source.problem(match.path)
        # An escaped name stands for one that cannot be printed or stored.
        bad = self._problem is not None and self._problem.kind == "bad-name"
        self._image = Path(shown(match.path)) if bad else Path(match.path)

    def item(self) -> Item:
        """The image with its files, group and split."""
        data, match = self._data, self._match
        mask = self._partner("data.masks", data.masks, "mask")
        valid = self._partner("data.valid", data.valid, "valid mask") if data.valid else None
        baselines = {
            name: self._partner(f"data.baselines.{name}", pattern, f"baseline {name}")
            for name, pattern in data.baselines.items()
        }
        return Item(
            id=patterns.item_id(match, data.images),
            group=self._group(),
            split=self._split(),
            image=self._image,
            mask=mask,
            valid=valid,
            baselines={name: path for name, path in baselines.items() if path},
            problem=self._problem,
        )

    def _keep(self, problem: DataError | None) -> None:
        self._problem = self._problem or problem

    def _partner(self, setting: str, pattern: str, what: str) -> Path | None:
        try:
            components = patterns.fill(setting, pattern, self._match, self._cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self._keep(error)
            return None
        path = PurePosixPath(patterns.text_of(components))
        if pattern.startswith("/"):
            path = PurePosixPath("/") / path
        if not self._source.is_inside(path):
            self._keep(self._source.problem(path, what, known=False))
            return None
        if patterns.has_wildcards(components):
            return self._only_match(components, str(path), what)
        if path == self._match.path:
            raise DataError(
                f"{setting} {pattern!r}: gives the image {shown(path)} itself",
                "give the masks another folder, name or ending than the images",
                kind="bad-pattern",
            )
        if not _exists(self._source.path / path):
            self._keep(self._source.missing(self._match.path, what, str(path)))
            return None
        self._keep(self._source.problem(path, what, known=False))
        return Path(path)

    def _only_match(self, components: list[list[patterns.Token]], path: str, what: str) -> Path | None:
        found = [m.path for m in self._source.find(patterns.Pattern(components))]
        if not found:
            self._keep(self._source.missing(self._match.path, what, path))
            return None
        if len(found) > 1:
            listed = ", ".join(shown(p) for p in found[:3])
            self._keep(
                DataError(
                    f"{shown(self._match.path.name)}: {len(found)} files match {path!r} as its {what}: {listed}",
                    "name the file by {stem} or another word of data.images in params.yaml",
                    kind="missing-mask",
                )
            )
            return None
        self._keep(self._source.problem(found[0], what, known=False))
        return Path(found[0])

    def _group(self) -> str:
        setting, pattern = "data.group", self._data.group
        try:
            components = patterns.fill(setting, pattern, self._match, self._cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self._keep(error)
            return patterns.item_id(self._match, self._data.images)
        if patterns.has_wildcards(components):
            raise DataError(
                f"{setting} {pattern!r}: has more wildcards than data.images",
                "use {stem}, {parent} or a word of data.images in params.yaml",
                kind="bad-pattern",
            )
        return shown(patterns.text_of(components))

    def _split(self) -> str | None:
        if "split" not in self._match.words or not self._data.splits:
            return None
        split, problem = translated(self._match.words["split"], self._data, self._match.path.name)
        self._keep(problem)
        return split

    def _cell(self, size: Decimal) -> str:
        name = shown(self._match.path.name)
        info = formats.info(self._source.path / self._match.path)
        if info.transform is None:
            raise DataError(
                f"{name}: has no transform, so it lies in no {{cell:{size}}}",
                "give georeferenced images, or set data.group in params.yaml to {stem} or {parent}",
                kind="unusable",
            )
        return patterns.cell_name(info.transform, info.height, info.width, size)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def translated(text: str, data: Data, name: str) -> tuple[str | None, DataError | None]:
    """The split that data.splits says a text stands for, or the problem that it says nothing."""
    if text in data.splits:
        return data.splits[text], None
    return None, DataError(
        f"{shown(name)}: its split {text!r} is not in data.splits",
        f"add it to data.splits in params.yaml, which knows {', '.join(sorted(data.splits))}",
        kind="unknown-split",
    )


def mask_files(data: Data, folder: Path) -> list[Path]:
    """Files that data.masks could mean, relative to the folder, but for those that are images.

    None where the pattern is one file for all images.
    """
    components = patterns.tokens_of(data.masks)
    if all(kind == "text" for tokens in components for kind, _ in tokens):
        return []
    images = patterns.images_pattern(data.images)
    found = Folder(folder).find(patterns.Pattern(components))
    return [Path(m.path) for m in found if not m.is_folder and images.match(str(m.path)) is None]
