"""What the figures of a decision rest on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Basis:
    """Metric, test sets, and settings of the intervals.

    Attributes:
        metric: of `segcore.metrics`.
        score: key of the score that decides.
        frozen: numbers of regions and clusters of the frozen test set.
        new: the same of the new batch.
        confidence: of all comparisons together, in (0, 1).
        comparisons: number of challengers.
        confidence_each: of each interval, in (0, 1) (Bonferroni).
        bootstrap: draws of the paired bootstrap.
        seed: of the bootstrap.
        gate: section `gate` of params.yaml.
    """

    metric: str
    score: str
    frozen: Mapping[str, int]
    new: Mapping[str, int]
    confidence: float
    comparisons: int
    confidence_each: float
    bootstrap: int
    seed: int
    gate: Mapping[str, Any]
