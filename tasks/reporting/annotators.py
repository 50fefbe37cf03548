"""Values for the report's section on several annotators: scores of each network against each of them."""

from collections.abc import Mapping
from typing import Any

from segcore.comparison.annotators import MAJORITY, agreement_text
from segcore.comparison.results import Comparison, Score
from segcore.metrics import METRICS
from segcore.plots.palette import HUMAN, MUTED, colours
from tasks.reporting.leaderboard import axis_of, place

# key of the column of human annotators, as no architecture is called
_OTHERS = ""


def annotators_view(comparison: Comparison) -> dict[str, Any] | None:
    """Content of the section; None where the ground truth is of one annotator.

    Rows are the labels that scores are against: those of each annotator, the mean of these rows, and the majority.
    """
    found = comparison.annotators
    if found is None:
        return None
    metric, key = METRICS[found.metric], f"{found.metric}/dataset/foreground_mean"
    rows: list[tuple[str, Mapping[str, Score]]] = [
        *((name, {**of, _OTHERS: found.others[name]}) for name, of in found.scores.items()),
        ("Mean of all annotators", {**found.mean, _OTHERS: found.agreement}),
        ("Majority of all annotators", {row.architecture: row.scores[key] for row in comparison.models}),
    ]
    axis = axis_of([one for _, row in rows for one in row.values()], metric)
    palette = colours(row.architecture for row in comparison.models)
    columns = {row.architecture: (row.title, palette[row.architecture][1:]) for row in comparison.models}
    columns[MAJORITY] = ("Majority", MUTED[1:])
    columns[_OTHERS] = ("Other annotators", HUMAN[1:])
    return {
        "metric": metric,
        "text": agreement_text(comparison),
        "axis": axis,
        "columns": list(columns.values()),
        "rows": [
            {"name": name, "cells": [_cell(row.get(column), columns[column][1], axis) for column in columns]}
            for name, row in rows
        ],
    }


def _cell(one: Score | None, colour: str, axis: tuple[float, float]) -> dict[str, Any]:
    return {"score": one, "colour": colour, "at": one and place(one.low, one.estimate, one.high, axis)}
