"""The leaderboard, computed once from a comparison and rendered in several formats.

`leaderboard` returns columns and rows. Text for terminals and Markdown is rendered here; CSV, HTML and tables of
trackers are made from its `records`. A new column is one more `Column`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from segcore.comparison.annotators import lines as annotator_lines
from segcore.comparison.folds import words
from segcore.comparison.objects import lines
from segcore.comparison.results import Comparison, LeaderboardRow, Score
from segcore.comparison.slices import worst_slice
from segcore.comparison.surfaces import lines as surface_lines
from segcore.comparison.text import duration_text, interval_text, value_text
from segcore.comparison.timing import Timing, finding_notes, timing, timing_notes
from segcore.metrics import METRICS, Metric, class_metrics, score_title, unit_of

Value = str | float | Score | Timing | None
# content of a costs file
Cost = Mapping[str, Any]
NONE = "-"
# metrics of objects that have a column, with their intervals; the others are in CSV files and trackers
_OBJECT_COLUMNS = ("pq", "f1_50", "ap", "count_error")
# on a terminal, in place of all definitions
_OBJECTS = (
    "Objects are right above an IoU of .5; the report and scores.md have all definitions of object scores."
)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: name of the column in CSV files and trackers.
        title: heading; states what a score is a mean of.
        unit: unit of the shown value.
        part: the table it belongs to: "scores", "sizes" or "costs" (of this machine); "name" is in all of them,
            "detail" only in CSV files, trackers and the report's list of all scores.
        value: function of a row and the architecture's costs that returns the cell's value, or None.
        show: formats a value that is not None, without its unit.
        short: shorter heading for the report, whose caption states the rest.
        below: key of the column under whose value the report shows this one in small type.
    """

    key: str
    title: str
    unit: str
    part: Literal["name", "scores", "sizes", "costs", "detail"]
    value: Callable[[LeaderboardRow, Cost], Value]
    show: Callable[[Any], str] = str
    short: str = ""
    below: str | None = None

    @property
    def heading(self) -> str:
        """Title and unit; per cent is left out, because the caption states it."""
        return self.title if self.unit in ("", "%") else f"{self.title} ({self.unit})"


