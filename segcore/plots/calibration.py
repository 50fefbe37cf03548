"""Reliability diagrams: how often a network is right at each confidence."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segcore.plots.charts import PERCENT, row_width
from segcore.plots.palette import MUTED, colours
from segcore.plots.style import RC, new_figure


def calibration_curves(calibrations: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> Figure:
    """Reliability diagrams: accuracy against confidence, one panel per architecture; bars count the pixels.

    Those that have the calibration after temperature scaling, too, have a second curve, dashed with open squares.
    """
    palette = colours(calibrations)
    with mpl.rc_context(RC):
        panel_count = max(1, len(calibrations))
        figure, panels = new_figure(row_width(panel_count), 3.1, panel_count, sharex=True, sharey=True)
        for axes, (name, table) in zip(panels, calibrations.items(), strict=False):
            confidence, accuracy, share = _filled_bins(table)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1)
            axes.bar(confidence, share, width=0.6 / len(table["count"]), color=palette[name], alpha=0.22)
            (line,) = axes.plot(
                confidence, accuracy, "o-", color=palette[name], linewidth=1.8, markersize=4.5
            )
            error = f"ECE {table['ece'] * 100:.1f} %"
            if after := table.get("after_temperature"):
                error = f"ECE {table['ece'] * 100:.1f} → {after['ece'] * 100:.1f} %"
                line.set_label("as predicted")
                _plot_after(axes, after, palette[name])
            axes.set_title(f"{titles.get(name, name)} · {error}")
            axes.set_xlabel("confidence (%)")
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.02)
            axes.xaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_formatter(PERCENT)
        panels[0].set_ylabel("accuracy (%)")
    return figure


def _filled_bins(table: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, accuracy and share of pixels of the bins that have pixels."""
    count = np.asarray(table["count"], dtype=float)
    keep = count > 0
    confidence, accuracy = (np.asarray(table[name], dtype=float)[keep] for name in ("confidence", "accuracy"))
    return confidence, accuracy, count[keep] / count.sum()


def _plot_after(axes: Axes, table: Mapping[str, Any], colour: str) -> None:
    """The curve after temperature scaling, and a legend."""
    confidence, accuracy, _ = _filled_bins(table)
    look: dict[str, Any] = {"color": colour, "linewidth": 1.4, "linestyle": (0, (2, 1.5)), "markersize": 5.5}
    axes.plot(confidence, accuracy, "s", markerfacecolor="none", label="after temperature", **look)
    axes.legend(loc="upper left", fontsize=8)
