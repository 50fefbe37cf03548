"""From evaluation tables to a comparison: scores with intervals, ranks and paired tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from segcore.comparison import objects, progress, surfaces, verdict
from segcore.comparison.cluster_sums import ClusterSums, cluster_sums, informative, require_same, seed_scores
from segcore.comparison.results import Comparison, Difference, LeaderboardRow, PairTest, Score
from segcore.comparison.settings import differing_settings
from segcore.comparison.slices import ScoredModel, slices
from segcore.comparison.statistics import bootstrap, holm, interval, permutation_test
from segcore.errors import DataError
from segcore.metrics import EMPTY_POLICY, EMPTY_POLICY_WITH_OBJECTS, METRICS, Metric
from segcore.metrics.matching import LeastScore
from segcore.params import Params

__all__ = ["Contestant", "compare"]

# kinds of contestants, in the order of the leaderboard
_KINDS = ("model", "limit", "human")


@dataclass(frozen=True)
class Contestant:
    """What is ranked: an architecture with one evaluation table per seed, or a human or a limit with one.

    Attributes:
        name: key of the architecture or annotator.
        title: printed name.
        kind: "model", "human", or "limit": the most that a method can reach, from perfect masks.
        tables: evaluation tables (segcore.tables.counts), one per seed; with folds, one per round of folds, pooled.
        summaries: contents of summary.json, one per training; none for a human or a limit.
        objects: object tables (segcore.tables.objects), one per seed; none where the data have no objects.
        surfaces: surface tables (segcore.tables.surfaces), one per seed; none where the data have no volumes.
        histories: history.csv of each training; none where they are not known.
        least: least score of a predicted object, one per table; none: those of the summaries.
    """

    name: str
    title: str
    kind: str
    tables: Sequence[pd.DataFrame]
    summaries: Sequence[Mapping[str, Any]] = ()
    objects: Sequence[pd.DataFrame] = ()
    surfaces: Sequence[pd.DataFrame] = ()
    histories: Sequence[pd.DataFrame] = ()
    least: Sequence[LeastScore] = ()

    @property
    def members(self) -> list[str]:
        """Names of the networks of an ensemble; empty for anything else."""
        return list(self.summaries[0].get("members", [])) if self.summaries else []

    @property
    def network(self) -> str:
        """Kind of a model: "semantic" or "instance"."""
        return str(self.summaries[0].get("kind", "semantic")) if self.summaries else "semantic"

    @property
    def object_tables(self) -> list[tuple[pd.DataFrame | None, LeastScore]]:
        """Per seed, the object table, or None, and the least score of a predicted object."""
        found = [summary.get("objects", {}).get("score", 0.0) for summary in self.summaries]
        scores = self.least or found or [0.0] * len(self.tables)
        return list(zip(self.objects or [None] * len(self.tables), scores, strict=True))

    @property
    def surface_tables(self) -> list[pd.DataFrame | None]:
        """Per seed, the surface table, or None."""
        return list(self.surfaces) or [None] * len(self.tables)


@dataclass(frozen=True)
class _Scores:
    """A contestant's scores on the test set and on resampled test sets."""

    contestant: Contestant
    runs: list[ClusterSums]
    # score key -> (S,), one value per seed
    estimates: dict[str, np.ndarray]
    # score key -> (B,), one value per bootstrap draw
    draws: dict[str, np.ndarray]

    def estimate(self, key: str) -> float:
        """Mean over seeds, rounded so that scores with the same printed value rank the same."""
        return round(float(self.estimates[key].mean()), 6)

    @property
    def limits(self) -> tuple[float, float] | None:
        """Areas that divide small, medium and large objects; None without objects."""
        first = self.runs[0].objects
        return None if first is None else first.limits

    def worth(self, key: str) -> float:
        """What ranks are of: higher is better, whatever the metric."""
        metric = _metric_of(key)
        return float(metric.sign * metric.compared(self.estimate(key)))


