"""What the last call of `python -m tasks receive` accepted, as a file; import-light."""

from dataclasses import dataclass
from pathlib import Path

from segcore.errors import DataError
from segcore.files import read_json
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
    """The receipt of the last call.

    Raises:
        DataError: the file is damaged.
    """
    path = receipt_file(p)
    content = read_json(path, "run again; the batch is kept, and the next call continues with it")
    try:
        return Receipt(**content)
    except TypeError as error:
        raise DataError(f"{path}: is not a receipt ({error})", "remove it, then run again") from error
