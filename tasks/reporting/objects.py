"""Section of the report on objects: charts, counts, operating scores, and the gallery of outlines."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from segcore.comparison.objects import limit_note, lines, method_note, score_text, truth_note
from segcore.comparison.results import Comparison
from segcore.metrics import METRICS
from segcore.objects.count_interval import LEVEL
from segcore.plots import object_charts, object_gallery
from segcore.plots.object_gallery import STATUS_COLOURS, WORDS, ObjectCase
from segcore.plots.object_status import EvaluatedObjects
from segcore.plots.palette import colours
from segcore.plots.pictures import data_uri
from tasks.formatting import percent, points, score
from tasks.reporting.inputs import Inputs

# metrics of the bars, in their order; of more architectures than _MANY, only the first three
_MANY = 4
_BARS = ("pq", "f1_50", "ap", "ap_dsb", "aji")
_OPERATING = ("precision", "recall", "count_bias")
# width of the gallery and least width of its columns on the page, in pixels
_PAGE, _CELL = 1040, 150
# the counts of more classes than this are only in the table
_CLASSES = 3


def object_runs(inputs: Inputs) -> dict[str, EvaluatedObjects]:
    """Objects of the first seed of each architecture, in leaderboard order; empty for data without objects."""
    return {
        name: EvaluatedObjects(run.objects, run.summary["objects"]["score"], run.predictions)
        for name, run in inputs.first_runs.items()
        if run.objects is not None
    }


def object_figures(inputs: Inputs, runs: Mapping[str, EvaluatedObjects]) -> dict[str, Figure]:
    """Charts of objects by name; empty for data without objects."""
    if inputs.comparison.objects is None:
        return {}
    comparison, titles = inputs.comparison, inputs.titles
    shown = _BARS if len(comparison.models) <= _MANY else _BARS[:3]
    bars = {f"{name}/dataset/foreground_mean": METRICS[name].heading for name in shown}
    scores = {row.architecture: row.scores for row in comparison.models}
    limit, human = (object_charts.of_kind(comparison, kind) for kind in ("limit", "human"))
    figures = {
        "object_scores": object_charts.object_bars(comparison, bars),
        "object_f1": object_charts.f1_by_threshold(scores, titles, limit, human),
    }
    if not runs:
        return figures
    figures["object_counts"] = object_charts.counts_by_cluster(runs, titles)
    sizes = object_charts.recall_by_size(runs, titles)
    return figures | ({"object_sizes": sizes} if sizes else {})


def object_cases(inputs: Inputs, runs: Mapping[str, EvaluatedObjects]) -> list[ObjectCase]:
    """Best, typical and worst test images by F1 of objects, mean of the architectures, and the one with most merges."""
    if not runs:
        return []
    kept = set.intersection(*(run.kept for run in runs.values()))
    f1 = pd.DataFrame({name: run.f1 for name, run in runs.items()}).mean(axis=1)
    merged = pd.DataFrame({name: run.merged for name, run in runs.items()}).sum(axis=1)
    picked = object_gallery.pick_object_cases(f1[f1.index.isin(kept)], merged, inputs.params.report.cases)
    return [object_gallery.object_case(inputs.prepared, item, kind, runs) for kind, item in picked]


def objects_view(inputs: Inputs, cases: list[ObjectCase]) -> dict[str, Any] | None:
    """Content of the section besides its charts; None for data without objects."""
    text = objects_text(inputs.comparison)
    if text is None:
        return None
    cells = len(cases) * (2 + len(inputs.titles))
    side = 640 if cells <= 24 else 480 if cells <= 48 else 320
    return text | {
        "gallery": [_case(inputs, case, side) for case in cases],
        "legend": [(status, WORDS[status], colour) for status, colour in STATUS_COLOURS.items()],
    }


def _case(inputs: Inputs, case: ObjectCase, side: int) -> dict[str, Any]:
    """One case: per column the whole picture and the detail, and what became of the objects."""
    window = object_gallery.detail_of(case)
    width = max(_CELL, _PAGE / (2 + len(case.outcomes)))
    whole = object_gallery.case_columns(case, side, width, frame=window)
    detail = object_gallery.case_columns(case, side, width, window)
    titles = {"image": "Image", "truth": "Truth"} | inputs.titles
    columns = [
        {
            "title": titles[name],
            "whole": data_uri(picture, side),
            "detail": data_uri(detail[name], side),
            **_outcome(case, name),
        }
        for name, picture in whole.items()
    ]
    mean = sum(one.f1 for one in case.outcomes.values()) / len(case.outcomes)
    true = sum(case.required.values())
    return {
        "kind": case.kind, "item": case.item, "columns": columns, "mean": mean, "true": true,
        "others": len(case.required) - true,
    }  # fmt: skip


def _outcome(case: ObjectCase, name: str) -> dict[str, Any]:
    """F1 of a picture, and the number of objects of each status that has any."""
    outcome = case.outcomes.get(name)
    if outcome is None:
        return {"f1": None, "words": "", "counts": []}
    counts = {status: number for status, number in outcome.counts(case.required).items() if number}
    words = ", ".join(f"{number} {WORDS[status]}" for status, number in counts.items())
    return {
        "f1": outcome.f1,
        "words": f", F1 {percent(outcome.f1)} %: {words}",
        "counts": [(WORDS[status], number, STATUS_COLOURS[status]) for status, number in counts.items()],
    }


def objects_text(comparison: Comparison) -> dict[str, Any] | None:
    """Sentences and tables that depend on the comparison only; None for data without objects."""
    objects, best = comparison.objects, comparison.models[0].architecture
    if objects is None:
        return None
    sentences = lines(comparison)
    lead = [note(comparison.leaderboard, objects) for note in (limit_note, method_note)]
    if len(objects.counts[best]) <= _CLASSES:
        lead.append(sentences[0])
    return {
        "lead": " ".join(filter(None, lead)),
        "sentences": sentences[:-1],
        "policy": sentences[-1],
        "truth": truth_note(objects),
        "counts": _counts(comparison),
        "count_level": f"{100 * LEVEL:g} %",
        "operating": _operating(comparison),
        "limit_binds": object_charts.binds(comparison),
    }


def _ends(count: Mapping[str, Any]) -> str:
    if count["low"] is None or count["high"] is None:
        return ""
    return f"{count['low']:,.0f} to {count['high']:,.0f}"


def _counts(comparison: Comparison) -> dict[str, Any]:
    """Table of counts: one row per class, one cell per architecture."""
    objects, palette = comparison.objects, colours(row.architecture for row in comparison.models)
    assert objects is not None
    models = [row for row in comparison.models if row.architecture in objects.counts]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for row in models for name in objects.counts[row.architecture]):
        cells = [objects.counts[row.architecture].get(name) for row in models]
        true = next(cell["true"] for cell in cells if cell) or 0
        shown = [
            {"predicted": f"{cell['predicted']:,.0f}", "interval": _ends(cell)} if cell else None
            for cell in cells
        ]
        rows.append({"name": name, "true": f"{true:,.0f}", "cells": shown})
    heads = [(row.title, palette[row.architecture][1:]) for row in models]
    has_intervals = any(cell and cell["interval"] for row in rows for cell in row["cells"])
    return {"heads": heads, "rows": rows, "has_intervals": has_intervals}


def _operating(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per architecture: its operating score, and precision, recall and count bias on test and validation."""
    objects, palette = comparison.objects, colours(row.architecture for row in comparison.models)
    assert objects is not None
    rows = []
    for row in comparison.models:
        chosen = objects.operating.get(row.architecture)
        if chosen is None:
            continue
        cells = []
        # of all classes together, as on the validation split; scores of the leaderboard are means of the classes
        test = objects.pooled.get(row.architecture, {})
        for name in _OPERATING:
            write = _signed if name == "count_bias" else score
            cells.append({"test": write(test.get(name)), "validation": write(chosen[name])})
        colour, shown = palette[row.architecture][1:], score_text(chosen["score"]) or "–"
        rows.append({"title": row.title, "colour": colour, "score": shown, "cells": cells})
    return rows


def _signed(value: float | None) -> str:
    return "–" if value is None else points(value)