def compare(
    contestants: Sequence[Contestant], p: Params, cluster_kind: str, folds: int | None = None
) -> Comparison:
    """Rank models on pooled foreground scores, test all pairs, and word the verdict.

    Args:
        contestants: models, limits and humans, the models first, all on the same test images.
        p: parameters; `compare`, `data`, `seeds` and the training settings are used.
        cluster_kind: "block" or "group", the unit that intervals and tests resample.
        folds: of a cross-validation, with tables pooled over the folds; None: one test split.

    Returns:
        The comparison, numbers rounded to 6 decimals; scores in "%" are in [0, 1].

    Raises:
        DataError: a table is incomplete, the tables are of different images, or the metric is one of objects or
            surfaces and an evaluation has none.
    """
    headline = f"{p.compare.metric}/dataset/foreground_mean"
    scored: list[_Scores] = []
    for one in contestants:
        # small objects are the same ones for all
        scored.append(_score(one, p, scored[0].limits if scored else None))
    require_same([run for s in scored for run in s.runs])
    _require_headline(scored, headline)
    first = scored[0].runs[0]
    models, limits, humans = ([s for s in scored if s.contestant.kind == k] for k in _KINDS)
    models = sorted(models, key=lambda s: _place(s, headline, p))
    tests = _tests(models, headline, p)
    trained = [s.contestant for s in models if not s.contestant.members]
    differences = differing_settings([(one.name, one.summaries) for one in trained], p)
    board = [_row(s, models, headline, p) for s in [*models, *limits, *humans]]
    of_objects = objects.summary(
        {s.contestant.name: (s.runs, s.contestant.summaries) for s in models},
        {s.contestant.name: s.runs for s in [*limits, *humans]},
    )
    standing = verdict.Standing(
        [_placed(s, headline, p) for s in models],
        [
            (_placed(s, headline, p), _difference(models[0], s, headline, p))
            for s in humans
            if headline in s.draws
        ],
        tests,
        len(first.clusters),
        cluster_kind,
        differences,
        objects.method_note(board, of_objects),
        _progress(trained, p),
        folds,
    )
    sentence = verdict.sentence(standing, p)
    # stated once
    method = "" if standing.method in sentence else standing.method
    comparison = Comparison(
        dataset=p.data.name,
        metric=p.compare.metric,
        headline=headline,
        classes=p.data.classes,
        colors=[list(color) for color in p.data.colors],
        test_images=len(first.items),
        clusters=len(first.clusters),
        cluster_kind=cluster_kind,
        seeds=p.seeds,
        confidence=p.compare.confidence,
        bootstrap=p.compare.bootstrap,
        empty_policy=EMPTY_POLICY if of_objects is None else EMPTY_POLICY_WITH_OBJECTS,
        verdict=sentence,
        notes=[
            *filter(None, [objects.limit_note(board, of_objects), method, objects.truth_note(of_objects)]),
            *verdict.notes(standing, p),
            *_postprocess_notes([s.contestant for s in models]),
        ],
        leaderboard=board,
        tests=tests,
        differences=differences,
        slices=slices({s.contestant.name: _scored_model(s) for s in models}, first.items, p),
        objects=of_objects,
        surfaces=surfaces.summary({s.contestant.name: (s.runs, s.contestant.summaries) for s in models}),
        folds=folds,
    )
    return Comparison.from_json(comparison.to_json())


def _progress(models: Sequence[Contestant], p: Params) -> str:
    """Sentence on whether validation scores were still rising; empty where a history is not known."""
    if not all(model.histories for model in models):
        return ""
    found = {model.name: progress.progress(model.histories) for model in models}
    return progress.sentence(found, {model.name: model.title for model in models}, p)


