"""Rows of items that an earlier ingest has read, so that only new ones are read."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segcore.cache import CODE, Cache, code_digest
from segcore.files import atomic_write, digest
from segcore.params.data import Data

_READING = (  # settings that decide what a file's pixels and labels are
    *("classes", "background", "label_values", "label_property", "instances", "bands", "grey_to_rgb"),
    *("nodata", "slices", "baselines", "valid"),
)


def settings_fingerprint(data: Data) -> str:
    """Hash of the settings that decide how files are read."""
    names = {*_READING, "scale", "percentiles"} if data.scale == "item" else set(_READING)
    return digest(json.dumps(data.model_dump(mode="json", include=names), sort_keys=True))


class IngestCache(Cache):
    """Rows of earlier ingests by id, valid as long as files, settings and reading code are the same.

    A row is added as soon as its item is on the disk, so that an ingest that is killed has not read in vain: rows.json
    holds what the last whole ingest read, rows.jsonl what one that was cut short added.

    Args:
        work: folder of the ingest; the rows are kept in `rows` there.
        data: the settings.
    """

    def __init__(self, work: Path, data: Data) -> None:
        super().__init__(work / "rows", settings_fingerprint(data), code_digest(*CODE["ingest"]))
        self.path, self.added = self.folder / "rows.json", self.folder / "rows.jsonl"
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            self.rows = json.loads(self.path.read_text())
        if self.added.exists():
            for line in self.added.read_text().splitlines():
                try:
                    kept = json.loads(line)
                except ValueError:  # the line that was being written when the process was killed
                    continue
                self.rows[kept["id"]] = {"stamp": kept["stamp"], "row": kept["row"]}

    def recall(self, item: str, stamp: str, packed: Collection[str] | None) -> dict[str, Any] | None:
        """The row of an item that has not changed, whose packed file is among those that are there."""
        kept = self.rows.get(item)
        if kept is None or kept["stamp"] != stamp or kept["row"]["packed"] not in (packed or ()):
            return None
        row: dict[str, Any] = kept["row"]
        return row

    def add(self, item: str, stamp: str, row: dict[str, Any]) -> None:
        """Keep a row beside those that are known; its packed file must be on the disk, and the cache started."""
        line = {"id": item, "stamp": stamp, "row": row}
        with self.added.open("a") as stream:  # begins on a line of its own, whatever was cut short before
            stream.write("\n" + json.dumps(line) + "\n")

    def save(self, rows: dict[str, dict[str, Any]]) -> None:
        """Keep these rows, and no others."""
        self.start()
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(rows))
        self.added.unlink(missing_ok=True)
