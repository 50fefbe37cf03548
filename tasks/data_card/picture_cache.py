"""Cache of the data card's pictures, so that only new items are drawn."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segcore.cache import CODE, Cache, code_digest
from segcore.files import atomic_write, cached_json, sha256

Cell = dict[str, Any]


class PictureCache(Cache):
    """Pictures of packed items, valid while the item, the colours and the drawing code are the same.

    Args:
        store: folder of the packed items; the pictures are stored in `pictures` beside it. The name of a packed item
            changes with its content and settings, but not with the code that read it.
        drawing: file of the drawing code outside segcore.
        settings: what else a picture depends on; JSON values.
    """

    def __init__(self, store: Path, drawing: str, settings: Any) -> None:
        code = code_digest(*CODE["ingest"], *CODE["pictures"])
        super().__init__(store.parent / "pictures", json.dumps(settings), code, sha256(drawing))
        self.path = self.folder / "cells.json"
        self.cells: dict[str, Cell] = cached_json(self.path) or {}

    def __contains__(self, packed: object) -> bool:
        return packed in self.cells

    def save(self, packed: Collection[str]) -> None:
        """Save the pictures of these items and remove all others."""
        self.start()
        with atomic_write(self.path) as part:
            part.write_text(json.dumps({name: self.cells[name] for name in packed}))
