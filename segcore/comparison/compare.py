"""From evaluation tables to a verdict: intervals, ranks, paired tests, and what they do not say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from segcore.comparison.leaderboard import METRIC_TITLES, leaderboard_markdown, leaderboard_text
from segcore.comparison.statistics import (
    ClusterSums,
    bootstrap,
    cluster_sums,
    holm,
    interval,
    permutation_test,
    require_same,
    seed_scores,
    smallest_p,
)
from segcore.metrics.pixel import EMPTY_POLICY
from segcore.params import Params

__all__ = ["Contestant", "compare", "leaderboard_markdown", "leaderboard_text"]

FEW_CLUSTERS = 10


@dataclass(frozen=True)
class Contestant:
    """What is ranked: an architecture with one evaluation table a seed, or a human with one."""

    name: str
    title: str
    kind: str  # "model" or "human"
    tables: Sequence[pd.DataFrame]
    summaries: Sequence[Mapping[str, Any]] = ()  # one a seed; none for a human


@dataclass(frozen=True)
class _ScoredContestant:
    who: Contestant
    runs: list[ClusterSums]
    estimates: dict[str, np.ndarray]  # score key -> (S,)
    draws: dict[str, np.ndarray]  # score key -> (B,)


def compare(contestants: Sequence[Contestant], p: Params, cluster_kind: str) -> dict[str, Any]:
    """Rank models on pooled foreground scores, test all pairs, and word the verdict.

    Args:
        contestants: models and humans, all on the same test images.
        p: parameters; `compare`, `data`, `seeds` and the training settings are used.
        cluster_kind: "block" or "group", what intervals and tests draw as a whole.

    Returns:
        The content of comparison.json, numbers rounded to 6 decimals; scores lie in [0, 1].

    Raises:
        DataError: the tables are not whole or not of the same images.
    """
    headline = f"{p.compare.metric}/dataset/foreground_mean"
    scored = [_score(c, p) for c in contestants]
    require_same([run for s in scored for run in s.runs])
    first = scored[0].runs[0]
    models = sorted((s for s in scored if s.who.kind == "model"), key=lambda s: -_estimate(s, headline))
    humans = [s for s in scored if s.who.kind == "human"]
    tests = _tests(models, headline, p)
    differences = _differing_settings([s.who for s in models], p)
    result = {
        "dataset": p.data.name,
        "metric": p.compare.metric,
        "headline": headline,
        "classes": p.data.classes,
        "colors": [list(color) for color in p.data.colors],
        "test_images": len(first.items),
        "clusters": len(first.clusters),
        "cluster_kind": cluster_kind,
        "seeds": p.seeds,
        "confidence": p.compare.confidence,
        "bootstrap": p.compare.bootstrap,
        "empty_policy": EMPTY_POLICY,
        "verdict": _verdict(models, tests, headline, p)
        + _hopeless(len(first.clusters), cluster_kind, len(tests), p),
        "notes": [
            *_human_notes(models, humans, headline, p),
            *_notes(len(first.clusters), cluster_kind, len(tests), p),
            *_settings_note(differences),
        ],
        "leaderboard": [_row(s, models, headline, p) for s in [*models, *humans]],
        "tests": tests,
        "differences": differences,
    }
    return _rounded(result)


def _score(who: Contestant, p: Params) -> _ScoredContestant:
    runs = [cluster_sums(table, p.data.foreground) for table in who.tables]
    draws = bootstrap(runs, p.compare.bootstrap, p.compare.seed)
    return _ScoredContestant(who, runs, seed_scores(runs), draws)


def _estimate(scored: _ScoredContestant, key: str) -> float:
    return round(float(scored.estimates[key].mean()), 6)


def _interval(draws: np.ndarray, scored: _ScoredContestant, p: Params, least: float) -> tuple[float, float]:
    """One cluster says nothing about others: the interval is then all there is, `least` to 1."""
    return interval(draws, p.compare.confidence) if len(scored.runs[0].clusters) > 1 else (least, 1.0)


def _row(
    scored: _ScoredContestant, models: Sequence[_ScoredContestant], headline: str, p: Params
) -> dict[str, Any]:
    scores = {}
    for key, values in scored.estimates.items():
        low, high = _interval(scored.draws[key], scored, p, least=0.0)
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        scores[key] = {"estimate": float(values.mean()), "low": low, "high": high, "seed_std": spread}
    who = scored.who
    better = sum(_estimate(other, headline) > _estimate(scored, headline) for other in models)
    return {
        "architecture": who.name,
        "title": who.title,
        "kind": who.kind,
        "rank": better + 1 if who.kind == "model" else None,
        "seeds": len(who.tables),
        "scores": scores,
        "summary": dict(who.summaries[0]) if who.summaries else None,
    }


def _difference(a: _ScoredContestant, b: _ScoredContestant, key: str, p: Params) -> dict[str, float]:
    """a - b; draws of the same number are of the same test clusters, so they are subtracted pair by pair."""
    low, high = _interval(a.draws[key] - b.draws[key], a, p, least=-1.0)
    return {"difference": _estimate(a, key) - _estimate(b, key), "low": low, "high": high}


def _tests(models: Sequence[_ScoredContestant], key: str, p: Params) -> list[dict[str, Any]]:
    """All pairs on the headline score, the better one first, corrected for their number.

    The test takes the trained models as given, the interval counts their seeds as well: a difference is shown where
    the test is significant and the interval leaves out 0.
    """
    pairs = list(combinations(models, 2))
    p_values = [
        permutation_test(a.runs, b.runs, key, p.compare.permutations, p.compare.seed) for a, b in pairs
    ]
    tests: list[dict[str, Any]] = []
    for (a, b), value, corrected in zip(pairs, p_values, holm(p_values), strict=True):
        difference = _difference(a, b, key, p)
        shown = corrected <= _level(p) and not difference["low"] <= 0 <= difference["high"]
        names: dict[str, Any] = {"a": a.who.name, "b": b.who.name}
        tests.append(names | difference | {"p": value, "p_holm": corrected, "significant": shown})
    return tests


def _level(p: Params) -> float:
    return round(1 - p.compare.confidence, 9)


def _verdict(
    models: Sequence[_ScoredContestant], tests: Sequence[Mapping[str, Any]], key: str, p: Params
) -> str:
    """One sentence; a winner is named only if a difference from every other model is shown."""
    best, others = models[0], models[1:]
    metric = METRIC_TITLES[p.compare.metric]
    one_seed = ", one seed" if len(best.runs) == 1 else ""
    top = f"{best.who.title} (dataset {metric} {_percent(_estimate(best, key))}{one_seed})"
    if not others:
        return f"{top} was the only architecture trained, so there is nothing to compare it with."
    against = {test["b"]: test for test in tests if test["a"] == best.who.name}
    leads = [
        f"{s.who.title} by {_points(against[s.who.name], p)}"
        for s in others
        if against[s.who.name]["significant"]
    ]
    level = [
        f"{s.who.title} ({_percent(_estimate(s, key))})"
        for s in others
        if not against[s.who.name]["significant"]
    ]
    if not level:
        return f"{top} is best: it leads {_listed(leads)}."
    also = f", but {best.who.title} leads {_listed(leads)}" if leads else ""
    return f"No difference shown between {top} and {_listed(level, 'or')}{also}."


def _human_notes(
    models: Sequence[_ScoredContestant], humans: Sequence[_ScoredContestant], key: str, p: Params
) -> list[str]:
    notes = []
    for human in humans:
        difference = _difference(models[0], human, key, p)
        side = "below" if difference["difference"] < 0 else "above"
        signed = difference if side == "above" else _negated(difference)
        notes.append(
            f"{human.who.title}, a human, reaches dataset {METRIC_TITLES[p.compare.metric]} "
            f"{_percent(_estimate(human, key))} against the same ground truth; "
            f"{models[0].who.title} lies {_points(signed, p)} {side} that."
        )
    return notes


def _notes(clusters: int, cluster_kind: str, tests: int, p: Params) -> list[str]:
    """What the numbers do not say."""
    seeds, notes = len(p.seeds), []
    if seeds == 1:
        notes.append(
            "Each architecture was trained with one seed only: the seed's own variation is not measured, "
            "and a difference may be one between these trainings rather than between the architectures."
        )
    else:
        notes.append(
            f"Scores are means over {seeds} seeds. Intervals cover the choice of test {cluster_kind}s and of "
            "seeds; the tests hold the trained models fixed."
        )
    if p.evaluate.flips:
        notes.append(
            "Every prediction is a mean over four mirror images (evaluate.flips): GMACs, time and memory are those of "
            "all four."
        )
    if clusters == 1:
        notes.append(
            f"All test images are of one {cluster_kind}: nothing can be said of others, intervals span all."
        )
    elif clusters < FEW_CLUSTERS:
        notes.append(f"There are only {clusters} test {cluster_kind}s: the intervals are likely too narrow.")
    least = smallest_p(clusters, p.compare.permutations) * tests
    if _hopeless(clusters, cluster_kind, tests, p):
        notes.append(
            f"With {clusters} test {cluster_kind}{'s' if clusters > 1 else ''} and {tests} "
            f"comparison{'s' if tests > 1 else ''} no p after Holm's correction can fall below "
            f"{min(least, 1):.2g}: no difference, however large, can be shown at the level of {_level(p):g}."
        )
    if cluster_kind == "block":
        notes.append(
            "Blocks are parts of the same scenes: scores and intervals do not speak for other places."
        )
    return notes


def _hopeless(clusters: int, cluster_kind: str, tests: int, p: Params) -> str:
    """What to add to a verdict where no test could have come out otherwise; empty where one could."""
    if not tests or smallest_p(clusters, p.compare.permutations) * tests <= _level(p):
        return ""
    groups = f"{clusters} test {cluster_kind}{'s' if clusters > 1 else ''}"
    return f" With {groups} no difference can be shown, however large."


def _settings_note(differences: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not differences:
        return []
    return [f"Architectures were not trained alike: they differ in {_listed(list(differences))}."]


def _differing_settings(models: Sequence[Contestant], p: Params) -> dict[str, dict[str, Any]]:
    """Training settings (not an architecture's own keywords) that are not the same for all."""
    settings = {m.name: _flat(p.for_architecture(m.name).model_dump(exclude={"model"})) for m in models}
    for model in models:
        for key in ("encoder", "weights", "steps"):  # what was done outranks what was asked for
            done = {summary[key] for summary in model.summaries if key in summary}
            settings[model.name] |= {key: done.pop()} if len(done) == 1 else {}
    keys = next(iter(settings.values()))
    by_key = {key: {name: values[key] for name, values in settings.items()} for key in keys}
    return {key: values for key, values in by_key.items() if len({repr(v) for v in values.values()}) > 1}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def _percent(score: float) -> str:
    return f"{100 * score:.1f} %"


def _points(difference: Mapping[str, float], p: Params) -> str:
    low, high = 100 * difference["low"], 100 * difference["high"]
    return (
        f"{100 * difference['difference']:.1f} points "
        f"({100 * p.compare.confidence:g} % interval {low:.1f} to {high:.1f})"
    )


def _negated(difference: Mapping[str, float]) -> dict[str, float]:
    return {
        "difference": -difference["difference"],
        "low": -difference["high"],
        "high": -difference["low"],
    }


def _listed(words: Sequence[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def _rounded(value: Any) -> Any:
    """6 decimals: far finer than the statistics, coarse enough to be the same on every machine."""
    if isinstance(value, float):
        return round(value, 6) + 0.0  # no -0.0
    if isinstance(value, Mapping):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value
