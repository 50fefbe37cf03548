"""Puts one Item together; the first problem found with it is kept in it."""

from decimal import Decimal
from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.io import images
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._files import Folder, shown
from segcore.io.layouts._item import Item
from segcore.params.data import Data

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


class Builder:
    """One image and what belongs to it.

    Args:
        match: the image's path, and the words that patterns may use.
    """

    def __init__(self, data: Data, source: Folder, match: patterns.Match) -> None:
        self.data = data
        self.source = source
        self.match = match
        self.problem = source.problem(match.path)
        # An escaped name stands for one that cannot be printed or stored.
        bad = self.problem is not None and self.problem.kind == "bad-name"
        self.image = Path(shown(match.path)) if bad else Path(match.path)

    def keep(self, problem: DataError | None) -> None:
        """Note a problem unless there is one already."""
        self.problem = self.problem or problem

    def checked_image(self, list_name: str) -> None:
        """Note it if the image that a list names is not there."""
        if self.problem is None and not self.source.exists(self.match.path):
            self.keep(
                self.source.denied(self.match.path)
                or DataError(
                    f"{self.match.path.name}: is named by {list_name}, but {self.match.path} is missing",
                    "add the file, or take it off the list",
                    kind="unreadable",
                )
            )

    def file(self, path: PurePosixPath, what: str) -> Path | None:
        """A mask or another file of the image, if it is there and within the source folder."""
        problem = self.source.problem(path, what, known=False)
        leads_away = problem is not None and problem.kind in ("outside", "unreadable")
        if not leads_away and not self.source.exists(path):
            self.keep(self.source.missing(self.match.path, what, str(path)))
            return None
        self.keep(problem)
        return None if problem else Path(path)

    def group(self, pattern: str) -> str:
        """The group's name by data.group."""
        try:
            components = patterns.fill("data.group", pattern, self.match, self.cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self.keep(error)
            return shown(self.match.path.name)
        if patterns.has_wildcards(components):
            raise DataError(
                f"data.group {pattern!r}: has more wildcards than data.images",
                "use {stem}, {parent} or a word of data.images in params.yaml",
                kind="bad-pattern",
            )
        return shown(patterns.text_of(components))

    def cell(self, size: Decimal) -> str:
        """Name of the square of the CRS that the image's centre lies in; the image's header is read."""
        name = shown(self.match.path.name)
        if self.problem:
            raise self.problem
        info = images.info(self.source.path / self.match.path)
        if info.transform is None:
            raise DataError(
                f"{name}: has no transform, so it lies in no {{cell:{size}}}",
                "give georeferenced images, or set data.group in params.yaml to {stem} or {parent}",
                kind="unusable",
            )
        return patterns.cell_name(info.transform, info.height, info.width, size)

    def split(self, text: str, usual: bool = False) -> str | None:
        """The split that data.splits translates a text to.

        Args:
            usual: where data.splits does not know it, take the usual names (train, val, test) as they are.
        """
        splits = self.data.splits
        if text in splits:
            return splits[text]
        if usual and text.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[text.lower()]
        if splits:
            known = f", which knows {', '.join(sorted(splits))}"
            self.keep(
                DataError(
                    f"{shown(self.match.path.name)}: its split {text!r} is not in data.splits",
                    f"add it to data.splits in params.yaml{known}",
                    kind="unknown-split",
                )
            )
        return None

    def item(
        self,
        id_text: str,
        group: str,
        mask: Path | None,
        split: str | None = None,
        valid: Path | None = None,
        baselines: dict[str, Path | None] | None = None,
    ) -> Item:
        """The finished item."""
        return Item(
            id=id_text,
            group=group,
            image=self.image,
            mask=mask,
            split=split,
            valid=valid,
            baselines={name: path for name, path in (baselines or {}).items() if path},
            problem=self.problem,
        )


def is_set(data: Data, field: str) -> bool:
    """Whether a setting differs from its default, so that it overrides a layout's own."""
    return bool(getattr(data, field) != Data.model_fields[field].default)
