"""Objects of a comparison: counts with intervals, operating scores, the limit of components, and their wording."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcore.comparison.cluster_sums import ClusterSums
from segcore.comparison.results import Comparison, LeaderboardRow, ObjectsSummary
from segcore.comparison.statistics import interval, resamples
from segcore.comparison.text import value_text
from segcore.metrics import OBJECT_POLICY, objects
from segcore.metrics.pooled import Pooled
from segcore.params import Params

_OPERATING = ("score", "precision", "recall", "count_bias")
_F1, _RECALL = "f1_50/dataset/foreground_mean", "object_recall_50/dataset/foreground_mean"


def summary(
    models: Mapping[str, tuple[Sequence[ClusterSums], Sequence[Mapping[str, Any]]]], p: Params
) -> ObjectsSummary | None:
    """Figures of objects; None where a model has none.

    Args:
        models: architecture -> runs and summaries, one per seed.
        p: parameters; `compare` is used.
    """
    runs = [run for each, _ in models.values() for run in each]
    if any(run.objects is None for run in runs):
        return None
    first = runs[0].objects
    assert first is not None
    chosen = {name: [s.get("objects", {}) for s in summaries] for name, (_, summaries) in models.items()}
    (low, high), truth = first.limits, [one.get("truth") for each in chosen.values() for one in each]
    return ObjectsSummary(
        policy=OBJECT_POLICY,
        truth="components" if "components" in truth else "given",
        sizes={"small": [0.0, low], "medium": [low, high], "large": [high, None]},
        counts={name: counts(each, p) for name, (each, _) in models.items()},
        operating={name: {key: _mean(each, key) for key in _OPERATING} for name, each in chosen.items()},
    )


def _mean(summaries: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [one[key] for one in summaries if one.get(key) is not None]
    return float(np.mean(values)) if values else None


def counts(runs: Sequence[ClusterSums], p: Params) -> dict[str, dict[str, float | None]]:
    """Objects by foreground class: true, predicted (mean of the seeds), low, high.

    The interval is the predicted number times the interval of the ratio of true to predicted objects, on the same
    resamples of clusters and seeds as the intervals of scores. Draws without a predicted object are left out; without
    any, and with one cluster, the ends are None.

    Args:
        runs: one run per seed, all with objects, on the same images.
        p: parameters; `compare` is used.
    """
    first, clusters = runs[0], len(runs[0].clusters)
    weights, seed_weights = resamples(clusters, len(runs), p.compare.bootstrap, p.compare.seed)
    drawn_true, drawn = _numbers(first, weights)[0], np.zeros((len(weights), len(first.classes)))
    predicted = np.zeros(len(first.classes))
    for index, run in enumerate(runs):
        drawn += _numbers(run, weights)[1] * seed_weights[:, index, None]
        predicted += _numbers(run, np.ones((1, clusters)))[1][0] / len(runs)
    true = _numbers(first, np.ones((1, clusters)))[0][0]
    found = {}
    for k in first.foreground:
        low = high = None
        some = drawn[:, k] > 0
        if clusters > 1 and some.any():
            ratio = interval(drawn_true[some, k] / drawn[some, k], p.compare.confidence)
            low, high = (float(predicted[k]) * end for end in ratio)
        number = {"true": float(true[k]), "predicted": float(predicted[k]), "low": low, "high": high}
        found[first.classes[k]] = number
    return found


def _numbers(run: ClusterSums, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted objects of weighted clusters, (B, K) each."""
    assert run.objects is not None
    pooled = Pooled([run.objects], run.cluster_of, len(run.clusters), [weights])
    return objects.true(pooled), objects.predicted(pooled)


def limit_note(board: Sequence[LeaderboardRow]) -> str:
    """Whether objects that touch limit the best model, from the F1 of components of perfect masks; "" without these."""
    best = next((row for row in board if row.kind == "model"), None)
    limit = next((row for row in board if row.kind == "limit"), None)
    if best is None or limit is None or _F1 not in best.scores:
        return ""
    reached, most = best.scores[_F1].estimate, limit.scores[_F1].estimate
    method = (best.summary or {}).get("objects", {}).get("method", "components")
    text = (
        f"{best.title} with {method} finds {value_text(best.scores[_RECALL].estimate)} % of the objects "
        f"(F1 {value_text(reached)} %); a perfect mask with components would reach F1 {value_text(most)} %: "
    )
    if reached > most:
        return text + "the model separates objects that touch better than that."
    if most < 1 and 1 - most >= most - reached:
        return text + "objects that touch are the limit."
    return text + "objects that touch are not the limit."


def truth_note(summary: ObjectsSummary | None) -> str:
    """Note on true objects that are components; "" for others."""
    if summary is None or summary.truth != "components":
        return ""
    return (
        "The true objects are connected components of the masks: such truth favours methods by components, and a "
        "perfect mask would reach 100 %."
    )


def lines(comparison: Comparison) -> list[str]:
    """Counts, operating scores and policy, one line each; empty without objects."""
    if comparison.objects is None:
        return []
    titles, found = comparison.titles, comparison.objects
    level = f"{100 * comparison.confidence:g} %"
    text = []
    for name, by_class in found.counts.items():
        each = [_count_text(class_name, count, level) for class_name, count in by_class.items()]
        text.append(f"Objects counted by {titles[name]}: {', '.join(each)}.")
    for name, chosen in found.operating.items():
        text.append(f"{titles[name]}: {_operating_text(chosen)}.")
    return [*text, f"Objects: {found.policy}"]


def _count_text(class_name: str, count: Mapping[str, float | None], level: str) -> str:
    low, high = count["low"], count["high"]
    reach = f"{level}: {low:,.0f} to {high:,.0f}; " if low is not None and high is not None else ""
    return f"{class_name} {count['predicted']:,.0f} ({reach}true: {count['true']:,.0f})"


def _operating_text(chosen: Mapping[str, float | None]) -> str:
    """Such as "objects count from a score of 0.45, chosen on the validation split (precision 81.2 %, ...)"."""
    if chosen["score"] is None:
        return "objects of every score count"
    names = {"precision": "precision", "recall": "recall", "count_bias": "count bias"}
    figures = [
        f"{title} {value_text(value, signed=key == 'count_bias')} %"
        for key, title in names.items()
        if (value := chosen[key]) is not None
    ]
    start = f"objects count from a score of {chosen['score']:.2g}"
    return f"{start}, chosen on the validation split ({', '.join(figures)} there)" if figures else start
