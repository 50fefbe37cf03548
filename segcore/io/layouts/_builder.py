"""Builds one Item, and stores the first problem found in it."""

import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PurePosixPath

from segcore.data.longitudes import in_degrees
from segcore.data.raster import Note
from segcore.errors import DataError
from segcore.io import images
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
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


# what data.objects names, for messages
NUMBERS = "raster of object numbers"


class Builder:
    """Builds the Item of one image.

    Args:
        data: the data section of params.yaml.
        source: the source folder.
        match: path of the image, and the words that patterns may use.
    """

    def __init__(self, data: Data, source: Folder, match: patterns.Match) -> None:
        self.data = data
        self.source = source
        self.match = match
        self.problem = source.problem(match.path)
        self.notes: list[Note] = []
        # A name that cannot be printed or stored is escaped.
        bad = self.problem is not None and self.problem.kind == "bad-name"
        self.image = Path(printable(match.path)) if bad else Path(match.path)

    def note_problem(self, problem: DataError | None) -> None:
        """Store a problem unless there is one already."""
        self.problem = self.problem or problem

    def check_image_exists(self, list_name: str) -> None:
        """Store a problem if the image that a list names does not exist."""
        if self.problem is None and not self.source.exists(self.match.path):
            self.note_problem(
                self.source.denied(self.match.path)
                or DataError(
                    f"{self.match.path.name}: is named by {list_name}, but {self.match.path} is missing",
                    "add the file, or remove it from the list",
                    kind="unreadable",
                )
            )

    def file(
        self, path: PurePosixPath, what: str, kind: str = "missing-mask", remedy: str = ""
    ) -> Path | None:
        """Path of a mask or another file of the image; None, with a problem stored, if it cannot be used.

        Args:
            path: of the file.
            what: "mask" and so on, for messages.
            kind: of the problem of a missing file; a file of further bands ("missing-channel") has to be an image.
            remedy: what to do about a missing file, if that is known.
        """
        path = self.source.actual(path)
        problem = self.source.problem(path, what, check_extension=kind == "missing-channel")
        is_bad_link = problem is not None and problem.kind in ("outside", "unreadable")
        if not is_bad_link and not self.source.exists(path):
            self.note_problem(self.source.missing(self.match.path, what, str(path), kind, remedy))
            return None
        self.note_problem(problem)
        return None if problem else Path(path)

    def objects(self) -> Path | None:
        """Path of the raster that data.objects gives for the image; None without that setting, or with a problem.

        Raises:
            DataError: the pattern cannot be used for any image (kind "bad-pattern").
        """
        if self.data.objects is None:
            return None
        try:
            components = patterns.fill("data.objects", self.data.objects, self.match, self.cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self.note_problem(error)
            return None
        return self.file(PurePosixPath(patterns.text_of(components)), NUMBERS)

    def group(self, pattern: str) -> str:
        """Name of the group, from a pattern such as data.group.

        Raises:
            DataError: the pattern cannot be used for any image (kind "bad-pattern").
        """
        try:
            components = patterns.fill("data.group", pattern, self.match, self.cell)
        except DataError as error:
            if error.kind == "bad-pattern":
                raise
            self.note_problem(error)
            return printable(self.match.path.name)
        if patterns.has_wildcards(components):
            raise DataError(
                f"data.group {pattern!r}: has more wildcards than data.images",
                "use {stem}, {parent} or a word of data.images in params.yaml",
                kind="bad-pattern",
            )
        return printable(patterns.text_of(components))

    def cell(self, size: Decimal) -> str:
        """Name of the grid cell that contains the image's centre; reads the header of the image.

        Args:
            size: of a cell, in units of the CRS.

        Raises:
            DataError: the image cannot be read or is not georeferenced.
        """
        name = printable(self.match.path.name)
        if self.problem:
            raise self.problem
        with images.open_declared(self.source.path / self.match.path, self.data) as source:
            info = source.info
        if info.transform is None:
            raise DataError(
                f"{name}: has no transform, so {{cell:{size}}} cannot be determined",
                "provide georeferenced images, or set data.group in params.yaml to {stem} or {parent}",
                kind="unusable",
            )
        return patterns.cell_name(info.transform, info.height, info.width, size, in_degrees(info.crs))

    def split(self, text: str, common_names: bool = False) -> str | None:
        """The split that data.splits maps a text to; None for none.

        Args:
            text: such as the name of a folder or list.
            common_names: also accept common names of splits (train, val, test) that are not in data.splits.
        """
        splits = self.data.splits
        if text in splits:
            return splits[text]
        if common_names and text.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[text.lower()]
        if splits:
            self.note_problem(
                DataError(
                    f"{printable(self.match.path.name)}: its split {text!r} is not in data.splits",
                    f"add it to data.splits in params.yaml, which has {', '.join(sorted(splits))}",
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
        words: Mapping[str, str] | None = None,
        channels: Sequence[Path] = (),
        parts: Sequence[tuple[str, Path]] = (),
        objects: Path | None = None,
    ) -> Item:
        """The finished item; its words are those of the image's path unless the layout has others."""
        return Item(
            id=id_text,
            group=group,
            image=self.image,
            mask=mask,
            split=split,
            valid=valid,
            objects=objects,
            baselines={name: path for name, path in (baselines or {}).items() if path},
            words=_descriptive(self.match.words if words is None else words),
            channels=tuple(channels),
            parts=tuple(parts),
            notes=tuple(self.notes),
            problem=self.problem,
        )


def _descriptive(words: Mapping[str, str]) -> dict[str, str]:
    """Words that describe an image: without `stem`, its name, and `split`, which has a meaning of its own."""
    return {
        word: printable(unicodedata.normalize("NFC", text))
        for word, text in words.items()
        if text and word not in ("stem", "split")
    }


def is_set(data: Data, field: str) -> bool:
    """Whether a setting differs from its default, and so overrides the layout's default."""
    return bool(getattr(data, field) != Data.model_fields[field].default)
