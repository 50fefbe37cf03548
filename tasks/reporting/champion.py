"""The page's section on champion and challengers: the last decision, drift, and the registry's history.

Everything comes from the files under decisions/<data.name>/, so the report needs no MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segcore.comparison.leaderboard import METRICS
from segcore.plots import drift as charts
from segcore.plots import style
from tasks.promotion.record import DecisionRecord, latest, read_history, rule_name, rule_value

_OUTCOMES = {
    "promoted": "promoted",
    "kept": "champion stays",
    "first": "first champion",
    "refused": "not decided",
}
_SIDES = {"ceiling": "at most", "cheaper": "at most", "floor": "at least"}


def retrain_view(root: Path, name: str) -> dict[str, Any] | None:
    """What the section shows, or None where nothing was decided yet.

    Args:
        root: the project's folder.
        name: of the data set.

    Raises:
        DataError: a decision cannot be read.
    """
    record = latest(root, name)
    if record is None:
        return None
    basis, drift = record.basis, record.drift
    return {
        "record": record,
        "outcome": _OUTCOMES[record.outcome],
        "decided": when(record.decided),
        "metric": METRICS.get(basis.metric, basis.metric),
        "candidates": _candidates(record),
        "rules": _rules(record.challengers),
        "basis": _basis(record),
        "drift": drift,
        "charts": _charts(drift) if drift else {},
        "history": [
            asdict(row) | {"promoted": when(row.promoted), "restored": row.restored and when(row.restored)}
            for row in read_history(root, name)
        ],
    }


def when(moment: str | None) -> str:
    """`2026-01-31T12:00:00Z` as a person writes it; a dash for None."""
    return moment.replace("T", " ")[:16] + " UTC" if moment else "–"


def _charts(drift: Mapping[str, Any]) -> dict[str, str]:
    return {
        "bands": style.svg(charts.band_histograms(drift), "drift-bands"),
        "classes": style.svg(charts.class_balance(drift), "drift-classes"),
    }


def _candidates(record: DecisionRecord) -> list[dict[str, Any]]:
    """Champion and challengers, each challenger with the place of its difference's interval on a common axis."""
    champion = record.champion
    before = "champion until now" if record.outcome == "promoted" else "champion"
    rows = [champion | {"role": before, "difference": None}] if champion else []
    rows += [
        c | {"role": "new champion" if c["name"] == record.winner else "challenger"}
        for c in record.challengers
    ]
    differences = [(row["difference"] or {}).get("frozen") for row in rows]
    ends = [abs(v) for d in differences if d for v in d.values() if v is not None]
    reach = max([*ends, 0.01]) * 1.08
    return [
        row | {"frozen": difference, "interval": _interval(difference, reach)}
        for row, difference in zip(rows, differences, strict=True)
    ]


def _interval(difference: Mapping[str, float | None] | None, reach: float) -> dict[str, float] | None:
    """Positions in per cent of an axis from -reach to +reach."""
    if difference is None or difference["difference"] is None:
        return None
    at = difference["difference"]
    low, high = (at if difference[end] is None else difference[end] for end in ("low", "high"))
    return {
        name: 50 + 50 * value / reach
        for name, value in (("low", low), ("high", high), ("at", at))
        if value is not None
    }


def _rules(challengers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a rule with every challenger's figure; all challengers are asked the same rules in the same order."""
    rows = []
    for rules in zip(*(c["rules"] for c in challengers), strict=True):
        first = rules[0]
        name = "cost as a share of the champion's" if first["kind"] == "cheaper" else rule_name(first)
        threshold = rule_value(first, first["threshold"], limit=True)
        rows.append(
            {
                "name": name[0].upper() + name[1:],
                "threshold": f"{_SIDES.get(first['kind'], 'above')} {threshold}",
                "cells": [
                    {"value": rule_value(r, r["measured"]), "passed": r["passed"], "note": r["note"]}
                    for r in rules
                ],
            }
        )
    return rows


def _basis(record: DecisionRecord) -> str:
    """What the figures rest on, in a sentence or two."""
    basis = record.basis
    frozen, new = basis.frozen, basis.new
    sets = f"Frozen test set: {frozen['regions']} regions in {frozen['clusters']} clusters"
    sets += (
        f"; new batch: {new['regions']} in {new['clusters']}"
        if new["regions"]
        else "; no region of a new batch"
    )
    if record.champion is None:
        return f"{sets}. Without a champion the validation score chooses, and no difference is measured."
    number, error = basis.comparisons, f"{100 - 100 * basis.confidence:.3g} %"
    shared = f" each, so that {number} comparisons together err no more often than {error} (Bonferroni)"
    return (
        f"{sets}. Intervals: {100 * basis.confidence_each:.4g} %{shared if number > 1 else ''}, "
        f"{basis.bootstrap} paired bootstrap draws of whole clusters, pooled test pixels."
    )
