"""Candidates of the gate, scored on the two sets of test regions; gains with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from segcore.comparison.statistics import (
    ClusterSums,
    bootstrap,
    cluster_sums,
    interval,
    require_same,
    run_scores,
)
from segcore.gate_rules import DIGITS, Costs, Gain
from segcore.promotion.figures import Basis


@dataclass(frozen=True)
class Candidate:
    """A model that the gate compares.

    Attributes:
        name: unique among the challengers.
        title: printed name.
        validation: score on the validation split; decides only where there is no champion yet.
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
        present: true pixels per class of the frozen test set, (K,); empty if it has no scored pixel.
    """

    candidate: Candidate
    frozen: ClusterSums | None
    new: ClusterSums | None
    present: tuple[int, ...]

    def class_scores(self, metric: str, classes: Sequence[str]) -> dict[str, float | None]:
        """Pooled score of each class on the frozen test set; None where it has no pixel of the class."""
        scores = run_scores(self.frozen) if self.frozen else {}
        present = self.present or (0,) * len(classes)
        return {
            name: scores[f"{metric}/dataset/{name}"] if pixels > 0 else None
            for name, pixels in zip(classes, present, strict=True)
        }


def score(candidate: Candidate, foreground: Sequence[int]) -> ScoredCandidate:
    """Sum a candidate's tables over clusters; `foreground` contains class indices.

    Raises:
        DataError: a table is incomplete.
    """
    frozen, new = _sums(candidate.frozen, foreground), _sums(candidate.new, foreground)
    present = frozen.sums["tp"] + frozen.sums["fn"] if frozen else np.zeros((1, 0))
    return ScoredCandidate(candidate, frozen, new, tuple(int(n) for n in present.sum(0)))


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
    """Challenger minus champion, times `sign`; no interval from fewer than two clusters; None where nothing is scored.

    Args:
        challenger: sums over clusters.
        champion: sums over the same clusters.
        sign: sign of the metric; -1 where lower is better.
        basis: of the decision: score, bootstrap, seed and confidence_each are used.
    """
    if challenger is None or champion is None:
        return None
    key = basis.score
    estimate = run_scores(challenger)[key] - run_scores(champion)[key]
    low = high = None
    if len(challenger.clusters) > 1:
        a, b = (bootstrap([run], basis.bootstrap, basis.seed)[key] for run in (challenger, champion))
        low, high = interval(sign * (a - b), basis.confidence_each)
    values = (None if v is None else round(v, DIGITS) + 0.0 for v in (sign * estimate, low, high))
    return Gain(*values)  # type: ignore[arg-type]
