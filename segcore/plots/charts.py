"""The report's charts, each a function of plain tables that returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from segcore.comparison.progress import validation_score
from segcore.comparison.results import Comparison, LeaderboardRow, Score
from segcore.comparison.text import value_text
from segcore.comparison.timing import timing
from segcore.metrics import METRICS, class_metrics, is_of_objects, unit_of
from segcore.plots.palette import HUMAN, INK, MUTED, PAPER, colours, markers
from segcore.plots.style import RC, new_figure

# columns of history.csv with the validation score -> title of the panel
_VALIDATION = {
    "val_iou": "Validation IoU of the foreground (%)",
    "val_pq": "Validation PQ of the objects (%)",
}
PERCENT = FuncFormatter(lambda value, _: f"{value * 100:g}")


def cost_of(row: LeaderboardRow, costs: Mapping[str, Mapping[str, Any] | None]) -> tuple[float, bool]:
    """(ms per megapixel, True) where it was measured, else (GMACs per 256 x 256 crop, False)."""
    measured = (costs.get(row.architecture) or {}).get("ms_per_megapixel")
    if measured is not None:
        return float(measured), True
    return _summary(row)["macs"] / 1e9, False


def _summary(row: LeaderboardRow) -> Mapping[str, Any]:
    return row.summary or {}


def _whisker(axes: Axes, score: Score, at: float, colour: str, vertical: bool) -> None:
    if score.low is None or score.high is None:
        return
    ends = ([at, at], [score.low, score.high])
    axes.plot(
        *(ends if vertical else ends[::-1]), color=colour, linewidth=2, alpha=0.55, solid_capstyle="round"
    )


def accuracy_cost(comparison: Comparison, costs: Mapping[str, Mapping[str, Any] | None]) -> Figure:
    """Headline score against cost; whiskers are intervals of both, the area of a bubble its parameters."""
    rows = [row for row in comparison.models if comparison.headline in row.scores]
    metric = METRICS[comparison.metric]
    by_time = all(cost_of(row, costs)[1] for row in rows)
    palette = colours(row.architecture for row in rows)
    most = max((_summary(row)["parameters"] for row in rows), default=1)
    with mpl.rc_context(RC):
        figure, (axes,) = new_figure(9.2, 3.8)
        furthest = 0.0
        places = [cost_of(row, costs)[0] if by_time else _summary(row)["macs"] / 1e9 for row in rows]
        timings = [timing(costs.get(row.architecture)) for row in rows]
        for row, cost, time in zip(rows, places, timings, strict=True):
            score, colour = row.scores[comparison.headline], palette[row.architecture]
            if by_time and time is not None and time.low is not None and time.high is not None:
                ends = ([time.low, time.high], [score.estimate] * 2)
                axes.plot(*ends, color=colour, linewidth=2, alpha=0.55, solid_capstyle="round")
                furthest = max(furthest, time.high)
            size = 80 + 900 * _summary(row)["parameters"] / most
            axes.scatter(cost, score.estimate, s=size, color=colour, alpha=0.25, linewidth=0)
            axes.scatter(cost, score.estimate, s=22, color=colour, zorder=3)
            _whisker(axes, score, cost, colour, vertical=True)
            label = f"{row.title}, {_summary(row)['parameters'] / 1e6:.1f} M parameters"
            axes.plot([], [], "o", color=colour, label=label)
        # A legend instead of labels at the bubbles, which would overlap for networks of similar cost. It is above
        # the axes, because inside them any corner may contain a whisker or the line of the human.
        figure.legend(loc="outside upper left", ncols=min(3, max(1, len(rows))))
        _reference_lines(axes, comparison)
        apart = any(time is not None and time.apart for time in timings)
        what = f"milliseconds per megapixel{', measured at different moments' if apart else ''}"
        what = what if by_time else "GMACs per 256 × 256 crop"
        axes.set_xlabel(f"{what} (lower is better)")
        direction = "" if metric.higher_is_better else f", {metric.direction}"
        # titles of metrics of objects are longer than the axis
        between = "\n" if metric.of_objects else " "
        axes.set_ylabel(f"{metric.heading},{between}foreground mean ({metric.unit}{direction})")
        _ticks_in_unit(axes.yaxis, metric.unit)
        axes.set_xlim(0, max([*places, furthest], default=1) * 1.28)
        axes.margins(y=0.12)
        # limits that Matplotlib chooses for a single value would be negative
        if np.allclose(axes.dataLim.intervaly, 0):
            axes.set_ylim(-0.05, 1)
    return figure


def _ticks_in_unit(axis: Axis, unit: str) -> None:
    """Label values in "%" in per cent; leave other units as they are."""
    if unit == "%":
        axis.set_major_formatter(PERCENT)


def _reference_lines(axes: Axes, comparison: Comparison) -> None:
    """Lines of humans, and of limits where the score is one of objects."""
    colour_of = {"human": HUMAN} | ({"limit": MUTED} if is_of_objects(comparison.headline) else {})
    for row in comparison.leaderboard:
        score, colour = row.scores.get(comparison.headline), colour_of.get(row.kind)
        if colour and score:
            axes.axhline(score.estimate, color=colour, linestyle=(0, (4, 3)), linewidth=1.4)
            place = (0.01, score.estimate)
            axes.annotate(
                row.title, place, (0, 3), xycoords=("axes fraction", "data"), textcoords="offset points",
                color=colour,
            )  # fmt: skip


def grouped_bars(comparison: Comparison, keys: Mapping[str, str]) -> Figure:
    """Horizontal bars with intervals: one group per key of `keys` (key -> label), one bar per architecture.

    Keys of one unit share a panel.
    """
    rows = comparison.models
    groups = [(key, label) for key, label in keys.items() if any(key in row.scores for row in rows)]
    units = list(dict.fromkeys(unit_of(key) for key, _ in groups)) or ["%"]
    most = max(sum(unit_of(key) == unit for key, _ in groups) for unit in units)
    with mpl.rc_context(RC):
        height = 0.75 + 0.27 * max(2, most * (len(rows) + 0.6))
        figure, panels = new_figure(5.4 * len(units), height, len(units))
        for axes, unit in zip(panels, units, strict=True):
            _bars(axes, rows, [(key, label) for key, label in groups if unit_of(key) == unit], unit)
    return figure


def _bars(axes: Axes, rows: Sequence[LeaderboardRow], groups: Sequence[tuple[str, str]], unit: str) -> None:
    """One panel of grouped bars."""
    palette = colours(row.architecture for row in rows)
    step = 0.8 / max(1, len(rows))
    for j, row in enumerate(rows):
        colour = palette[row.architecture]
        for i, (key, _) in enumerate(groups):
            score = row.scores.get(key)
            if score is None:
                continue
            at = i + (j - (len(rows) - 1) / 2) * step
            axes.barh(at, score.estimate, height=step * 0.78, color=colour, alpha=0.32)
            _whisker(axes, score, at, colour, vertical=False)
            axes.plot(score.estimate, at, "o", color=colour, markersize=4.5)
            edge, text = max(score.estimate, score.high or 0), value_text(score.estimate, unit)
            axes.annotate(
                text, (edge, at), (6, 0), textcoords="offset points", va="center", color=MUTED, fontsize=8
            )
    axes.set_yticks(range(len(groups)), [label for _, label in groups], color=INK)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    _set_reach(axes, groups, unit)
    _ticks_in_unit(axes.xaxis, unit)
    axes.spines["left"].set_visible(False)


def _set_reach(axes: Axes, groups: Sequence[tuple[str, str]], unit: str) -> None:
    """Limits of the axis of values: 0 to 100 % for bounded scores; others may be negative, or above 100 %."""
    if unit == "%" and all(METRICS[key.partition("/")[0]].is_bounded for key, _ in groups):
        axes.set_xlim(0, 1.08)
        axes.set_xticks(np.arange(0, 1.01, 0.25))
        return
    if unit != "%":
        axes.set_xlabel(unit)
    if np.allclose(axes.dataLim.intervalx, 0):
        axes.set_xlim(0, 1)


def class_bars(comparison: Comparison) -> Figure:
    """The compared metric of each class, pooled over the test pixels."""
    return grouped_bars(
        comparison, {f"{comparison.metric}/dataset/{name}": name for name in comparison.classes}
    )


def metric_bars(comparison: Comparison, table: str = "counts") -> Figure:
    """Foreground mean of every metric of an evaluation table: of pixels, pooled, or of "surfaces", means of groups."""
    labels = {
        f"{metric.name}/dataset/foreground_mean": metric.heading
        + ("" if metric.higher_is_better else f"\n({metric.direction})")
        for metric in class_metrics(table).values()
    }
    return grouped_bars(comparison, labels)


def learning_curves(histories: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Validation scores and losses by step, with a marker at the selected step (best on validation).

    IoU of semantic and PQ of instance networks have a panel each.

    Args:
        histories: run (`<architecture>-<seed>`) -> history.csv.
        titles: architecture -> printed name.
    """
    palette = colours(run.rpartition("-")[0] for run in histories)
    scores = [name for name in _VALIDATION if any(name in history for history in histories.values())]
    with mpl.rc_context(RC):
        figure, panels = new_figure(10.4, 3.5, len(scores) + 1)
        *of_scores, of_losses = panels
        named: set[str] = set()
        for run, history in histories.items():
            architecture = run.rpartition("-")[0]
            score = validation_score(history)
            look = (palette[architecture], markers(palette)[architecture])
            label = None if architecture in named else titles.get(architecture, architecture)
            named.add(architecture)
            _draw_history(of_scores[scores.index(score)], of_losses, history, score, look, label)
        for axes, score in zip(of_scores, scores, strict=True):
            axes.set_title(_VALIDATION[score])
            axes.yaxis.set_major_formatter(PERCENT)
            # PQ may stay near 0 for long, or rise late
            axes.legend(loc="lower right" if scores == ["val_iou"] else "best")
        of_losses.set_title("Loss: validation (strong), training (pale)")
        of_losses.set_ylim(bottom=0)
        for axes in panels:
            axes.set_xlabel("training step")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def _draw_history(
    of_scores: Axes,
    of_losses: Axes,
    history: pd.DataFrame,
    score: str,
    look: tuple[str, str],
    label: str | None,
) -> None:
    """One run in the panels of its score and of the losses; `look` is colour and marker."""
    colour, shape = look
    seen = history.dropna(subset=[score])
    of_scores.plot(seen["step"], seen[score], color=colour, linewidth=1.8, label=label)
    best = seen[seen["best"].astype(bool)].tail(1)
    of_scores.plot(best["step"], best[score], shape, color=colour, markersize=8, markeredgecolor=PAPER)
    trained = history.dropna(subset=["train_loss"])
    # a line of one point would be invisible
    dot = shape if len(history) == 1 else None
    of_losses.plot(trained["step"], trained["train_loss"], color=colour, linewidth=1, alpha=0.45, marker=dot)
    of_losses.plot(seen["step"], seen["val_loss"], color=colour, linewidth=1.8, marker=dot)


