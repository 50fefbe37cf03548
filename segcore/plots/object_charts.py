"""Charts of objects: F1 by IoU threshold, counts per cluster, recall by size, and the object scores in bars."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segcore.comparison.results import Comparison, LeaderboardRow, Score
from segcore.plots.charts import PERCENT, grouped_bars
from segcore.plots.object_status import EvaluatedObjects, found_by_size, size_bins
from segcore.plots.palette import HUMAN, MUTED, PAPER, colours, markers
from segcore.plots.style import RC, new_figure

THRESHOLDS = tuple(range(50, 100, 5))
# a limit of at least this score does not bind, and is not drawn
BINDING = 0.995
_LIMIT_LINE, _HUMAN_LINE = (0, (5, 3)), (0, (1, 1.6))
_PANELS = 4


def limits(comparison: Comparison) -> list[LeaderboardRow]:
    """Rows of limits of the leaderboard: connected components of perfect masks."""
    return [row for row in comparison.leaderboard if row.kind == "limit"]


def binds(comparison: Comparison) -> bool:
    """Whether components of perfect masks score below 1, so that a line is drawn for them."""
    scores = [row.scores.get(f1_key(t)) for row in limits(comparison) for t in THRESHOLDS]
    return any(score is not None and score.estimate < BINDING for score in scores)


def f1_key(threshold: int) -> str:
    """Score key of F1 at an IoU threshold in per cent."""
    return f"f1_{threshold}/dataset/foreground_mean"


def f1_by_threshold(
    scores: Mapping[str, Mapping[str, Score]],
    titles: Mapping[str, str],
    limit: tuple[str, Mapping[str, Score]] | None = None,
    human: tuple[str, Mapping[str, Score]] | None = None,
) -> Figure:
    """F1 against the IoU from which an object counts as found; bands are intervals.

    Args:
        scores: architecture -> scores by key.
        titles: architecture -> printed name.
        limit: printed name and scores of the limit of components; drawn where it binds.
        human: printed name and scores of an annotator.
    """
    palette, shapes = colours(scores), markers(scores)
    with mpl.rc_context(RC):
        figure, (axes,) = new_figure(5.1, 3.9 + 0.09 * len(scores))
        for name, by_key in scores.items():
            places, values, low, high = _curve(by_key)
            axes.plot(
                places, values, color=palette[name], marker=shapes[name], markeredgecolor=PAPER,
                linewidth=1.8, markersize=5.5, label=titles.get(name, name),
            )  # fmt: skip
            # more bands than three hide each other; from one cluster they would be the whole range
            if len(scores) <= 3 and (max(low, default=0) > 0 or min(high, default=1) < 1):
                axes.fill_between(places, low, high, color=palette[name], alpha=0.09, linewidth=0)
        for row, colour, style in ((limit, MUTED, _LIMIT_LINE), (human, HUMAN, _HUMAN_LINE)):
            if row is None:
                continue
            places, values, _, _ = _curve(row[1])
            if values and (row is human or min(values) < BINDING):
                axes.plot(places, values, color=colour, linestyle=style, linewidth=1.5, label=row[0])
        axes.set_xlim(0.485, 0.965)
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_xlabel("IoU from which an object counts as found (%)")
        axes.set_ylabel("F1 of objects (%)")
        figure.legend(loc="outside upper left", ncols=_columns(axes))
    return figure


def _columns(axes: Axes) -> int:
    """Columns of a legend that is about as wide as the figure."""
    widest = max((len(str(line.get_label())) for line in axes.lines), default=1)
    return max(1, min(3, 72 // (widest + 7)))


def _curve(scores: Mapping[str, Score]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Thresholds, estimates and ends of their intervals; the ends are empty where one is missing."""
    known = [(t / 100, scores[f1_key(t)]) for t in THRESHOLDS if f1_key(t) in scores]
    whole = all(score.low is not None and score.high is not None for _, score in known)
    low, high = ([getattr(score, end) for _, score in known] if whole else [] for end in ("low", "high"))
    return [t for t, _ in known], [score.estimate for _, score in known], low, high


