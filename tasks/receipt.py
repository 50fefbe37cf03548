"""What the last call of `python -m tasks receive` accepted, as a file; import-light."""

import json
from dataclasses import dataclass
from pathlib import Path

from segcore.params import Params
from tasks.project import RECEIVED


@dataclass(frozen=True)
class Receipt:
    """What one call accepted; content of its JSON file.

    Attributes:
        batch: name of the new batch; None: no new item was accepted.
        accepted: number of items in the batch.
        text: one sentence on the whole inbox.
    """

    batch: str | None
    accepted: int
    text: str


def receipt_file(p: Params) -> Path:
    """File of the last call's receipt."""
    return RECEIVED / p.data.name / "last.json"


def read_receipt(p: Params) -> Receipt:
    """The receipt of the last call."""
    return Receipt(**json.loads(receipt_file(p).read_text()))
