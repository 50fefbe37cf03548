"""What a case of bad input is, and how many of them share one data set and one ingest."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.ingest import catalog
from segcore.ingest.links import footprints
from segcore.io.layouts._files import shown
from segcore.params.data import Data
from tests.support.tiny import values_for


@dataclass
class Pair:
    """Files of one item, sound until a case damages them; a case that renames one says so here."""

    image: Path
    mask: Path
    seed: int

    def named(self, of: str) -> str | tuple[str, ...]:
        """Names that an error may begin with."""
        if of == "slice":
            return tuple(path.name for path in self.image.iterdir())
        if of == "outsider":
            return "hostname"
        return self.mask.name if of == "mask" else self.image.name

    @property
    def source(self) -> Path:
        """Folder that paths of the catalogue are relative to."""
        return self.image.parents[1]

    def replace_image(self, name: str) -> Path:
        """Remove the image; the path of another in its place."""
        self.image.unlink()
        self.image = self.image.with_name(name)
        return self.image

    def replace_mask(self, name: str) -> Path:
        """Remove the mask; the path of another in its place."""
        self.mask.unlink()
        self.mask = self.mask.with_name(name)
        return self.mask


class Case(NamedTuple):
    """One kind of damage.

    Attributes:
        kind: that it must be found as; "" for what is sound though it looks odd.
        text: part of the reason, note or link.
        of: whose name the reason begins with, "image", "mask" or "slice" (of a series).
    """

    name: str
    kind: str
    text: str
    of: str
    damage: Callable[[Pair], None]


class Found(NamedTuple):
    """The catalogue of a data set, its links, and the files of each case."""

    table: pd.DataFrame
    links: pd.DataFrame
    pairs: dict[str, Pair]
    folder: Path
    packed: Path

    def row(self, name: str) -> pd.Series:
        """The catalogue's row of a case."""
        pair = self.pairs[name]
        image = shown(os.path.relpath(pair.image, self.folder))
        rows = self.table[self.table["image"] == image]
        assert len(rows) >= 1, f"{image} is not in the catalogue: {list(self.table['image'])}"
        return rows.iloc[0]


@dataclass
class DataSet:
    """Sound items and damaged ones, one item a case.

    Attributes:
        make: writes a sound item: (folder, name, seed).
        data: see `data_section`.
        finish: writes what all items share, when all are there.
    """

    name: str
    make: Callable[[Path, str, int], Pair]
    data: dict[str, Any]
    sound: int = 5
    finish: Callable[[Path, dict[str, Pair]], None] | None = None
    cases: list[Case] = field(default_factory=list)

    def case(self, kind: str, text: str = "", of: str = "image") -> Callable[[Any], Any]:
        """Register a function that damages a pair."""

        def add(damage: Callable[[Pair], None]) -> Callable[[Pair], None]:
            self.cases.append(Case(damage.__name__, kind, text, of, damage))
            return damage

        return add

    def params(self, folder: Path) -> Data:
        """The data section of params.yaml."""
        return data_section(folder, self.data)

    def build(self, root: Path) -> Found:
        """Make and ingest it."""
        folder = root / self.name
        pairs = {f"sound{i}": self.make(folder, f"sound{i}", i) for i in range(self.sound)}
        for number, case in enumerate(self.cases):
            pair = self.make(folder, case.name, 100 + number)
            case.damage(pair)
            pairs[case.name] = pair
        if self.finish:
            self.finish(folder, pairs)
        work = root / f"{self.name}-work"
        table = catalog.build(self.params(folder), folder, work)
        links = footprints.links(table[table["status"] == "accepted"])
        return Found(table, links, pairs, folder, work / "items")


def data_section(folder: Path, over: dict[str, Any]) -> Data:
    """The data section of params.yaml, whose keys `over` replaces."""
    return Data.model_validate({**values_for(folder)["data"], **over})


@functools.cache
def built(data_set: str, root: Path) -> Found:
    """A data set, made and ingested once."""
    from tests.system.bad_inputs.cases import SETS

    return SETS[data_set].build(root)


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first bytes of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def scramble(path: Path, start: float = 0.4, count: int = 40) -> None:
    """Overwrite bytes in a file's middle."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * start)
    content[at : at + count] = bytes((7 * i + 3) % 256 for i in range(len(content[at : at + count])))
    path.write_bytes(bytes(content))
