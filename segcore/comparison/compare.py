"""From evaluation tables to a comparison: scores with intervals, ranks and paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from segcore.comparison import verdict
from segcore.comparison.results import Comparison, Difference, LeaderboardRow, PairTest, Score
from segcore.comparison.settings import differing_settings
from segcore.comparison.slices import ScoredModel, slices
from segcore.comparison.statistics import (
    ClusterSums,
    bootstrap,
    cluster_sums,
    holm,
    interval,
    permutation_test,
    require_same,
    seed_scores,
)
from segcore.metrics import EMPTY_POLICY, METRICS, unit_of
from segcore.params import Params

__all__ = ["Contestant", "compare"]


@dataclass(frozen=True)
class Contestant:
    """What is ranked: an architecture with one evaluation table per seed, or a human with one.

    Attributes:
        name: key of the architecture or annotator.
        title: printed name.
        kind: "model" or "human".
        tables: evaluation tables (segcore.tables.counts), one per seed.
        summaries: contents of summary.json, one per seed; none for a human.
    """

    name: str
    title: str
    kind: str
    tables: Sequence[pd.DataFrame]
    summaries: Sequence[Mapping[str, Any]] = ()


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


def compare(contestants: Sequence[Contestant], p: Params, cluster_kind: str) -> Comparison:
    """Rank models on pooled foreground scores, test all pairs, and word the verdict.

    Args:
        contestants: models and humans, all on the same test images.
        p: parameters; `compare`, `data`, `seeds` and the training settings are used.
        cluster_kind: "block" or "group", the unit that intervals and tests resample.

    Returns:
        The comparison, numbers rounded to 6 decimals; scores in "%" are in [0, 1].

    Raises:
        DataError: a table is incomplete, or the tables are of different images.
    """
    headline = f"{p.compare.metric}/dataset/foreground_mean"
    scored = [_score(c, p) for c in contestants]
    require_same([run for s in scored for run in s.runs])
    first, sign = scored[0].runs[0], METRICS[p.compare.metric].sign
    models = sorted(
        (s for s in scored if s.contestant.kind == "model"), key=lambda s: -sign * s.estimate(headline)
    )
    humans = [s for s in scored if s.contestant.kind == "human"]
    tests = _tests(models, headline, p)
    differences = differing_settings([(s.contestant.name, s.contestant.summaries) for s in models], p)
    board = [_row(s, models, headline, p) for s in [*models, *humans]]
    standing = verdict.Standing(
        [_placed(s, headline) for s in models],
        [(_placed(s, headline), _difference(models[0], s, headline, p)) for s in humans],
        tests,
        len(first.clusters),
        cluster_kind,
        differences,
    )
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
        empty_policy=EMPTY_POLICY,
        verdict=verdict.sentence(standing, p),
        notes=verdict.notes(standing, p),
        leaderboard=board,
        tests=tests,
        differences=differences,
        slices=slices(
            {s.contestant.name: ScoredModel(s.contestant.tables, s.estimates) for s in models}, first.items, p
        ),
    )
    return Comparison.from_json(comparison.to_json())


def _score(contestant: Contestant, p: Params) -> _Scores:
    runs = [cluster_sums(table, p.data.foreground) for table in contestant.tables]
    draws = bootstrap(runs, p.compare.bootstrap, p.compare.seed)
    return _Scores(contestant, runs, seed_scores(runs), draws)


def _placed(s: _Scores, headline: str) -> verdict.Placed:
    return verdict.Placed(s.contestant.name, s.contestant.title, s.estimate(headline), len(s.runs))


def _interval(
    draws: np.ndarray, scores: _Scores, key: str, p: Params, least: float
) -> tuple[float | None, float | None]:
    """Interval of bootstrap draws.

    With one cluster nothing is known about others: the whole range, `least` to 1, of scores in "%", else None.
    """
    if len(scores.runs[0].clusters) > 1:
        return interval(draws, p.compare.confidence)
    return (least, 1.0) if unit_of(key) == "%" else (None, None)


def _row(scores: _Scores, models: Sequence[_Scores], headline: str, p: Params) -> LeaderboardRow:
    by_key = {}
    for key, values in scores.estimates.items():
        low, high = _interval(scores.draws[key], scores, key, p, least=0.0)
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        by_key[key] = Score(float(values.mean()), low, high, spread)
    sign, estimate, contestant = METRICS[p.compare.metric].sign, scores.estimate(headline), scores.contestant
    better = sum(sign * other.estimate(headline) > sign * estimate for other in models)
    return LeaderboardRow(
        architecture=contestant.name,
        title=contestant.title,
        kind=contestant.kind,
        rank=better + 1 if contestant.kind == "model" else None,
        seeds=len(contestant.tables),
        scores=by_key,
        summary=dict(contestant.summaries[0]) if contestant.summaries else None,
    )


def _difference(a: _Scores, b: _Scores, key: str, p: Params) -> Difference:
    """Difference a - b. Draws with the same index resample the same clusters, so they are subtracted pairwise."""
    low, high = _interval(a.draws[key] - b.draws[key], a, key, p, least=-1.0)
    return Difference(a.estimate(key) - b.estimate(key), low, high)


def _tests(models: Sequence[_Scores], key: str, p: Params) -> list[PairTest]:
    """All pairs on the headline score, the better one first, corrected for their number.

    The test treats the trained models as fixed; the interval also covers the choice of seeds. A difference counts as
    shown if the test is significant and the interval excludes 0.
    """
    pairs = list(combinations(models, 2))
    p_values = [
        permutation_test(a.runs, b.runs, key, p.compare.permutations, p.compare.seed) for a, b in pairs
    ]
    tests = []
    for (a, b), value, corrected in zip(pairs, p_values, holm(p_values), strict=True):
        gap = _difference(a, b, key, p)
        shown = corrected <= verdict.level(p) and gap.excludes_zero
        names = (a.contestant.name, b.contestant.name)
        tests.append(PairTest(*names, gap.difference, gap.low, gap.high, value, corrected, shown))
    return tests
