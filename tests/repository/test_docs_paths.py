"""Paths that the design page names under "Where to add what" are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def rows() -> list[list[str]]:
    (page,) = (ROOT / "docs").rglob("design.md")
    table = page.read_text(encoding="utf-8").partition("## Where to add what")[2]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line[:1] == "|"
    ]


def test_every_path_is_there() -> None:
    named = [path for row in rows()[2:] for path in re.findall(r"`([^`]+)`", row[1])]
    assert len(named) > 15
    missing = [path for path in named if not list(ROOT.glob(path.replace("<name>", "*")))]
    assert not missing


def test_the_twelve_usual_additions_are_listed() -> None:
    kinds = {row[0] for row in rows()[2:]}
    wanted = {
        *("an architecture", "a metric", "a file format", "a loss", "a rule of splits", "a stage"),
        *("a column of the leaderboard", "what a run logs", "a rule of the gate", "a notification"),
        *("a sample", "a kind of bad input"),
    }
    assert wanted <= kinds
