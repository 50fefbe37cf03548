"""Objects of a comparison: counts with intervals, operating scores, the limit of components, and their wording."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from segcore.comparison.cluster_sums import ClusterSums
from segcore.comparison.results import Comparison, LeaderboardRow, ObjectsSummary
from segcore.comparison.text import value_text
from segcore.metrics import OBJECT_POLICY, objects
from segcore.metrics.pooled import Pooled
from segcore.objects.count_interval import LEVEL, count_interval

_OPERATING = ("precision", "recall", "count_bias")
# difference of F1 on the validation split from which another method is recommended
_BETTER = 0.01


def summary(
    models: Mapping[str, tuple[Sequence[ClusterSums], Sequence[Mapping[str, Any]]]],
    others: Mapping[str, Sequence[ClusterSums]],
) -> ObjectsSummary | None:
    """Figures of objects; None where a model has none.

    Args:
        models: architecture -> runs and summaries, one per seed.
        others: name -> runs of limits and humans.
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
        counts={name: counts(each, chosen[name]) for name, (each, _) in models.items()},
        operating={name: _operating(each) for name, each in chosen.items()},
        pooled={
            name: pooled_scores(each)
            for name, each in {**{name: each for name, (each, _) in models.items()}, **others}.items()
            if all(run.objects is not None for run in each)
        },
        validation={name: _validation(each) for name, each in chosen.items()},
    )