def _grid(panels: int, side: float, extra: float, shared: bool) -> tuple[Figure, list[Axes]]:
    """A figure with up to four panels per row, each about `side` inches square and `extra` higher."""
    columns = min(_PANELS, max(1, panels))
    rows = -(-max(1, panels) // columns)
    size = (max(side * columns, 3.2), (side + extra) * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel())
    for unused in axes[panels:]:
        unused.set_axis_off()
    return figure, axes[:panels]


def counts_by_cluster(runs: Mapping[str, EvaluatedObjects], titles: Mapping[str, str]) -> Figure:
    """Predicted against true number of objects, one dot per cluster and one panel per architecture.

    Args:
        runs: by architecture.
        titles: architecture -> printed name.
    """
    counts = {name: run.counts for name, run in runs.items()}
    palette = colours(counts)
    most = max((int(table.to_numpy().max(initial=0)) for table in counts.values()), default=0)
    reach = max(1.0, most * 1.06)
    with mpl.rc_context(RC):
        figure, panels = _grid(len(counts), 2.6, 0.4, shared=True)
        for number, (axes, (name, table)) in enumerate(zip(panels, counts.items(), strict=True)):
            axes.plot([0, reach], [0, reach], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axes.scatter(
                table["true"], table["predicted"], s=26, color=palette[name], alpha=0.6, linewidth=0, zorder=3
            )
            axes.set_xlim(-reach * 0.02, reach)
            axes.set_ylim(-reach * 0.02, reach)
            axes.set_box_aspect(1)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.set_title(titles.get(name, name))
            axes.set_xlabel("true number of objects")
            if number % _PANELS == 0:
                axes.set_ylabel("predicted")
    return figure


def recall_by_size(runs: Mapping[str, EvaluatedObjects], titles: Mapping[str, str]) -> Figure | None:
    """Share of the true objects found in bins of their area, with the number of objects of each bin; None without any.

    Args:
        runs: by architecture.
        titles: architecture -> printed name.
    """
    truths = next(iter(runs.values())).status[0]
    ends = size_bins(truths.loc[truths["counted"], "area"].to_numpy())
    if not len(ends):
        return None
    sizes = {name: found_by_size(run.status[0], ends) for name, run in runs.items()}
    objects, found = next(iter(sizes.values()))[0], {name: hits for name, (_, hits) in sizes.items()}
    palette, shapes = colours(found), markers(found)
    bins = np.arange(len(objects))
    # markers of equal values are side by side
    aside = np.linspace(-0.5, 0.5, len(found) + 2)[1:-1] * min(1.0, 0.16 * len(found))
    with mpl.rc_context(RC):
        figure, (axes,) = new_figure(5.1, 3.3 + 0.07 * len(found))
        for (name, hits), shift in zip(found.items(), aside, strict=True):
            axes.plot(
                bins + shift, hits / np.maximum(objects, 1), color=palette[name], marker=shapes[name],
                markeredgecolor=PAPER, linewidth=1.8, markersize=5.5, label=titles.get(name, name),
            )  # fmt: skip
        labels = [f"{_span(*pair)}\n{count:,}" for pair, count in zip(_pairs(ends), objects, strict=True)]
        axes.set_xticks(bins, labels, fontsize=8)
        axes.set_xlim(-0.5, len(objects) - 0.5)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PERCENT)
        axes.set_ylabel("found (%)")
        axes.set_xlabel("area of the true object (px), number of objects")
        figure.legend(loc="outside upper left", ncols=_columns(axes))
    return figure


def _pairs(ends: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b) - 1) for a, b in pairwise(ends)]


def _span(first: int, last: int) -> str:
    """Areas of a bin, such as "12–45"."""
    return f"{first}–{last}" if last > first else f"{first}"


def object_bars(comparison: Comparison, keys: Mapping[str, str]) -> Figure:
    """Object scores of every architecture in bars, with the limit of components as a line where it binds.

    Args:
        comparison: what was compared.
        keys: score key in "%" -> label.
    """
    figure = grouped_bars(comparison, keys)
    shown = [key for key in keys if any(key in row.scores for row in comparison.models)]
    axes = figure.axes[0]
    for text in axes.texts:
        # above a line that crosses it
        text.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 1})
    for row in limits(comparison):
        for at, key in enumerate(shown):
            score = row.scores.get(key)
            if score and score.estimate < BINDING:
                ends = ([score.estimate] * 2, [at - 0.47, at + 0.47])
                axes.plot(*ends, color=MUTED, linestyle=_LIMIT_LINE, linewidth=1.5)
    return figure


def of_kind(comparison: Comparison, kind: str) -> tuple[str, Mapping[str, Score]] | None:
    """Printed name and scores of the first row of a kind of the leaderboard, or None."""
    row: Sequence[LeaderboardRow] = [row for row in comparison.leaderboard if row.kind == kind]
    return (row[0].title, row[0].scores) if row else None
