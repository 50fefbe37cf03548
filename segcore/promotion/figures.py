"""The figures of a decision: of champion and challengers, and what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from segcore.gate_rules import Costs, Finding, Gain


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
        bootstrap: swaps of clusters per interval.
        seed: of the swaps.
        gate: section `gate` of params.yaml.
        required: clusters that an interval needs; None in files of earlier versions, which used a bootstrap.
        looks: decisions against a champion on this test set or a part of it, with this one; None: unknown.
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
    required: int | None = None
    looks: int | None = None

    @property
    def error(self) -> float:
        """Probability that a challenger that is no better appears to be, for each comparison (Bonferroni)."""
        return (1 - self.confidence) / 2 / max(self.comparisons, 1)


@dataclass(frozen=True, kw_only=True)
class CandidateFigures:
    """Scores and costs of a model; sets of regions are "frozen", the frozen test set, and "new", the new batch.

    Attributes:
        name: unique in the decision.
        title: as it is printed.
        validation: score on the validation split; None if it is not a number.
        scores: the score that decides, by set of regions; None where nothing is scored.
        classes: pooled score per class, by set of regions; None where nothing is scored.
        costs: measured on the machine that decided.
        flaw: why it cannot be judged: a score that is not a number; empty if it can.
    """

    name: str
    title: str
    validation: float | None
    scores: Mapping[str, float | None]
    classes: Mapping[str, Mapping[str, float | None] | None]
    costs: Costs
    flaw: str = ""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The figures of a part of a decision's file.

        Raises:
            KeyError, TypeError: a part is missing or unknown.
        """
        return cls(**{**content, "costs": Costs(**content["costs"])})


@dataclass(frozen=True, kw_only=True)
class ChallengerFigures(CandidateFigures):
    """Figures of a challenger, with what the rules found.

    Attributes:
        difference: gain on the champion, by set of regions, also of "both" together; None where nothing is scored;
            empty without a champion.
        rules: findings in the order of the rules.
        allowed: whether all limits are met.
        by: the way in which it takes the champion's place, "better" or "cheaper"; None where it does not.
    """

    difference: Mapping[str, Gain | None]
    rules: Sequence[Finding]
    allowed: bool
    by: str | None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The figures of a part of a decision's file.

        Raises:
            KeyError, TypeError: a part is missing or unknown.
        """
        gains = {name: Gain(**gain) if gain else None for name, gain in content["difference"].items()}
        rules = [Finding(**finding) for finding in content["rules"]]
        costs = Costs(**content["costs"])
        return cls(**{**content, "costs": costs, "difference": gains, "rules": rules})
