"""Cases of bad input, many of which share one data set and one ingest."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.ingest import catalog
from segcore.ingest.links import footprints
from segcore.io.layouts._names import printable
from segcore.params.data import Data
from tests.support.tiny import values_for


@dataclass
class Pair:
    """Files of one item, valid until a case damages them; a case that renames a file updates its path here."""

    image: Path
    mask: Path
    seed: int

    def named(self, of: str) -> str | tuple[str, ...]:
        """Names that an error may begin with.

        Args:
            of: see `Case.of`; also "outsider", for a mask outside the source folder.
        """
        if of == "slice":
            return tuple(path.name for path in self.image.iterdir())
        if of == "outsider":
            return "hostname"
        return self.mask.name if of == "mask" else self.image.name

    @property
    def source(self) -> Path:
        """Source folder, which paths in the catalogue are relative to."""
        return self.image.parents[1]

    def replace_image(self, name: str) -> Path:
        """Remove the image; path for its replacement, with another name."""
        self.image.unlink()
        self.image = self.image.with_name(name)
        return self.image

    def replace_mask(self, name: str) -> Path:
        """Remove the mask; path for its replacement, with another name."""
        self.mask.unlink()
        self.mask = self.mask.with_name(name)
        return self.mask


class Case(NamedTuple):
    """One kind of damage.

    Attributes:
        name: of the case, and of its files.
        kind: expected kind; "" for valid input that looks odd.
        text: expected part of the reason, note or link.
        of: the reason begins with the name of this file: "image", "mask" or "slice" (of a series).
        damage: damages the files.
    """

    name: str
    kind: str
    text: str
    of: str
    damage: Callable[[Pair], None]


class Ingested(NamedTuple):
    """The catalogue of a data set, its links, and the files of each case."""

    table: pd.DataFrame
    links: pd.DataFrame
    pairs: dict[str, Pair]
    folder: Path
    packed: Path

    def row(self, name: str) -> pd.Series:
        """The catalogue's row of a case."""
        pair = self.pairs[name]
        image = printable(os.path.relpath(pair.image, self.folder))
        rows = self.table[self.table["image"] == image]
        assert len(rows) >= 1, f"{image} is not in the catalogue: {list(self.table['image'])}"
        return rows.iloc[0]


@dataclass
class DataSet:
    """Valid items and damaged ones, one item per case.

    Attributes:
        name: of the data set, and of its folder.
        make: writes a valid item: (folder, name, seed).
        data: see `data_section`.
        sound: number of valid items.
        finish: writes files that all items share, after all items: (folder, pairs by name).
        cases: registered by `case`.
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

    def build(self, root: Path) -> Ingested:
        """Write the data set and ingest it."""
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
        return Ingested(table, links, pairs, folder, work / "items")


def data_section(folder: Path, over: dict[str, Any]) -> Data:
    """The data section of params.yaml, with keys replaced by `over`."""
    values = values_for(folder)["data"]
    if isinstance(over.get("masks"), dict):
        # A mapping of masks needs none.
        del values["label_values"]
    return Data.model_validate({**values, **over})


@functools.cache
def built(data_set: str, root: Path) -> Ingested:
    """A data set, written and ingested once."""
    from tests.system.bad_inputs.cases import SETS

    return SETS[data_set].build(root)


def cut(path: Path, fraction: float = 0.5) -> None:
    """Truncate a file to a fraction of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])


def scramble(path: Path, start: float = 0.4, count: int = 40) -> None:
    """Overwrite bytes of a file, from a fraction of its length on."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * start)
    content[at : at + count] = bytes((7 * i + 3) % 256 for i in range(len(content[at : at + count])))
    path.write_bytes(bytes(content))
