"""JSON files of decisions: atomic writes, and reads that name the file and the remedy."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.files import atomic_write


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically.

    Raises:
        DataError: a value is NaN or infinite, which JSON does not allow, or the disk is full.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise DataError(
            f"{path}: not written, because a score or cost is not a finite number",
            "look for NaN in the history.csv and the evaluations of the models, and train those again",
        ) from error
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: the file.
        what: what it should contain, such as "decision", for the error.
        remedy: remedy of the error.

    Raises:
        DataError: the file cannot be read, is not JSON, has NaN or infinite values, or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable {what} ({error})", remedy) from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a readable {what} (it is not a JSON object)", remedy)
    return content


def _refuse(constant: str) -> float:
    raise ValueError(f"it has the value {constant}, which JSON does not allow")