def row_width(panels: int) -> float:
    """Width in inches of a row of panels; one or two are as wide as each of three."""
    return 10.4 * min(3, panels) / 3


def confusion_matrices(confusions: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Confusion matrices in per cent of each true class, one panel per architecture.

    Args:
        confusions: architecture -> pixel counts, index = truth, columns = prediction.
        titles: architecture -> printed name.
    """
    palette = colours(confusions)
    classes = len(next(iter(confusions.values()))) if confusions else 0
    with mpl.rc_context(RC | {"axes.grid": False}):
        side = 2.6 if classes <= 3 else 3.6
        panel_count = max(1, len(confusions))
        figure, panels = new_figure(row_width(panel_count), side, panel_count)
        for axes, (name, table) in zip(panels, confusions.items(), strict=False):
            counts = table.to_numpy(dtype=float)
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            for (i, j), value in np.ndenumerate(share):
                cell = mpl.patches.Rectangle(
                    (j - 0.48, i - 0.48), 0.96, 0.96, color=palette[name], alpha=0.06 + 0.6 * value, lw=0
                )
                axes.add_patch(cell)
                axes.text(
                    j, i, f"{value * 100:.1f}", ha="center", va="center", fontsize=10 if classes <= 3 else 8
                )
            axes.set_xlim(-0.5, classes - 0.5)
            axes.set_ylim(classes - 0.5, -0.5)
            axes.set_xticks(range(classes), table.columns, rotation=0 if classes <= 4 else 40)
            axes.set_yticks(range(classes), table.index, rotation=90 if classes <= 3 else 0, va="center")
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_title(titles.get(name, name))
            axes.set_xlabel("predicted")
        panels[0].set_ylabel("truth")
    return figure
