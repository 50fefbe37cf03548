"""Cache of catalogue rows, so that an ingest reads only new and changed items."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segcore.cache import CODE, Cache, code_digest
from segcore.files import atomic_write, cached_json, digest
from segcore.params.data import Data

# settings that affect the pixels and labels that are read from a file
_READING = (
    *("classes", "background", "label_values", "label_property", "instances", "bands", "grey_to_rgb"),
    *("nodata", "slices", "baselines", "valid"),
)
# settings that later versions added: part of the fingerprint only where they are set, so that files keep their names
_ADDED = ("pages", "trust_shape", "unlabelled", "crowds", "objects", "touching", "annotators")


def settings_fingerprint(data: Data) -> str:
    """Hash of the settings that affect how files are read."""
    names = {*_READING, "scale", "percentiles"} if data.scale == "item" else set(_READING)
    facts = data.model_dump(mode="json", include=names)
    facts |= data.model_dump(mode="json", include=set(_ADDED), exclude_defaults=True)
    if isinstance(data.masks, dict):
        # the later of two classes counts
        facts["masks"] = list(data.masks)
    return digest(json.dumps(facts, sort_keys=True))


class IngestCache(Cache):
    """Catalogue rows of earlier ingests by item id, valid while files, settings and reading code are unchanged.

    A row is appended as soon as its packed file is on disk, so that an interrupted ingest need not read it again:
    rows.json has the rows of the last complete ingest, rows.jsonl those that were appended since.

    Args:
        work: folder of the ingest; the rows are stored in its subfolder `rows`.
        data: settings.
    """

    def __init__(self, work: Path, data: Data) -> None:
        super().__init__(work / "rows", settings_fingerprint(data), code_digest(*CODE["ingest"]))
        self.path, self.added = self.folder / "rows.json", self.folder / "rows.jsonl"
        self.rows: dict[str, dict[str, Any]] = cached_json(self.path) or {}
        if self.added.exists():
            for line in self.added.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    # an empty line, or one that was incomplete when the process was killed
                    continue
                self.rows[entry["id"]] = {"stamp": entry["stamp"], "row": entry["row"]}

    def recall(self, item: str, stamp: str, packed: Collection[str] | None) -> dict[str, Any] | None:
        """Row of an item; None unless its stamp is unchanged and its packed file is in `packed`.

        Args:
            item: id of the item.
            stamp: current stamp of its files (`source_files.stamp`).
            packed: names of the existing packed files; None: there are none.
        """
        entry = self.rows.get(item)
        if entry is None or entry["stamp"] != stamp or entry["row"]["packed"] not in (packed or ()):
            return None
        row: dict[str, Any] = entry["row"]
        return row

    def add(self, item: str, stamp: str, row: dict[str, Any]) -> None:
        """Append a row; its packed file must be on disk, and `start` must have been called."""
        line = {"id": item, "stamp": stamp, "row": row}
        with self.added.open("a") as stream:
            # The first newline ends a line that an interrupted write has left incomplete.
            stream.write("\n" + json.dumps(line) + "\n")

    def save(self, rows: dict[str, dict[str, Any]]) -> None:
        """Replace all stored rows."""
        self.start()
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(rows))
        self.added.unlink(missing_ok=True)