@dataclass(frozen=True)
class Leaderboard:
    """Columns, and for each row of the comparison one value per column."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[LeaderboardRow, ...]
    values: tuple[tuple[Value, ...], ...]

    def records(self, intervals: bool = False) -> list[dict[str, str | float | None]]:
        """Rows as plain values by column key; with `intervals` also "<key> low", "<key> high" and "<key> seed_std"."""
        records = []
        for values in self.values:
            record: dict[str, str | float | None] = {}
            for column, value in zip(self.columns, values, strict=True):
                if not isinstance(value, Score | Timing):
                    record[column.key] = value
                    continue
                record[column.key] = value.estimate
                for part in ("low", "high", "seed_std") if intervals else ():
                    record[f"{column.key} {part}"] = getattr(value, part, None)
            records.append(record)
        return records

    def table(self, *parts: str) -> list[list[str]]:
        """Headings and cells as text; rows without a value in these parts are left out."""
        shown = [(i, c) for i, c in enumerate(self.columns) if c.part in (*parts, "name")]
        rows = [[column.heading for _, column in shown]]
        for row, values in zip(self.rows, self.values, strict=True):
            if any(values[i] is not None for i, column in shown if column.part != "name"):
                cells = [NONE if values[i] is None else column.show(values[i]) for i, column in shown]
                human = " (human)" if row.kind == "human" else ""
                rows.append([c + human * (s.part == "name") for c, (_, s) in zip(cells, shown, strict=True)])
        return rows


def leaderboard(comparison: Comparison, costs: Mapping[str, Cost | None] | None = None) -> Leaderboard:
    """The leaderboard of a comparison.

    Args:
        comparison: what was compared.
        costs: architecture -> content of a costs file; without it there are no cost columns.
    """
    columns = [c for c in _columns(comparison) if costs or c.part != "costs"]
    rows = tuple(comparison.leaderboard)
    values = tuple(
        tuple(column.value(row, (costs or {}).get(row.architecture) or {}) for column in columns)
        for row in rows
    )
    return Leaderboard(_caption(comparison), tuple(columns), rows, values)


def _columns(comparison: Comparison) -> list[Column]:
    """All columns in their order; scores that are in no table are "detail"."""
    shown = _shown_scores(comparison)
    score_keys = dict.fromkeys(key for row in comparison.leaderboard for key in row.scores)
    return [
        Column("rank", "rank", "", "scores", lambda row, _: row.rank),
        Column("title", "architecture", "", "name", lambda row, _: row.title),
        Column("architecture", "key", "", "detail", lambda row, _: row.architecture),
        Column("kind", "kind", "", "detail", lambda row, _: row.kind),
        *([_NETWORK] if _has_instance_networks(comparison) else []),
        *shown,
        Column("seeds", "rounds" if comparison.folds else "seeds", "", "scores", lambda row, _: row.seeds),
        *COLUMNS,
        *(_score_column(key) for key in score_keys if key not in {column.key for column in shown}),
    ]


def _shown_scores(comparison: Comparison) -> list[Column]:
    """The headline with its interval, the same metric's other means, and the other metrics."""
    ranking = METRICS[comparison.metric]
    columns = [_foreground_column(ranking, with_interval=True)]
    if not ranking.of_foreground:
        title = f"{ranking.title} dataset, all classes"
        columns.append(_score_column(f"{ranking.name}/dataset/all_mean", title, "All classes"))
    per_image = f"{ranking.name}/image/foreground_mean"
    columns.append(_score_column(per_image, f"{ranking.title} image, foreground", "Per image"))
    others = [metric for metric in class_metrics("counts").values() if metric is not ranking]
    columns += [_foreground_column(metric) for metric in others]
    accuracy = _score_column("pixel_accuracy/dataset", "pixel accuracy dataset", "accuracy")
    columns.append(replace(accuracy, below=columns[1].key))
    if any("pq/dataset/foreground_mean" in row.scores for row in comparison.leaderboard):
        shown = [METRICS[name] for name in _OBJECT_COLUMNS if name != ranking.name]
        columns += [_foreground_column(metric, with_interval=True) for metric in shown]
    if comparison.surfaces is not None:
        shown = [metric for metric in class_metrics("surfaces").values() if metric is not ranking]
        columns += [_foreground_column(metric, with_interval=True) for metric in shown]
    return columns


def _foreground_column(metric: Metric, with_interval: bool = False) -> Column:
    """Column of a metric's pooled foreground mean."""
    unit = metric.unit
    return _score_column(
        f"{metric.name}/dataset/foreground_mean",
        f"{metric.title} dataset, foreground",
        metric.heading,
        (lambda s: f"{value_text(s.estimate, unit)} [{interval_text(s.low, s.high, unit, between=', ')}]")
        if with_interval
        else None,
    )


def _score_column(
    key: str, title: str = "", short: str = "", show: Callable[[Score], str] | None = None
) -> Column:
    """Column of a score; without a title its part is "detail"."""
    unit = unit_of(key)
    part: Literal["scores", "detail"] = "scores" if title else "detail"
    text = show or (lambda score: value_text(score.estimate, unit))
    return Column(key, title or score_title(key), unit, part, lambda row, _: row.scores.get(key), text, short)


def _summary(key: str) -> Callable[[LeaderboardRow, Cost], Value]:
    return lambda row, _: None if row.summary is None else row.summary[key]


def _cost(key: str) -> Callable[[LeaderboardRow, Cost], Value]:
    return lambda _, cost: cost.get(key)


def _receptive_field(row: LeaderboardRow, _: Cost) -> str | None:
    if row.summary is None:
        return None
    return f"{row.summary['receptive_field']}{' + global' if row.summary.get('global_context') else ''}"


def network_kind(row: LeaderboardRow) -> str | None:
    """Kind of a network, and how its objects are found, such as "semantic, watershed"; None for a human or a limit."""
    if row.summary is None:
        return None
    if row.summary.get("kind") == "instance":
        return "instance, own objects"
    method = row.summary.get("objects", {}).get("method")
    return f"semantic, {method}" if method else "semantic"


def _has_instance_networks(comparison: Comparison) -> bool:
    return any((row.summary or {}).get("kind") == "instance" for row in comparison.models)


def _tiles_per_second(_: LeaderboardRow, cost: Cost) -> float | None:
    return 1000 * cost["latency_batch"] / cost["latency_ms"] if cost.get("latency_ms") else None