def _postprocess_notes(contestants: Sequence[Contestant]) -> list[str]:
    """One sentence for each different post-processing that was chosen on the validation split."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for contestant in contestants:
        for summary in contestant.summaries:
            if text := summary.get("postprocess"):
                seed = [] if contestant.members else [str(summary["seed"])]
                seeds.setdefault((contestant.title, text), []).extend(seed)
    return [
        f"{title}{_seeds(of)} is scored after post-processing, chosen on the validation split: {text}."
        for (title, text), of in seeds.items()
    ]


def _seeds(seeds: Sequence[str]) -> str:
    """Seeds in brackets; empty for an ensemble, which has none."""
    return f" ({'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)})" if seeds else ""


def _score(contestant: Contestant, p: Params, limits: tuple[float, float] | None) -> _Scores:
    runs = [
        cluster_sums(table, p.data.foreground, *of_objects, limits, of_surfaces)
        for table, of_objects, of_surfaces in zip(
            contestant.tables, contestant.object_tables, contestant.surface_tables, strict=True
        )
    ]
    draws = bootstrap(runs, p.compare.bootstrap, p.compare.seed)
    return _Scores(contestant, runs, seed_scores(runs), draws)


def _scored_model(s: _Scores) -> ScoredModel:
    one = s.contestant
    return ScoredModel(one.tables, s.estimates, one.object_tables, s.limits, one.surface_tables)


def _metric_of(key: str) -> Metric:
    return METRICS[key.partition("/")[0]]


def _require_headline(scored: Sequence[_Scores], headline: str) -> None:
    for one in scored:
        if one.contestant.kind == "model" and headline not in one.estimates:
            metric = _metric_of(headline)
            if metric.of_surfaces:
                raise surfaces.no_surfaces(metric.name, one.contestant.title)
            raise DataError(
                f"compare.metric is {metric.name}, but {one.contestant.title} has no objects",
                "set data.instances, and evaluate.objects to components or watershed, in params.yaml and run again, "
                "or choose a metric of pixels, such as iou",
            )


def _placed(s: _Scores, headline: str, p: Params) -> verdict.Placed:
    one, tile = s.contestant, p.evaluate.tile
    summary = one.summaries[0] if one.summaries else {}
    side, overlap = summary.get("tile", tile), summary.get("overlap", 0)
    across = 1 + (math.ceil((tile - side) / (side - overlap)) if side < tile else 0)
    macs = int(summary.get("macs", 0))
    work = macs * (across * side / tile) ** 2
    return verdict.Placed(
        name=one.name,
        title=one.title,
        estimate=s.estimate(headline),
        seeds=len(s.runs),
        network=one.network,
        macs=macs,
        members=len(one.members),
        windows=across**2,
        side=side,
        work=work,
        steps=summary.get("steps", 0),
    )


def _place(s: _Scores, headline: str, p: Params) -> tuple[float, float]:
    """Place of a model, lower is better; of models that find the same objects, the one that computes less is first."""
    return -s.worth(headline), _placed(s, headline, p).work if METRICS[p.compare.metric].of_objects else 0


def _interval(
    draws: np.ndarray, scores: _Scores, key: str, p: Params, least: float
) -> tuple[float | None, float | None]:
    """Interval of bootstrap draws.

    With one cluster, or one that has the class, nothing is known about others: the whole range, `least` to 1, of
    bounded scores, else None.
    """
    if max(informative(run, key) for run in scores.runs) > 1:
        return interval(draws, p.compare.confidence)
    metric = METRICS.get(key.partition("/")[0])
    return (least, 1.0) if metric is None or metric.is_bounded else (None, None)


def _row(scores: _Scores, models: Sequence[_Scores], headline: str, p: Params) -> LeaderboardRow:
    by_key = {}
    for key, values in scores.estimates.items():
        low, high = _interval(scores.draws[key], scores, key, p, least=0.0)
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        by_key[key] = Score(float(values.mean()), low, high, spread)
    contestant, rank = scores.contestant, None
    if contestant.kind == "model":
        rank = 1 + sum(other.worth(headline) > scores.worth(headline) for other in models)
    return LeaderboardRow(
        architecture=contestant.name,
        title=contestant.title,
        kind=contestant.kind,
        rank=rank,
        seeds=len(contestant.tables),
        scores=by_key,
        summary=dict(contestant.summaries[0]) if contestant.summaries else None,
    )


def _difference(a: _Scores, b: _Scores, key: str, p: Params) -> Difference:
    """Difference a - b, of distances from 0 where 0 is best.

    Draws with the same index resample the same clusters, so they are subtracted pairwise.
    """
    compared = _metric_of(key).compared
    low, high = _interval(compared(a.draws[key]) - compared(b.draws[key]), a, key, p, least=-1.0)
    return Difference(compared(a.estimate(key)) - compared(b.estimate(key)), low, high)


def _tests(models: Sequence[_Scores], key: str, p: Params) -> list[PairTest]:
    """All pairs on the headline score, the better one first, corrected for their number.

    The test treats the trained models as fixed; the interval also covers the choice of seeds. A difference counts as
    shown if the test is significant and the interval excludes 0.
    """
    pairs = list(combinations(models, 2))
    options = p.compare.permutations, p.compare.seed
    p_values = [
        permutation_test(
            a.runs, b.runs, key, *options, ensembles=bool(a.contestant.members or b.contestant.members)
        )
        for a, b in pairs
    ]
    tests = []
    for (a, b), value, corrected in zip(pairs, p_values, holm(p_values), strict=True):
        gap = _difference(a, b, key, p)
        shown = corrected <= verdict.level(p) and gap.excludes_zero
        names = (a.contestant.name, b.contestant.name)
        tests.append(PairTest(*names, gap.difference, gap.low, gap.high, value, corrected, shown))
    return tests
