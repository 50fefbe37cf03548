"""Whether a challenger replaces the champion: rules in a fixed order, each with the figures that decided.

Champion and challengers are scored on the same two sets of test regions: the frozen test set, on which the champion was
chosen, and the new batch. Differences come from a paired bootstrap of whole clusters (Efron and Tibshirani 1993,
"An Introduction to the Bootstrap", chapter 8): the same draws of clusters for both, subtracted draw by draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segcore.comparison.statistics import run_scores
from segcore.gate_rules import DIGITS, Costs, Finding, Gain, Trial, apply, kinds
from segcore.metrics import METRICS
from segcore.params.operations import Gate
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.scoring import Candidate, ScoredCandidate, gain, require_same_regions, score
from segcore.promotion.slice_floors import slice_scores
from segcore.promotion.wording import sentence

__all__ = ["Candidate", "Costs", "Decision", "decide"]

Outcome = Literal["promoted", "kept", "first", "refused"]


@dataclass(frozen=True)
class Judged:
    """A challenger with the findings of the rules; gains are None without a champion or without a scored region."""

    scored: ScoredCandidate
    findings: list[Finding]
    frozen: Gain | None = None
    new: Gain | None = None

    def passed(self, *roles: str) -> bool:
        """Whether all rules of these roles are met."""
        return all(finding.passed for finding in self.findings if finding.kind in kinds(*roles))

    @property
    def allowed(self) -> bool:
        """Whether all limits are met."""
        return self.passed("limit")

    @property
    def by(self) -> str | None:
        """Why it may replace the champion: "better" or "cheaper"; None if it may not."""
        if not self.passed("limit", "required"):
            return None
        checked = {finding.kind for finding in self.findings}
        return next((way for way in ("better", "cheaper") if way in checked and self.passed(way)), None)


@dataclass(frozen=True)
class Decision:
    """The decision and its figures; `asdict` gives values that JSON can hold.

    Attributes:
        outcome: promoted, kept, first (there was no champion), or refused (the figures allow no decision).
        winner: the challenger that becomes champion.
        best: the winner, or the challenger that came closest.
        reason: one sentence with the figures that decided.
        champion: scores and costs of the champion.
        challengers: scores, costs and findings of the rules of each challenger.
        basis: metric, test sets, confidence and number of draws behind the figures.
    """

    outcome: Outcome
    winner: str | None
    best: str | None
    reason: str
    champion: CandidateFigures | None
    challengers: list[ChallengerFigures]
    basis: Basis


def decide(
    champion: Candidate | None,
    challengers: list[Candidate],
    gate: Gate,
    metric: str,
    foreground: list[int],
    classes: list[str],
    seed: int,
) -> Decision:
    """Apply the gate: all limits, and either better, or no worse and cheaper; otherwise keep the champion.

    Args:
        champion: None if there is none yet; then, among the challengers that meet all limits, the one with the best
            validation score is chosen, without an interval.
        challengers: all scored on the champion's regions; none with the champion's weights.
        gate: margins and limits; its error rate is divided among the challengers (Bonferroni).
        metric: name in `segcore.metrics.METRICS`; its pooled foreground mean decides, its pooled class scores are
            compared with the minimum scores.
        foreground: indices of the classes in the mean.
        classes: names of all classes.
        seed: of the bootstrap.

    Raises:
        ParamsError: a minimum score is given for an unknown class.
        DataError: a table is incomplete, or candidates were not scored on the same regions.
    """
    key = f"{metric}/dataset/foreground_mean"
    contestants = [score(c, foreground) for c in challengers]
    incumbent = score(champion, foreground) if champion else None
    require_same_regions([*([incumbent] if incumbent else []), *contestants])
    basis = _basis(gate, metric, key, seed, incumbent or next(iter(contestants), None), len(challengers))
    judged = [_judge(s, incumbent, gate, classes, basis) for s in contestants]
    outcome, winner, best = _choose(incumbent, judged, basis)
    facts = [_facts(j, incumbent is not None, key, metric, classes) for j in judged]
    shown = CandidateFigures(**_candidate(incumbent, key, metric, classes)) if incumbent else None
    chosen = best.scored.candidate.name if best else None
    version = champion.version if champion else None
    reason = sentence(outcome, shown, version, facts, chosen, basis)
    return Decision(outcome, winner, chosen, reason, shown, facts, basis)


def _judge(
    challenger: ScoredCandidate,
    incumbent: ScoredCandidate | None,
    gate: Gate,
    classes: Sequence[str],
    basis: Basis,
) -> Judged:
    metric = METRICS[basis.metric]
    frozen = gain(challenger.frozen, incumbent.frozen, metric.sign, basis) if incumbent else None
    new = gain(challenger.new, incumbent.new, metric.sign, basis) if incumbent else None
    champion_costs = incumbent.candidate.costs if incumbent else None
    foreground = challenger.frozen.foreground if challenger.frozen else ()
    of_slices = slice_scores(challenger.candidate.frozen, gate.floors, basis.metric, classes, foreground)
    class_scores = challenger.class_scores(basis.metric, classes) | of_slices
    trial = Trial(metric, class_scores, challenger.candidate.costs, champion_costs, frozen, new)
    return Judged(challenger, apply(trial, lambda name: getattr(gate, name)), frozen, new)


def _basis(
    gate: Gate, metric: str, key: str, seed: int, one: ScoredCandidate | None, comparisons: int
) -> Basis:
    """Basis of the figures; each of n comparisons has error rate (1 - confidence) / n.

    The error rate of all together is then at most 1 - confidence (Bonferroni).
    """
    sizes = {
        name: {"regions": len(run.items), "clusters": len(run.clusters)}
        if run
        else {"regions": 0, "clusters": 0}
        for name, run in (("frozen", one.frozen if one else None), ("new", one.new if one else None))
    }
    each = 1 - (1 - gate.confidence) / max(comparisons, 1)
    return Basis(
        metric=metric,
        score=key,
        **sizes,
        confidence=gate.confidence,
        comparisons=comparisons,
        confidence_each=round(each, DIGITS),
        bootstrap=gate.bootstrap,
        seed=seed,
        gate=gate.model_dump(mode="json"),
    )


def _choose(
    incumbent: ScoredCandidate | None, judged: Sequence[Judged], basis: Basis
) -> tuple[Outcome, str | None, Judged | None]:
    """Outcome, name of the winner, and the challenger that the sentence describes."""
    if incumbent is None:
        ranked = sorted(judged, key=lambda j: (-j.scored.candidate.validation, j.scored.candidate.name))
        fit = next((j for j in ranked if j.allowed), None)
        return (
            ("first", fit.scored.candidate.name, fit) if fit else ("refused", None, next(iter(ranked), None))
        )

    def rank(j: Judged) -> tuple[bool, float, str]:
        gained = j.frozen.difference if j.frozen else j.scored.candidate.validation
        return not j.allowed, -gained, j.scored.candidate.name

    ranked = sorted(judged, key=rank)
    best = next(iter(ranked), None)
    if judged and basis.frozen["clusters"] < 2:
        return "refused", None, best
    winner = next((j for j in ranked if j.by), None)
    return ("promoted", winner.scored.candidate.name, winner) if winner else ("kept", None, best)


def _candidate(s: ScoredCandidate, key: str, metric: str, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of CandidateFigures."""
    frozen, new = (run_scores(run) if run else None for run in (s.frozen, s.new))

    def of(scores: Mapping[str, float] | None, name: str) -> float | None:
        return round(scores[name], DIGITS) if scores else None

    return {
        "name": s.candidate.name,
        "title": s.candidate.title,
        "validation": round(s.candidate.validation, DIGITS),
        "scores": {"frozen": of(frozen, key), "new": of(new, key)},
        "classes": {
            part: {name: of(scores, f"{metric}/dataset/{name}") for name in classes} if scores else None
            for part, scores in (("frozen", frozen), ("new", new))
        },
        "costs": s.candidate.costs,
    }


def _facts(
    j: Judged, against_champion: bool, key: str, metric: str, classes: Sequence[str]
) -> ChallengerFigures:
    return ChallengerFigures(
        **_candidate(j.scored, key, metric, classes),
        difference={"frozen": j.frozen, "new": j.new} if against_champion else {},
        rules=j.findings,
        allowed=j.allowed,
        by=j.by,
    )
