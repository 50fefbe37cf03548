"""What the ingest remembers of items it has read, so that only new ones are read."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segcore.files import atomic_write, sha256
from segcore.params.data import Data

_READING = (  # settings that decide what a file's pixels and labels are
    *("classes", "background", "label_values", "label_property", "instances", "bands", "grey_to_rgb"),
    *("nodata", "slices", "baselines", "valid"),
)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def settings_fingerprint(data: Data) -> str:
    """Hash of the settings that decide how files are read."""
    names = {*_READING, "scale", "percentiles"} if data.scale == "item" else set(_READING)
    return _digest(json.dumps(data.model_dump(mode="json", include=names), sort_keys=True))


def _code_fingerprint() -> str:
    here = Path(__file__).parents[1]
    names = (
        "data/class_counts.py",
        "data/packed.py",
        "data/raster.py",
        "ingest/inspection.py",
        "ingest/item_statistics.py",
        "ingest/links/perceptual_hash.py",
        "ingest/source_files.py",
        "io/bands.py",
    )
    files = [here / n for n in names] + sorted((here / "io/images").glob("*.py"))
    return _digest(*(sha256(f) for f in [*files, *sorted((here / "io/annotations").glob("*.py"))]))


class Memory:
    """Rows of former ingests by id, valid as long as files, settings and reading code are the same.

    A row is added as soon as its item is on the disk, so that an ingest that is killed has not read in vain.

    Args:
        folder: of rows.json, what the last whole ingest knew, and rows.jsonl, what one that was cut short added.
    """

    def __init__(self, folder: Path, data: Data) -> None:
        self.path, self.added = folder / "rows.json", folder / "rows.jsonl"
        self.fingerprint = _digest(settings_fingerprint(data), _code_fingerprint())
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            kept = json.loads(self.path.read_text())
            if kept.get("fingerprint") == self.fingerprint:
                self.rows = kept["rows"]
        if self.added.exists():
            for line in self.added.read_text().splitlines():
                try:
                    kept = json.loads(line)
                except ValueError:  # the line that was being written when the process was killed
                    continue
                if kept["fingerprint"] == self.fingerprint:
                    self.rows[kept["id"]] = {"stamp": kept["stamp"], "row": kept["row"]}

    def recall(self, item: str, stamp: str, packed: Collection[str] | None) -> dict[str, Any] | None:
        """The row of an item that has not changed, whose packed file is among those that are there."""
        kept = self.rows.get(item)
        if kept is None or kept["stamp"] != stamp or kept["row"]["packed"] not in (packed or ()):
            return None
        row: dict[str, Any] = kept["row"]
        return row

    def add(self, item: str, stamp: str, row: dict[str, Any]) -> None:
        """Keep a row beside those that are known; its packed file must be on the disk."""
        line = {"fingerprint": self.fingerprint, "id": item, "stamp": stamp, "row": row}
        with self.added.open("a") as stream:  # begins on a line of its own, whatever was cut short before
            stream.write("\n" + json.dumps(line) + "\n")

    def save(self, rows: dict[str, dict[str, Any]]) -> None:
        """Keep these rows, and no others."""
        with atomic_write(self.path) as part:
            part.write_text(json.dumps({"fingerprint": self.fingerprint, "rows": rows}))
        self.added.unlink(missing_ok=True)
