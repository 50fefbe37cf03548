"""Candidates of the gate, scored on the two sets of test regions; gains with paired intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from segcore.comparison.cluster_sums import ClusterSums, cluster_sums, require_same, run_scores
from segcore.comparison.surfaces import no_surfaces
from segcore.errors import DataError
from segcore.gate_rules import DIGITS, Costs, Gain
from segcore.metrics import METRICS
from segcore.metrics.objects import true
from segcore.promotion.figures import Basis
from segcore.promotion.interval import difference_interval, foreground_shares
from segcore.tables.surfaces import of_images


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
        objects: object table (segcore.tables.objects) of both sets; None where the data have no objects.
        score: least score of a predicted object.
        measure: what `validation` is, such as "PQ".
        surfaces: surface table (segcore.tables.surfaces) of both sets; None where the data have no volumes.
    """

    name: str
    title: str
    validation: float
    frozen: pd.DataFrame
    new: pd.DataFrame
    costs: Costs = field(default_factory=Costs)
    version: int | None = None
    objects: pd.DataFrame | None = None
    score: float = 0.0
    measure: str = "IoU"
    surfaces: pd.DataFrame | None = None


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with sums over clusters.

    Attributes:
        candidate: the candidate.
        frozen, new: sums of both test sets; None for a set without a scored pixel.
        both: sums of both together; None without a scored pixel of the new batch.
        present: true pixels per class of the frozen test set, or true objects or surfaces for metrics of these, (K,);
            empty if it has no scored pixel.
    """

    candidate: Candidate
    frozen: ClusterSums | None
    new: ClusterSums | None
    both: ClusterSums | None
    present: tuple[int, ...]

    def class_scores(self, metric: str, classes: Sequence[str]) -> dict[str, float | None]:
        """Pooled score of each class on the frozen test set; None where it has no pixel or object of the class."""
        keys = [
            f"{metric}/dataset/{name}" for name, number in zip(classes, self.present, strict=False) if number
        ]
        scores = run_scores(self.frozen, keys) if self.frozen and keys else {}
        return {name: finite(scores.get(f"{metric}/dataset/{name}")) for name in classes}

    def flaw(self, key: str) -> str:
        """Why the candidate cannot be judged: a score that is not a number; empty if there is none."""
        if finite(self.candidate.validation) is None:
            return "its validation score is not a number"
        scores = [run_scores(run, [key])[key] for run in (self.frozen, self.new) if run]
        return "" if all(map(math.isfinite, scores)) else "its score on the test images is not a number"


def finite(value: float | None) -> float | None:
    """The value, or None if it is not a finite number."""
    return value if value is not None and math.isfinite(value) else None


def score(candidate: Candidate, foreground: Sequence[int], metric: str) -> ScoredCandidate:
    """Sum a candidate's tables over clusters.

    Args:
        candidate: the candidate.
        foreground: class indices.
        metric: name in `segcore.metrics.METRICS`; objects and surfaces are summed only if it is one of them.

    Raises:
        DataError: a table is incomplete, or the metric is one of objects or surfaces and there are none.
    """
    if METRICS[metric].of_objects and (candidate.objects is None or not len(candidate.objects)):
        raise DataError(
            f"compare.metric is {metric}, but the evaluation of {candidate.title} has no objects",
            "set data.instances, and evaluate.objects to components or watershed, in params.yaml and run again, or "
            "choose a metric of pixels, such as iou",
        )
    objects = candidate.objects if METRICS[metric].of_objects else None
    surfaces = candidate.surfaces if METRICS[metric].of_surfaces else None
    if METRICS[metric].of_surfaces and surfaces is None:
        raise no_surfaces(metric, candidate.title)
    costs = Costs(*(finite(cost) for cost in vars(candidate.costs).values()))
    both = pd.concat([candidate.frozen, candidate.new])
    new = candidate.new if _is_scored(candidate.new, surfaces) else candidate.new.iloc[:0]
    tables = [candidate.frozen, new, both if len(new) else new]
    runs: list[ClusterSums | None] = []
    limits = None
    for table in tables:
        run = None
        if _is_scored(table, surfaces):
            run = cluster_sums(table, foreground, objects, candidate.score, limits, surfaces)
        # small objects are the same ones everywhere: by the frozen test set, which is the first
        limits = limits or (run.objects.limits if run and run.objects else None)
        runs.append(run)
    frozen, new, together = runs
    present = _true(frozen) if frozen else np.zeros((1, 0))
    totals = tuple(int(n) for n in present.sum(0))
    return ScoredCandidate(replace(candidate, costs=costs), frozen, new, together, totals)


def _is_scored(table: pd.DataFrame, surfaces: pd.DataFrame | None) -> bool:
    """Whether any pixel of the table can be scored; for metrics of surfaces, any volume."""
    scored = table[table["pixels"] > 0] if len(table) else table
    return bool(len(scored) and (surfaces is None or len(of_images(surfaces, scored["item"]))))


def _true(run: ClusterSums) -> np.ndarray:
    """True pixels, or volumes with a true surface, of each cluster, (C, K), or true objects of each image, (I, K)."""
    if run.surfaces is not None:
        return run.surfaces.sums["true"]
    return run.sums["tp"] + run.sums["fn"] if run.objects is None else true(run.objects)


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
    metric = METRICS[basis.metric]
    new, old = (metric.compared(run_scores(run, [key])[key]) for run in (challenger, champion))
    difference = finite(sign * (new - old))
    if difference is None:
        return None
    clusters = int((foreground_shares(champion, challenger, basis.metric) > 0).sum())
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
