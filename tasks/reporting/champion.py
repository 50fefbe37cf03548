"""The page's section on champion and challengers: the last decision, drift, and the registry's history.

Everything comes from the files under decisions/<data.name>/, so the report needs no MLflow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segcore.comparison.text import difference_unit
from segcore.gate_rules import Gain
from segcore.metrics import METRICS, Metric
from segcore.plots import drift as charts
from segcore.plots import style
from segcore.promotion.rule_text import limit_text, measured_text, measures_text, title_text
from tasks.promotion.record import DecisionRecord, JudgedModel, latest, read_history
from tasks.reporting.rows import place

_OUTCOMES = {
    "promoted": "promoted",
    "kept": "champion kept",
    "first": "first champion",
    "refused": "not decided",
}


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
    metric, drift = METRICS[record.basis.metric], record.drift
    return {
        "record": record,
        "outcome": _OUTCOMES[record.outcome],
        "decided": when(record.decided),
        "metric": metric,
        "difference_unit": difference_unit(metric.unit),
        "candidates": _candidates(record),
        "rules": _rules(record.challengers, metric),
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
    rows = [vars(champion) | {"role": before, "frozen": None}] if champion else []
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


def _place(found: Gain | None, reach: float) -> dict[str, float] | None:
    """Positions on an axis from -reach to +reach."""
    if found is None:
        return None
    return place(found.low, found.difference, found.high, (-reach, reach))


def _rules(challengers: Sequence[JudgedModel], metric: Metric) -> list[dict[str, Any]]:
    """One row per rule with every challenger's value; all challengers have the same rules in the same order."""
    rows = []
    for found in zip(*(c.rules for c in challengers), strict=True):
        first = found[0]
        name = title_text(first) if len({f.rule for f in found}) == 1 else first.kind
        cells = [
            {"value": _minus(measured_text(f, metric)), "passed": f.passed, "note": f.note} for f in found
        ]
        rows.append(
            {
                "name": _capital(name),
                "measures": _capital(measures_text(first)),
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
