"""Whether a page, and the decision on it, describe the present comparison, models and decisions."""

import re
from collections.abc import Mapping
from pathlib import Path

from segcore.files import digest, sha256
from tasks.project import comparison_file, run_name
from tasks.promotion.history import HISTORY
from tasks.promotion.record import DecisionRecord, record_files

_META = re.compile(r'<meta name="segflow-state" content="(\w+)">')


def state_of(root: Path, name: str) -> str:
    """Digest of the comparison and the decisions that a page of the data set `name` shows."""
    decisions = record_files(root, name)
    files = [root / comparison_file(), *decisions, *(path.with_name(HISTORY) for path in decisions[:1])]
    return digest(*(f"{path.name} {sha256(path)}" for path in files if path.exists()))[:16]


def is_current(page: Path, root: Path, name: str) -> bool:
    """Whether a page exists and shows the present comparison and decisions; False for pages of earlier versions."""
    if not page.is_file():
        return False
    with page.open(encoding="utf-8", errors="replace") as stream:
        found = _META.search(stream.read(4096))
    return found is not None and found[1] == state_of(root, name)


def trained_since(record: DecisionRecord, weights: Mapping[str, str]) -> str:
    """Sentence on judged models that were trained again after the decision; empty without any.

    Args:
        record: the decision.
        weights: present sha256 of the weights by name of the bundle.
    """
    later = [
        f"{one.title} (seed {one.seed})"
        for one in record.challengers
        if weights.get(run_name(one.architecture, one.seed), one.weights_sha256) != one.weights_sha256
    ]
    if not later:
        return ""
    verb = "was" if len(later) == 1 else "were"
    which = ", ".join(later)
    return f"Since this decision {which} {verb} trained again: it is on earlier weights than the rest of this page."