_NETWORK = Column("network", "network", "", "scores", lambda row, _: network_kind(row))

# Columns other than scores: the size of a network, and its costs on this machine.
COLUMNS: list[Column] = [
    Column(
        "parameters", "parameters", "M", "sizes", _summary("parameters"), lambda n: f"{n / 1e6:.2f}",
        short="Parameters (M)",
    ),
    Column(
        "macs", "GMACs", "256x256", "sizes", _summary("macs"), lambda n: f"{n / 1e9:.2f}",
        short="GMACs", below="parameters",
    ),
    Column(
        "receptive_field", "receptive field", "px", "sizes", _receptive_field, short="Receptive field (px)"
    ),
    Column(
        "ms_per_megapixel", "time", "ms/megapixel", "costs", lambda _, cost: timing(cost), short="ms / Mpx",
    ),
    Column(
        "tiles_per_second", "tiles", "1/s", "costs", _tiles_per_second, lambda n: f"{n:.1f}",
        short="tiles / s", below="ms_per_megapixel",
    ),
    Column(
        "train_seconds", "training", "", "costs", _cost("train_seconds"), duration_text, short="Training"
    ),
    Column(
        "peak_memory_mb", "memory", "MB", "costs", _cost("peak_memory_mb"), lambda n: f"{n:,.0f}",
        short="MB", below="train_seconds",
    ),
]  # fmt: skip


def leaderboard_text(comparison: Comparison, costs: Mapping[str, Cost | None] | None = None) -> str:
    """Scores and sizes as aligned tables for a terminal, followed by the verdict, the worst slice and notes.

    Args:
        comparison: what was compared.
        costs: architecture -> content of a costs file; without it there are no timings.
    """
    board = leaderboard(comparison, costs)
    parts = [board.caption, *(_aligned(table) for table in _tables(board))]
    sentences = [comparison.verdict, *filter(None, [worst_slice(comparison)]), *comparison.notes]
    sentences += [_OBJECTS if line.startswith("Objects: ") else line for line in lines(comparison)]
    sentences += [*surface_lines(comparison), *annotator_lines(comparison)]
    sentences += timing_notes(costs or {}, comparison.titles)
    sentences += finding_notes(costs or {}, comparison)
    return "\n\n".join([*parts, "\n".join(sentences)]) + "\n"


def leaderboard_markdown(comparison: Comparison, costs: Mapping[str, Cost | None] | None = None) -> str:
    """The same tables in Markdown, without the verdict."""
    board = leaderboard(comparison, costs)
    return "\n\n".join([board.caption, *(_markdown(table) for table in _tables(board))]) + "\n"


def _tables(board: Leaderboard) -> list[list[list[str]]]:
    return [table for table in (board.table("scores"), board.table("sizes", "costs")) if len(table) > 1]


def _caption(comparison: Comparison) -> str:
    kind, clusters, seeds = comparison.cluster_kind, comparison.clusters, comparison.rounds
    trained = f"{seeds} seed{'' if seeds == 1 else 's'}"
    if comparison.folds:
        trained = words(comparison.folds, seeds)
    held_out = f"{clusters} {'test ' * (kind == 'block')}{kind}{'s' * (clusters != 1)}"
    if kind != "block":
        held_out = f"{comparison.test_images} test images in {held_out}"
    pooled = "pixels" if comparison.objects is None else "pixels or objects"
    surfaces = "" if comparison.surfaces is None else " (HD95, NSD, ASSD: of groups or volumes)"
    return (
        f"{comparison.dataset}: {held_out}, {trained}; "
        f"scores in %, [{100 * comparison.confidence:g} % interval].\n"
        f"dataset: {pooled} of all images pooled; image: mean of images{surfaces}; foreground or all classes: their "
        "mean."
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; headings with one word per line."""
    stacked = [title.replace(",", "").split(" ") for title in rows[0]]
    height = max(map(len, stacked))
    header = [[words[line] if line < len(words) else "" for words in stacked] for line in range(height)]
    lines = [*header, *rows[1:]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(rows[0]))]
    text = []
    for number, line in enumerate(lines):
        if number == height:
            text.append("  ".join("-" * width for width in widths))
        cells = [
            cell.ljust(width) if rows[0][i] == "architecture" else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    rule = [":---" if title == "architecture" else "---:" for title in rows[0]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [rows[0], rule, *rows[1:]])
