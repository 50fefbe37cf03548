"""Decisions as files: decisions/<data.name>/<batch or run key>.json, and history.json with the registry's versions.

A decision is written before it is acted upon. Killed in between, the next call finds it and does not decide again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.files import atomic_write
from segcore.metrics import METRICS
from segcore.promotion.rule_text import limit_text, measured_text, title_text

DECISIONS = Path("decisions")
HISTORY = "history.json"
FORMAT = 1


def record_path(root: Path, name: str, key: str) -> Path:
    """Where the decision on a batch or run is.

    Raises:
        DataError: the key cannot be a file's name, or is that of the history.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.:+-]*", key) or f"{key}.json" == HISTORY:
        raise DataError(
            f"batch {key!r}: cannot name a decision", "name batches with letters, digits and any of -_.:+"
        )
    return root / DECISIONS / name / f"{key}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """A decision, or None where there is none.

    Raises:
        DataError: the file is no decision of this format.
    """
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']}, this is {FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no decision that can be read ({error})",
            "restore it with git, or remove it to decide again",
        ) from error
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Put a decision into its file; one on other inputs that was acted upon keeps a file of its own."""
    earlier = read_record(path)
    if earlier and earlier["acted"] and earlier["inputs"] != record["inputs"]:
        write_json(path.with_name(f"{path.stem}.{earlier['inputs'][:8]}.json"), earlier)
    write_json(path, record)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON as a whole or not at all; NaN, which is no JSON, is refused."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_history(root: Path, name: str, versions: Sequence[Mapping[str, Any]]) -> Path:
    """Keep what the registry knows beside the decisions, so that the report needs no MLflow."""
    path = root / DECISIONS / name / HISTORY
    write_json(path, {"format": FORMAT, "versions": list(versions)})
    return path


def latest(root: Path, name: str) -> dict[str, Any] | None:
    """The decision that was taken last, or None where none was."""
    folder = root / DECISIONS / name
    records = [read_record(path) for path in sorted(folder.glob("*.json")) if path.name != HISTORY]
    return max((r for r in records if r), key=lambda r: r["decided"], default=None)


def read_history(root: Path, name: str) -> list[dict[str, Any]]:
    """The registry's versions as they were last written, newest first."""
    path = root / DECISIONS / name / HISTORY
    return list(json.loads(path.read_text(encoding="utf-8"))["versions"]) if path.exists() else []


def record_text(record: Mapping[str, Any]) -> str:
    """The decision for a terminal: one line per rule and challenger, then the sentence."""
    metric, lines = METRICS[record["basis"]["metric"]], []
    for one in record["challengers"]:
        lines.append(f"{one['title']} (seed {one['seed']})")
        for found in one["rules"]:
            measured, limit = measured_text(found, metric), limit_text(found, metric)
            met = "yes" if found["passed"] else "no"
            lines.append(f"  {title_text(found):<32} {measured:>14}   {limit:<22} {met}")
    drift = record.get("drift")
    return "\n".join(
        [*lines, *([""] if lines else []), *(drift["verdicts"] if drift else []), record["reason"]]
    )
