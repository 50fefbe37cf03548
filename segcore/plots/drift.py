"""Charts of a new batch against the training data; see `segcore.promotion.drift`."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segcore.plots.charts import PERCENT
from segcore.plots.palette import INK, MUTED
from segcore.plots.style import RC, new_figure

TRAINING, NEW = MUTED, "#2f76b5"
# at most this many bands are drawn, those with the largest PSI
_BANDS = 12
_COLUMNS = 4


def band_histograms(drift: Mapping[str, Any]) -> Figure:
    """Histogram of the values, one panel per band; of more than twelve bands, those with the largest PSI.

    Args:
        drift: result of `segcore.promotion.drift.drift`.
    """
    bands = sorted(drift["bands"], key=lambda b: -b["psi"])[:_BANDS]
    bands.sort(key=lambda b: b["band"])
    columns = min(_COLUMNS, max(3, len(bands)))
    rows = -(-len(bands) // columns)
    with mpl.rc_context(RC):
        figure = Figure(figsize=(10.4, 0.4 + 2.1 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(bands) :]:
            axes.set_axis_off()
        for axes, band in zip(panels, bands, strict=False):
            _histogram(axes, band)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, labelcolor=MUTED
        )
    return figure


def _histogram(axes: Axes, band: Mapping[str, Any]) -> None:
    low, high = band["edges"]
    edges = np.linspace(low, high, len(band["training"]) + 1)
    axes.stairs(band["training"], edges, fill=True, color=TRAINING, alpha=0.35, label="training data")
    axes.stairs(band["new"], edges, color=NEW, linewidth=1.6, label="new batch")
    axes.set_title(f"Band {band['band']} · PSI {band['psi']:.2f}")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("value")
    axes.set_ylabel("share (%)")


def class_balance(drift: Mapping[str, Any]) -> Figure:
    """Share of each class's pixels in the training data and in the new batch.

    Args:
        drift: result of `segcore.promotion.drift.drift`.
    """
    classes = drift["classes"]
    at = np.arange(len(classes["names"]))
    with mpl.rc_context(RC):
        figure, (axes,) = new_figure(6.4, 0.95 + 0.5 * max(2, len(at)))
        sides = (
            (classes["training"], TRAINING, -0.18, "training data"),
            (classes["new"], NEW, 0.18, "new batch"),
        )
        for shares, colour, shift, label in sides:
            axes.barh(at + shift, shares, height=0.32, color=colour, alpha=0.55, label=label)
            for row, share in zip(at + shift, shares, strict=True):
                axes.annotate(
                    f"{100 * share:.1f}", (share, row), (5, 0), textcoords="offset points", va="center",
                    color=MUTED, fontsize=8,
                )  # fmt: skip
        axes.set_yticks(at, classes["names"], color=INK)
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, 1.12 * max(*classes["training"], *classes["new"], 0.01))
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("share of the labelled pixels (%)")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, labelcolor=MUTED)
    return figure
