"""The leaderboard of the report: its columns, its rows, and positions on the axis of whiskers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from segcore.comparison.leaderboard import Column, Leaderboard, Value, network_kind
from segcore.comparison.results import Comparison, LeaderboardRow, Score
from segcore.comparison.timing import Timing
from segcore.metrics import METRICS, Metric, is_of_objects, is_of_surfaces
from segcore.plots.palette import HUMAN, MUTED, colours
from tasks.formatting import interval, score


def _stacked(board: Leaderboard, *parts: str, without: Sequence[str] = ()) -> list[list[Column]]:
    """Columns of these parts, each with the columns that are shown below its values."""
    columns = [c for c in board.columns if c.part in parts and c.key not in without]
    keys = {c.key for c in columns}
    return [[c, *(low for low in columns if low.below == c.key)] for c in columns if c.below not in keys]


def measure_columns(board: Leaderboard) -> list[list[Column]]:
    """Columns of sizes and costs; the receptive field is in the page's table of networks."""
    return _stacked(board, "sizes", "costs", without=("receptive_field",))


def score_columns(board: Leaderboard, comparison: Comparison) -> list[list[Column]]:
    """Columns of scores of pixels except the headline; rank and seeds are elsewhere on the page."""
    without = [
        "rank",
        "seeds",
        "network",
        comparison.headline,
        *(c.key for c in board.columns if is_of_objects(c.key) or is_of_surfaces(c.key)),
    ]
    return _stacked(board, "scores", without=without)


def object_columns(board: Leaderboard, comparison: Comparison) -> list[list[Column]]:
    """Columns of scores of objects except the headline; they are a table of their own, so that all fit on the page."""
    return _columns_of(board, comparison, is_of_objects)


def surface_columns(board: Leaderboard, comparison: Comparison) -> list[list[Column]]:
    """Columns of scores of surfaces except the headline, as those of objects."""
    return _columns_of(board, comparison, is_of_surfaces)


def _columns_of(
    board: Leaderboard, comparison: Comparison, chosen: Callable[[str], bool]
) -> list[list[Column]]:
    columns = [c for c in board.columns if c.part == "scores" and chosen(c.key)]
    return [[replace(c, short=_heading(c))] for c in columns if c.key != comparison.headline]


def _heading(column: Column) -> str:
    """Metric, whether it is a mean of images, and a unit other than per cent."""
    name, aggregate, _ = column.key.split("/")
    one = "volume" if is_of_surfaces(column.key) else "image"
    per_image = f" per {one}" if aggregate == "image" else ""
    return with_unit(METRICS[name].heading + per_image, column.unit)


def with_unit(title: str, unit: str) -> str:
    """A title with its unit; per cent is stated once for all."""
    return title if unit == "%" else f"{title} ({unit})"


def _cells(
    board: Leaderboard, values: Sequence[Value], stacks: Sequence[Sequence[Column]]
) -> list[list[str]]:
    """Values of stacked columns as text."""
    by_key = dict(zip((c.key for c in board.columns), values, strict=True))
    return [[line for c in stack for line in _lines(c, by_key[c.key])] for stack in stacks]


def _lines(column: Column, value: Value) -> list[str]:
    """A value as text; spreads of times and intervals of scores of objects and surfaces are lines of their own."""
    if isinstance(value, Timing):
        return [value.median, *([value.spread] if value.spread else [])]
    if isinstance(value, Score) and (is_of_objects(column.key) or is_of_surfaces(column.key)):
        known = value.low is not None and value.high is not None
        reach = [interval(value.low, value.high, column.unit)] if known else []
        return [score(value.estimate, column.unit), *reach]
    return ["–" if value is None else column.show(value)]


def place(low: float | None, at: float, high: float | None, axis: tuple[float, float]) -> dict[str, float]:
    """Positions of a value and its interval on an axis, in % of the axis; a missing end is at the value itself."""
    start, span = axis[0], max(axis[1] - axis[0], 1e-9)
    ends = {"low": at if low is None else low, "high": at if high is None else high, "at": at}
    return {name: (value - start) / span * 100 for name, value in ends.items()}


def axis_of(scores: Sequence[Score], metric: Metric) -> tuple[float, float]:
    """Ends of an axis that shows all scores of a metric with their intervals."""
    ends = [v for s in scores for v in (s.estimate, s.low, s.high) if v is not None] or [0.0, 1.0]
    margin = max(0.01, (max(ends) - min(ends)) * 0.06)
    lowest, highest = min(ends) - margin, max(ends) + margin
    if not metric.is_signed:
        lowest = max(0.0, lowest)
    return lowest, min(1.0, highest) if metric.is_bounded else highest


def headlines(comparison: Comparison) -> list[Score]:
    """Headline scores on the axis; that of perfect masks is there if it is one of objects, else it is 1."""
    return [
        row.scores[comparison.headline]
        for row in comparison.leaderboard
        if comparison.headline in row.scores and _is_on_axis(row, comparison)
    ]


def _is_on_axis(row: LeaderboardRow, comparison: Comparison) -> bool:
    return row.kind != "limit" or is_of_objects(comparison.headline)


def leader_rows(comparison: Comparison, board: Leaderboard) -> list[dict[str, Any]]:
    """Values of the page per row of the leaderboard, in leaderboard order."""
    axis = axis_of(headlines(comparison), METRICS[comparison.metric])
    palette = colours(row.architecture for row in comparison.models)
    of_kind = {"human": HUMAN, "limit": MUTED}
    has_networks = any(column.key == "network" for column in board.columns)
    rows = []
    for row, values in zip(board.rows, board.values, strict=True):
        best = row.scores.get(comparison.headline)
        rows.append(
            {
                "rank": row.rank,
                "title": row.title,
                "kind": row.kind,
                "network": network_kind(row) if has_networks else None,
                "scores": row.scores,
                "headline": best,
                "interval": best
                and _is_on_axis(row, comparison)
                and place(best.low, best.estimate, best.high, axis),
                "colour": (of_kind.get(row.kind) or palette[row.architecture])[1:],
                "has_pixels": row.kind != "limit" or is_of_objects(comparison.headline),
                "cells": _cells(board, values, score_columns(board, comparison)),
                "objects": _cells(board, values, object_columns(board, comparison)),
                "surfaces": _cells(board, values, surface_columns(board, comparison)),
                "measures": row.summary and _cells(board, values, measure_columns(board)),
            }
        )
    return rows
