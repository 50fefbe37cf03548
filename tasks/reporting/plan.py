"""The plan as a table, for the terminal and the report: setting, value, measurement, reason."""

import json
from pathlib import Path
from typing import Any

from segcore.files import read_json
from tasks.project import plan_file

_REMEDY = "restore it with `dvc checkout plan`, or run `dvc repro --force plan`"


def plan_rows(root: Path = Path()) -> list[dict[str, str]]:
    """Rows with the texts key, value, measured, sentence and source; empty without a plan, as in older projects.

    Raises:
        DataError: plan.json is damaged.
    """
    path = root / plan_file()
    if not path.exists():
        return []
    return [
        {
            **{name: str(decision[name]) for name in ("key", "sentence", "source")},
            "measured": decision["measured"] if decision["by"] == "plan" else "by hand",
            "value": _text(decision["value"]),
        }
        for decision in read_json(path, _REMEDY)["decisions"]
    ]


def plan_text(rows: list[dict[str, str]]) -> str:
    """The rows as text in columns."""
    names = ("key", "value", "measured", "sentence")
    table = [
        ("setting", "value", "measured", "reason"),
        *(tuple(row[name] for name in names) for row in rows),
    ]
    widths = [max(len(row[i]) for row in table) for i in range(3)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in table
    )


def _text(value: Any) -> str:
    """A value as in params.yaml."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return json.dumps(value).strip('"')
