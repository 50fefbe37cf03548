"""Report section on champion and challengers: the last decision, drift, and the history of the registry.

It reads only the files in decisions/<data.name>/, so the report does not need MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from segcore.comparison.text import difference_unit
from segcore.gate_rules import Gain
from segcore.metrics import METRICS, Metric
from segcore.plots import drift as charts
from segcore.plots import style
from segcore.promotion.rule_text import (
    limit_text,
    measured_text,
    measures_text,
    passed_text,
    title_text,
)
from tasks.promotion.history import CHAMPION, RegisteredVersion, read_history
from tasks.promotion.record import (
    DecisionRecord,
    JudgedModel,
    evidence_text,
    latest,
)
from tasks.reporting.age import trained_since
from tasks.reporting.leaderboard import place

_OUTCOMES = {
    "promoted": "promoted",
    "kept": "champion kept",
    "first": "first champion",
    "refused": "not decided",
}


def retrain_view(
    root: Path, name: str, weights: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any] | None:
    """Content of the section, or None if there is no decision yet.

    Args:
        root: the project's folder.
        name: of the dataset.
        weights: present sha256 of the weights by name of the bundle.

    Raises:
        DataError: a decision cannot be read.
    """
    record = latest(root, name)
    if record is None:
        return None
    metric, drift = METRICS[record.basis.metric], record.drift
    versions = read_history(root, name)
    return {
        "record": record,
        "outcome": _OUTCOMES[record.outcome],
        "decided": when(record.decided),
        "metric": metric,
        "difference_unit": difference_unit(metric.unit),
        "candidates": _candidates(record),
        "unmeasured": record.champion is None and all(c.costs.latency_ms is None for c in record.challengers),
        "rules": _rules(record.challengers, metric),
        "basis": _basis(record),
        "evidence": evidence_text(record),
        "since": " ".join(filter(None, [_since(record, versions), trained_since(record, weights)])),
        "drift": drift,
        "charts": _charts(drift) if drift else {},
        "history": [
            asdict(row) | {"promoted": when(row.promoted), "restored": row.restored and when(row.restored)}
            for row in versions
        ],
    }


def _since(record: DecisionRecord, versions: Sequence[RegisteredVersion]) -> str:
    """A rollback after the decision, as a sentence; empty without one."""
    champion = next((row for row in versions if CHAMPION in row.aliases), None)
    if champion is None or champion.restored is None or champion.restored <= record.decided:
        return ""
    return f"A rollback of {when(champion.restored)} made version {champion.version} champion again."


def when(moment: str | None) -> str:
    """`2026-01-31T12:00:00Z` as `2026-01-31 12:00 UTC`; a dash for None."""
    return moment.replace("T", " ")[:16] + " UTC" if moment else "–"


def _charts(drift: Mapping[str, Any]) -> dict[str, str]:
    return {
        "bands": style.svg(charts.band_histograms(drift), "drift-bands"),
        "classes": style.svg(charts.class_balance(drift), "drift-classes"),
    }


def _candidates(record: DecisionRecord) -> list[dict[str, Any]]:
    """One row per model; challengers have the positions of their difference and its interval on a common axis."""
    champion = record.champion
    role = "champion until now" if record.outcome == "promoted" else "champion"
    rows = [vars(champion) | {"role": role, "frozen": None}] if champion else []
    rows += [
        vars(one)
        | {
            "role": "new champion" if one.name == record.winner else "challenger",
            "frozen": one.difference.get("frozen"),
        }
        for one in record.challengers
    ]
    gains = [row["frozen"] for row in rows if row["frozen"]]
    ends = [abs(v) for g in gains for v in (g.difference, g.low, g.high) if v is not None]
    reach = max([*ends, 0.01]) * 1.08
    return [row | {"interval": _place(row["frozen"], reach)} for row in rows]


def _place(gain: Gain | None, reach: float) -> dict[str, float] | None:
    """Positions on an axis from -reach to +reach."""
    if gain is None:
        return None
    return place(gain.low, gain.difference, gain.high, (-reach, reach))


def _rules(challengers: Sequence[JudgedModel], metric: Metric) -> list[dict[str, Any]]:
    """One row per rule with the value of each challenger; all have the same rules in the same order."""
    rows = []
    for findings in zip(*(c.rules for c in challengers), strict=True):
        first = findings[0]
        name = title_text(first, metric) if len({f.rule for f in findings}) == 1 else first.kind
        cells = [
            {
                "value": _minus(measured_text(f, metric)),
                "passed": f.passed,
                "met": passed_text(f),
                "note": f.note,
            }
            for f in findings
        ]
        rows.append(
            {
                "name": _capital(name),
                "measures": _capital(measures_text(first, metric)),
                "limit": _minus(limit_text(first, metric)),
                "cells": cells,
            }
        )
    return rows


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _basis(record: DecisionRecord) -> str:
    """Test sets, confidence and draws behind the figures, in one or two sentences."""
    basis = record.basis
    frozen, new = basis.frozen, basis.new
    sets = f"Frozen test set: {frozen['regions']} regions in {frozen['clusters']} clusters"
    sets += (
        f"; new batch: {new['regions']} in {new['clusters']}"
        if new["regions"]
        else "; no region of a new batch"
    )
    if record.champion is None:
        return f"{sets}. Without a champion, the validation score decides and no difference is measured."
    number, error = basis.comparisons, f"{100 - 100 * basis.confidence:.3g} %"
    shared = (
        f" each, so that the error rate of all {number} comparisons together is at most {error} (Bonferroni)"
    )
    # decisions of earlier versions
    method = "paired bootstrap draws" if basis.required is None else "swaps"
    return (
        f"{sets}. Intervals: {100 * basis.confidence_each:.4g} %{shared if number > 1 else ''}, by "
        f"{method} of whole clusters, pooled test pixels."
    )
