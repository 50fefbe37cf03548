"""Pictures that earlier data cards drew, so that a card of few new items draws few."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from segcore.files import atomic_write, sha256
from segcore.plots import overlays, pictures

Cell = dict[str, Any]


class PictureMemory:
    """What was drawn of packed items, valid as long as the item, the colours and the drawing code are the same.

    Args:
        store: folder of the packed items; their names change with their content. The memory lies beside it.
        settings: what else a picture depends on.
    """

    def __init__(self, store: Path, settings: Any) -> None:
        self.path = store.parent / "pictures.json"
        facts = [json.dumps(settings), *(sha256(str(module.__file__)) for module in (overlays, pictures))]
        self.fingerprint = hashlib.sha256("\n".join(facts).encode()).hexdigest()
        self.cells: dict[str, Cell] = {}
        if self.path.exists() and (kept := json.loads(self.path.read_text()))["of"] == self.fingerprint:
            self.cells = kept["cells"]

    def __contains__(self, packed: object) -> bool:
        return packed in self.cells

    def save(self, packed: Collection[str]) -> None:
        """Keep the pictures of these items, and no others."""
        with atomic_write(self.path) as part:
            cells = {name: self.cells[name] for name in packed}
            part.write_text(json.dumps({"of": self.fingerprint, "cells": cells}))