def _operating(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of all seeds, because no model has their mean, and means of the other figures."""
    scores = sorted({one["score"] for one in summaries if one.get("score") is not None})
    return {"score": scores or None, **{key: _mean(summaries, key) for key in _OPERATING}}


def _validation(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """F1 of each method on the validation split; of methods that all seeds have."""
    each = [one.get("validation", {}) for one in summaries]
    methods = [method for method in each[0] if all(method in one for one in each)] if each else []
    return {method: float(np.mean([one[method] for one in each])) for method in methods}


def pooled_scores(runs: Sequence[ClusterSums]) -> dict[str, float]:
    """F1, precision, recall and count bias of the objects of all foreground classes together, means of the seeds.

    The definitions are those of the validation split: without objects the first three are 0.

    Args:
        runs: one run per seed, all with objects.
    """
    figures = []
    for run in runs:
        assert run.objects is not None
        each = (run.objects[f"{name}_50"][:, list(run.foreground)].sum() for name in ("tp", "fp", "fn"))
        tp, fp, fn = (float(number) for number in each)
        predicted, true = tp + fp, tp + fn
        values = (2 * tp / max(true + predicted, 1), tp / max(predicted, 1), tp / max(true, 1))
        figures.append([*values, predicted / true - 1 if true else 0.0])
    means = np.mean(figures, axis=0).tolist()
    return dict(zip(("f1", "precision", "recall", "count_bias"), means, strict=True))


def _mean(summaries: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [one[key] for one in summaries if one.get(key) is not None]
    return float(np.mean(values)) if values else None


def counts(
    runs: Sequence[ClusterSums], chosen: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float | None]]:
    """Objects by foreground class: true, predicted, low, high; means of the seeds except `true`.

    The interval is of the true number, as a prediction states it: from the predicted number and the true and predicted
    ones of the validation split, which the true number of the test images does not enter. The ends are None where
    an evaluation has no such numbers.

    Args:
        runs: one run per seed, all with objects, on the same images.
        chosen: entry `objects` of summary.json, one per training.
    """
    of_runs, found = [_numbers(run) for run in runs], {}
    # a round of folds has several validation splits, which share images
    chosen = chosen if len(chosen) == len(runs) else [{}] * len(runs)
    for k in runs[0].foreground:
        name = runs[0].classes[k]
        predicted = [int(numbers[k]) for _, numbers in of_runs]
        ends = [
            count_interval(number, (one.get("counts") or {}).get(name, ()))
            for number, one in zip(predicted, chosen, strict=True)
        ]
        known = [end for end in ends if end is not None]
        low, high = np.mean(known, axis=0).tolist() if len(known) == len(ends) else (None, None)
        true = float(of_runs[0][0][k])
        found[name] = {"true": true, "predicted": float(np.mean(predicted)), "low": low, "high": high}
    return found


def _numbers(run: ClusterSums) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted objects of each class, (K,) each."""
    assert run.objects is not None
    clusters = len(run.clusters)
    pooled = Pooled([run.objects], run.cluster_of, clusters, [np.ones((1, clusters))])
    return objects.true(pooled)[0], objects.predicted(pooled)[0]


def limit_note(board: Sequence[LeaderboardRow], summary: ObjectsSummary | None) -> str:
    """How far components of a perfect mask limit the best model.

    Args:
        board: rows of the leaderboard.
        summary: figures of objects of the same comparison.

    Returns:
        One or two sentences; "" without such figures.
    """
    best = next((row for row in board if row.kind == "model"), None)
    if best is None or summary is None:
        return ""
    limit = next((row for row in board if row.kind == "limit"), None)
    own, most = (summary.pooled.get(row.architecture) if row else None for row in (best, limit))
    return _limit_text(best.title, _method(best), own, most) if own and most else ""


def _method(row: LeaderboardRow) -> str:
    return str((row.summary or {}).get("objects", {}).get("method", "components"))


def _limit_text(title: str, method: str, own: Mapping[str, float], most: Mapping[str, float]) -> str:
    reached, limit = own["f1"], most["f1"]
    by = "" if method == "network" else f" with {method}"
    text = (
        f"{title}{by} finds {value_text(own['recall'])} % of the objects (F1 {value_text(reached)} %); "
        f"a perfect mask with components would reach F1 {value_text(limit)} %"
    )
    if reached > limit:
        return f"{text}: {title} separates objects that touch better than that."
    if limit == 1:
        return f"{text}: no object is lost because true objects touch."
    lost, lacking = value_text(1 - limit), value_text(1 - reached)
    cause = "because objects touch or have several parts"
    if method != "components" or lost == lacking:
        return f"{text}. Components of any mask lose {lost} points of F1 {cause}."
    return (
        f"{text}. Of the {lacking} points of F1 that it lacks, {lost} are lost by components of any mask {cause}; the "
        "others are errors of its own mask, which can also join objects."
    )


def method_note(board: Sequence[LeaderboardRow], summary: ObjectsSummary | None) -> str:
    """Names the other method to find objects of semantic networks, where it is better on the validation split.

    It is better where a semantic network reaches with it an F1 that is more than a point above its own and that of the
    best semantic network. A better instance network changes nothing about that.

    Args:
        board: rows of the leaderboard.
        summary: figures of objects of the same comparison.

    Returns:
        One sentence; "" without such a network or such figures.
    """
    if summary is None:
        return ""
    reached = 0.0
    for row in board:
        f1, method = summary.validation.get(row.architecture, {}), _method(row)
        other = next((name for name in f1 if name != method), None)
        if other is None or method not in f1:
            continue
        # that of the best semantic network, which is the first one
        reached = reached or f1[method]
        if f1[other] - max(f1[method], reached) > _BETTER:
            return (
                f"On the validation split, {row.title} reached F1 {value_text(f1[other])} % with {other} and "
                f"{value_text(f1[method])} % with {method}: set evaluate.objects: {other}, which trains nothing again."
            )
    return ""


def truth_note(summary: ObjectsSummary | None) -> str:
    """Note on true objects that are components; "" for others."""
    if summary is None or summary.truth != "components":
        return ""
    return (
        "The true objects are connected components of the masks: such truth favours methods by components, and a "
        "perfect mask would reach 100 %."
    )


VOLUME_NOTE = (
    "Objects of volumes are counted in each plane: an object in several planes counts once per plane, whereas a "
    "prediction (predict.outputs) links the planes."
)


def lines(comparison: Comparison) -> list[str]:
    """Counts, operating scores and policy, one line each; empty without objects."""
    if comparison.objects is None:
        return []
    titles, found = comparison.titles, comparison.objects
    text = []
    for name, by_class in found.counts.items():
        text.append(f"Objects counted by {titles[name]}: {_counts_text(by_class)}.")
    for name, chosen in found.operating.items():
        text.append(f"{titles[name]}: {_operating_text(chosen)}.")
    return [*text, f"Objects: {found.policy}"]


def _counts_text(by_class: Mapping[str, Mapping[str, float | None]]) -> str:
    """Such as "cell 165 (true 225); corrected by the ratio of true to predicted objects ..., 95 %: 188 to 278"."""
    counted = [
        f"{name} {count['predicted']:,.0f} (true {count['true']:,.0f})" for name, count in by_class.items()
    ]
    ends = {name: (count["low"], count["high"]) for name, count in by_class.items()}
    corrected = [
        f"{f'{name} ' if len(by_class) > 1 else ''}{low:,.0f} to {high:,.0f}"
        for name, (low, high) in ends.items()
        if low is not None and high is not None
    ]
    ratio = (
        f"; corrected by the ratio of true to predicted objects on the validation images, {100 * LEVEL:g} %: "
    )
    return ", ".join(counted) + (ratio + ", ".join(corrected) if corrected else "")


def score_text(score: float | Sequence[float] | None) -> str:
    """The operating scores of the seeds, such as "0.60" or "0.60 to 0.65"; "" for None."""
    if score is None:
        return ""
    low, high = (f"{end:.2f}" for end in (np.min(score), np.max(score)))
    return low if low == high else f"{low} to {high}"


def _operating_text(chosen: Mapping[str, Any]) -> str:
    """Such as "objects count from a score of 0.45, chosen on the validation split (precision 81.2 %, ...)"."""
    if chosen["score"] is None:
        return "objects of every score count"
    if chosen["recall"] == 0:
        return "on the validation split, no true object is found, so that objects count from the default score of 0.5"
    names = {"precision": "precision", "recall": "recall", "count_bias": "count bias"}
    figures = [
        f"{title} {value_text(value, signed=key == 'count_bias')} %"
        for key, title in names.items()
        if (value := chosen[key]) is not None
    ]
    start = f"objects count from a score of {score_text(chosen['score'])}"
    return f"{start}, chosen on the validation split ({', '.join(figures)} there)" if figures else start
