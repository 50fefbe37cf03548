"""Values for the report's section on slices: one table per word of the data patterns."""

import re
from collections.abc import Mapping
from html import escape
from itertools import groupby
from typing import Any

from segcore.comparison.results import Comparison, LeaderboardRow, Score, Slice
from segcore.comparison.slices import worst_slice
from segcore.metrics import METRICS
from segcore.plots.palette import colours
from tasks.formatting import interval, score
from tasks.reporting.leaderboard import axis_of, place

# characters that Markdown reads as markup: `_` at the edge of a word, `]` before the address of a link
_MARKUP = re.compile(r"[\\`*|~]|\](?=[(\[])|(?<![^\W_])_|_(?![^\W_])")


def slices_view(comparison: Comparison) -> dict[str, Any]:
    """Content of the section; no tables where the data patterns have no words."""
    metric, models = METRICS[comparison.metric], comparison.models
    whole = {row.architecture: row.scores[comparison.headline] for row in models}
    shown = [one for part in comparison.slices for one in part.scores.values()]
    axis = axis_of([*whole.values(), *shown], metric)
    tables = [
        {
            "word": word,
            "rows": [
                {
                    "name": _name(one),
                    "size": _size(one.images, one.clusters, comparison.cluster_kind),
                    "note": _note(one, comparison.cluster_kind),
                    "cells": _cells(one.scores, one.overall, models, axis),
                }
                for one in slices
            ],
        }
        for word, slices in groupby(comparison.slices, key=lambda one: one.word)
    ]
    return {"tables": tables, "worst": worst_slice(comparison), "axis": axis}


def _name(one: Slice) -> str:
    return f"other ({one.pooled} texts)" if one.text is None else one.text


def _size(images: int, clusters: int, kind: str) -> str:
    """Numbers of images and of their clusters; a region of a divided scene is a block."""
    groups = f"{clusters} {kind}{'s' * (clusters != 1)}"
    return groups if kind == "block" else f"{images} image{'s' * (images != 1)} in {groups}"


def _note(one: Slice, kind: str) -> str:
    if not one.scores:
        return "no foreground pixel, so no score"
    notes = [f"no pixel of {', '.join(one.absent)}"] if one.absent else []
    return "; ".join([*notes, *([f"no interval from one {kind}"] if one.clusters < 2 else [])])


def _cells(
    scores: Mapping[str, Score],
    overall: Mapping[str, float],
    models: list[LeaderboardRow],
    axis: tuple[float, float],
) -> list[dict[str, Any]]:
    """Per model: its score, and the positions of score, interval and overall score on the axis."""
    palette = colours(row.architecture for row in models)
    cells = []
    for row in models:
        one = scores.get(row.architecture)
        cells.append(
            {
                "colour": palette[row.architecture][1:],
                "score": one,
                "at": one and place(one.low, one.estimate, one.high, axis),
                "overall": one and place(None, overall[row.architecture], None, axis)["at"],
            }
        )
    return cells


def slices_markdown(comparison: Comparison) -> str:
    """The same tables in Markdown; empty without slices."""
    unit, titles = METRICS[comparison.metric].unit, [row.title for row in comparison.models]
    parts = []
    for table in slices_view(comparison)["tables"]:
        lines = [[table["word"], "test images", *titles], [":---", ":---", *["---:"] * len(titles)]]
        for row in table["rows"]:
            size = "; ".join(filter(None, [row["size"], row["note"]]))
            lines.append([row["name"], size, *(_text(cell["score"], unit) for cell in row["cells"])])
        parts.append("\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in lines))
    return "\n\n".join(parts)


def _text(one: Score | None, unit: str) -> str:
    if one is None:
        return "–"
    reach = "" if one.low is None else f" [{interval(one.low, one.high, unit).replace(' to ', ', ')}]"
    return score(one.estimate, unit) + reach


def escaped(cell: str) -> str:
    """Text as it is printed in a cell of a Markdown table."""
    return _MARKUP.sub(r"\\\g<0>", escape(cell, quote=False))
