"""The leaderboard as a terminal table and as Markdown; every column says what it is a mean of."""

from collections.abc import Mapping, Sequence
from typing import Any

METRIC_TITLES = {
    "iou": "IoU",
    "dice": "Dice",
    "precision": "precision",
    "recall": "recall",
    "boundary_f1": "boundary F1",
}
METRICS = {key: title[0].upper() + title[1:] for key, title in METRIC_TITLES.items()}  # as a head
_NONE = "-"


def models_of(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The leaderboard's rows that are networks, in their order."""
    return [row for row in comparison["leaderboard"] if row["kind"] == "model"]


def leaderboard_text(
    comparison: Mapping[str, Any], costs: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Scores and sizes as aligned tables for a terminal, ended by the verdict.

    Args:
        comparison: content of comparison.json.
        costs: architecture -> content of a costs file; without it no timings are shown.
    """
    sizes = _sizes(comparison, costs)
    parts = [
        _caption(comparison),
        _aligned(_scores(comparison)),
        *([_aligned(sizes)] if len(sizes) > 1 else []),
    ]
    return "\n\n".join([*parts, "\n".join([comparison["verdict"], *comparison["notes"]])]) + "\n"


def leaderboard_markdown(
    comparison: Mapping[str, Any], costs: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """The same tables in Markdown, without the verdict."""
    tables = [t for t in (_scores(comparison), _sizes(comparison, costs)) if len(t) > 1]
    return "\n\n".join([_caption(comparison), *(_markdown(table) for table in tables)]) + "\n"


def _caption(comparison: Mapping[str, Any]) -> str:
    kind, clusters, seeds = comparison["cluster_kind"], comparison["clusters"], len(comparison["seeds"])
    held_out = f"{clusters} {'test ' * (kind == 'block')}{kind}{'s' * (clusters != 1)}"
    if kind != "block":
        held_out = f"{comparison['test_images']} test images in {held_out}"
    return (
        f"{comparison['dataset']}: {held_out}, {seeds} seed{'' if seeds == 1 else 's'}; "
        f"scores in %, [{100 * comparison['confidence']:g} % interval].\n"
        "dataset: pixels of all images pooled; image: mean of images; foreground or all classes: their mean."
    )


def _scores(comparison: Mapping[str, Any]) -> list[list[str]]:
    metric = comparison["metric"]
    others = [name for name in METRIC_TITLES if name != metric]
    title = METRIC_TITLES[metric]
    columns = {
        f"{title} dataset, all classes": f"{metric}/dataset/all_mean",
        f"{title} image, foreground": f"{metric}/image/foreground_mean",
        **{
            f"{METRIC_TITLES[name]} dataset, foreground": f"{name}/dataset/foreground_mean" for name in others
        },
        "pixel accuracy dataset": "pixel_accuracy/dataset",
    }
    rows = [["rank", "architecture", f"{title} dataset, foreground", *columns, "seeds"]]
    for row in comparison["leaderboard"]:
        headline = row["scores"][comparison["headline"]]
        name = row["title"] if row["kind"] == "model" else f"{row['title']} (human)"
        shown = f"{_percent(headline)} [{100 * headline['low']:.1f}, {100 * headline['high']:.1f}]"
        scores = [_percent(row["scores"].get(key)) for key in columns.values()]
        rows.append(
            [_NONE if row["rank"] is None else str(row["rank"]), name, shown, *scores, str(row["seeds"])]
        )
    return rows


def _sizes(comparison: Mapping[str, Any], costs: Mapping[str, Mapping[str, Any]] | None) -> list[list[str]]:
    header = ["architecture", "parameters (M)", "GMACs (256x256)", "receptive field (px)"]
    rows = [header + (["ms/megapixel", "training (min)"] if costs else [])]
    for row in comparison["leaderboard"]:
        summary = row["summary"]
        if summary is None:
            continue
        field = f"{summary['receptive_field']}{' + global' if summary.get('global_context') else ''}"
        cells = [row["title"], f"{summary['parameters'] / 1e6:.2f}", f"{summary['macs'] / 1e9:.2f}", field]
        if costs:
            cost = costs.get(row["architecture"]) or {}
            cells += [_number(cost.get("ms_per_megapixel"), 1), _number(cost.get("train_seconds"), 60)]
        rows.append(cells)
    return rows


def _percent(score: Mapping[str, float] | None) -> str:
    return _NONE if score is None else f"{100 * score['estimate']:.1f}"


def _number(value: float | None, unit: float) -> str:
    return _NONE if value is None else f"{value / unit:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as need be; a header takes a line for each of its words."""
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
