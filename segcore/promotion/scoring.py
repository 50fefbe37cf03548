"""Candidates of the gate, scored on the two sets of test regions; gains with paired intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from segcore.comparison.statistics import ClusterSums, cluster_sums, require_same, run_scores
from segcore.gate_rules import DIGITS, Costs, Gain
from segcore.promotion.figures import Basis
from segcore.promotion.interval import difference_interval, foreground_shares


@dataclass(frozen=True)
class Candidate:
    """A model that the gate compares.

    Attributes:
        name: unique among the challengers.
        title: printed name.
        validation: score on the validation split, NaN after a failed training; decides only where there is no champion
            yet.
        frozen: evaluation table (segcore.tables.counts) of the frozen test set.
        new: evaluation table of the new batch; may have no row.
        costs: measured on the machine that runs the gate.
        version: version of the champion in the registry; None for challengers.
    """

    name: str
    title: str
    validation: float
    frozen: pd.DataFrame
    new: pd.DataFrame
    costs: Costs = field(default_factory=Costs)
    version: int | None = None


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with sums over clusters.

    Attributes:
        candidate: the candidate.
        frozen, new: sums of both test sets; None for a set without a scored pixel.
        both: sums of both together; None without a scored pixel of the new batch.
        present: true pixels per class of the frozen test set, (K,); empty if it has no scored pixel.
    """

    candidate: Candidate
    frozen: ClusterSums | None
    new: ClusterSums | None
    both: ClusterSums | None
    present: tuple[int, ...]

    def class_scores(self, metric: str, classes: Sequence[str]) -> dict[str, float | None]:
        """Pooled score of each class on the frozen test set; None where it has no pixel of the class."""
        scores = run_scores(self.frozen) if self.frozen else {}
        present = self.present or (0,) * len(classes)
        return {
            name: finite(scores[f"{metric}/dataset/{name}"]) if pixels > 0 else None
            for name, pixels in zip(classes, present, strict=True)
        }

    def flaw(self, key: str) -> str:
        """Why the candidate cannot be judged: a score that is not a number; empty if there is none."""
        if finite(self.candidate.validation) is None:
            return "its validation score is not a number"
        scores = [run_scores(run)[key] for run in (self.frozen, self.new) if run]
        return "" if all(map(math.isfinite, scores)) else "its score on the test images is not a number"


def finite(value: float | None) -> float | None:
    """The value, or None if it is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def score(candidate: Candidate, foreground: Sequence[int]) -> ScoredCandidate:
    """Sum a candidate's tables over clusters; `foreground` contains class indices.

    Raises:
        DataError: a table is incomplete.
    """
    costs = Costs(*(finite(cost) for cost in vars(candidate.costs).values()))
    frozen, new = _sums(candidate.frozen, foreground), _sums(candidate.new, foreground)
    both = _sums(pd.concat([candidate.frozen, candidate.new]), foreground) if new else None
    present = frozen.sums["tp"] + frozen.sums["fn"] if frozen else np.zeros((1, 0))
    totals = tuple(int(n) for n in present.sum(0))
    return ScoredCandidate(replace(candidate, costs=costs), frozen, new, both, totals)


def _sums(table: pd.DataFrame, foreground: Sequence[int]) -> ClusterSums | None:
    """Sums over clusters; None if no pixel of the table can be scored."""
    return cluster_sums(table, foreground) if len(table) and (table["pixels"] > 0).any() else None


def require_same_regions(candidates: Sequence[ScoredCandidate]) -> None:
    """Check that all were scored on the same regions.

    Raises:
        DataError: they were not.
    """
    for runs in ([c.frozen for c in candidates], [c.new for c in candidates]):
        scored = [run for run in runs if run is not None]
        if scored:
            require_same(scored)


def gain(
    challenger: ClusterSums | None, champion: ClusterSums | None, sign: int, basis: Basis
) -> Gain | None:
    """Challenger minus champion, times `sign`, with an interval if there are enough clusters; None without scores.

    Args:
        challenger: sums over clusters.
        champion: sums over the same clusters.
        sign: sign of the metric; -1 where lower is better.
        basis: of the decision: score, error rate, bootstrap, seed and margin are used.
    """
    if challenger is None or champion is None:
        return None
    key = basis.score
    difference = finite(sign * (run_scores(challenger)[key] - run_scores(champion)[key]))
    if difference is None:
        return None
    clusters = int((foreground_shares(champion, challenger) > 0).sum())
    order = (champion, challenger) if sign > 0 else (challenger, champion)
    ends = difference_interval(*order, key, basis.error, basis.bootstrap, basis.seed)
    if ends is None:
        return Gain(_rounded(difference), None, None, None, clusters)
    # contains the difference, although the contributions of clusters sum to it only approximately
    low, high = min(ends[0], difference), max(ends[1], difference)
    # the lower half alone can be empty where the challenger is far worse on a few clusters
    smallest = basis.gate["margin"] + max(difference - low, (high - low) / 2)
    return Gain(_rounded(difference), _rounded(low), _rounded(high), _rounded(smallest), clusters)


def gains(
    challenger: ScoredCandidate, champion: ScoredCandidate, sign: int, basis: Basis
) -> Mapping[str, Gain | None]:
    """Gains by set of regions: frozen, new, and both together."""
    return {
        name: gain(getattr(challenger, name), getattr(champion, name), sign, basis)
        for name in ("frozen", "new", "both")
    }


def _rounded(value: float) -> float:
    # not -0.0
    return round(value, DIGITS) + 0.0
