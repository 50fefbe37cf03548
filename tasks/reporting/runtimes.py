"""Latencies of exported models for the report."""

from collections.abc import Mapping
from typing import Any

from segcore.comparison.timing import Timing, fastest, timing
from segcore.latency import threads_text
from tasks.costs import RUNTIME_SPEED


def runtimes_view(
    costs: Mapping[str, Mapping[str, Any] | None], titles: Mapping[str, str]
) -> dict[str, Any] | None:
    """Table of milliseconds per megapixel, one row per architecture, one column per runtime; None without any.

    Args:
        costs: architecture -> costs.
        titles: architecture -> printed name.
    """
    measured = {name: cost[RUNTIME_SPEED] for name, cost in costs.items() if cost and RUNTIME_SPEED in cost}
    if not measured:
        return None
    # the network itself is the first
    columns = {name: figure["title"] for one in measured.values() for name, figure in one["figures"].items()}
    first = next(iter(measured.values()))
    own = next(iter(first["figures"].values()))
    threads = f", {threads_text(own['threads'])}" if own.get("threads") else ""
    rounded = ", those with 8-bit weights partly in integers of 8 bits" if "onnx_int8" in columns else ""
    return {
        "columns": list(columns.values()),
        "rows": [
            {"title": titles.get(name, name), "cells": [_cell(one["figures"].get(key)) for key in columns]}
            for name, one in measured.items()
        ],
        "note": (
            f"Milliseconds per megapixel, on a tile of {own['latency_tile']} pixels a side: median and middle half of "
            f"{own['latency_rounds']} rounds in which the columns of a row take turns; rows are of different moments. "
            f"PyTorch computes in {own['precision']}, exported files in fp32{rounded}; {first['machine']}{threads}."
            + "".join(_order(titles.get(name, name), one["figures"]) for name, one in measured.items())
        ),
    }


def _order(title: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence where the times of a row show no fastest column."""
    best = fastest({name: _timing(figure) for name, figure in figures.items()})
    return (
        "" if len(figures) == 1 or best.name else f" No order of times is shown for {title}: {best.reason}."
    )


def _timing(figure: Mapping[str, Any]) -> Timing:
    """Per megapixel, of a tile."""
    found = timing({**figure, "ms_per_megapixel": figure["latency_ms"] / (figure["latency_tile"] ** 2 / 1e6)})
    assert found is not None
    return found


def _cell(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """Median and middle half as texts."""
    if figure is None:
        return "–", ""
    found = _timing(figure)
    return found.median, found.spread
