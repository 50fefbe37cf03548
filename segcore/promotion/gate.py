"""Whether a challenger replaces the champion: rules in a fixed order, each with the figures that decided.

Champion and challengers are scored on the same two sets of test regions: the frozen test set, on which the champion was
chosen, and the new batch. Intervals of the differences are those of `segcore.promotion.interval`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from segcore.comparison.cluster_sums import ClusterSums, run_scores
from segcore.gate_rules import DIGITS, Costs, Finding, Gain, Trial, apply, kinds
from segcore.metrics import METRICS
from segcore.params.operations import Gate
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.interval import required_clusters
from segcore.promotion.scoring import (
    Candidate,
    ScoredCandidate,
    finite,
    gains,
    require_same_regions,
    score,
)
from segcore.promotion.slice_floors import slice_scores
from segcore.promotion.wording import sentence

__all__ = ["Candidate", "Costs", "Decision", "decide"]

Outcome = Literal["promoted", "kept", "first", "refused"]


@dataclass(frozen=True)
class Judged:
    """A challenger with the findings of the rules, its gains by set of regions, and why it cannot be judged, if so.

    `gains` is empty without a champion; a gain is None without a scored region.
    """

    scored: ScoredCandidate
    findings: list[Finding]
    gains: Mapping[str, Gain | None]
    flaw: str

    def passed(self, *roles: str) -> bool:
        """Whether all rules of these roles that apply are met."""
        return all(finding.passed is not False for finding in self.findings if finding.kind in kinds(*roles))

    @property
    def allowed(self) -> bool:
        """Whether its scores are numbers and all limits are met."""
        return not self.flaw and self.passed("limit")

    @property
    def by(self) -> str | None:
        """Why it may replace the champion: "better" or "cheaper"; None if it may not."""
        if not self.allowed or not self.passed("required"):
            return None
        checked = {finding.kind for finding in self.findings}
        return next((way for way in ("better", "cheaper") if way in checked and self.passed(way)), None)


@dataclass(frozen=True)
class Decision:
    """The decision and its figures; `asdict` gives values that JSON can hold.

    Attributes:
        outcome: promoted, kept, first (there was no champion), or refused (the figures allow no decision).
        winner: the challenger that becomes champion.
        best: the winner, or the challenger that came closest; None if none has valid scores.
        reason: one sentence with the figures that decided.
        champion: scores and costs of the champion.
        challengers: scores, costs and findings of the rules of each challenger.
        basis: metric, test sets and confidence behind the figures.
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
    looks: int | None = None,
) -> Decision:
    """Apply the gate: all limits, and either better, or no worse and cheaper; otherwise keep the champion.

    Args:
        champion: None if there is none yet; then, among the challengers that meet all limits, the one with the best
            validation score is chosen, without an interval.
        challengers: all scored on the champion's regions; none with the champion's weights. One whose scores are not
            numbers cannot win.
        gate: margins and limits; its error rate is divided among the challengers (Bonferroni).
        metric: name in `segcore.metrics.METRICS`; its pooled foreground mean decides, its pooled class scores are
            compared with the minimum scores.
        foreground: indices of the classes in the mean.
        classes: names of all classes.
        seed: of the swaps.
        looks: number of decisions against a champion on this test set or a part of it, with this one; None: unknown.

    Raises:
        ParamsError: a minimum score is given for an unknown class.
        DataError: a table is incomplete, or candidates were not scored on the same regions.
    """
    key = f"{metric}/dataset/foreground_mean"
    contestants = [score(c, foreground, metric) for c in challengers]
    incumbent = score(champion, foreground, metric) if champion else None
    require_same_regions([*([incumbent] if incumbent else []), *contestants])
    basis = _basis(
        gate, metric, key, seed, incumbent or next(iter(contestants), None), len(challengers), looks
    )
    judged = [_judge(s, incumbent, gate, classes, basis) for s in contestants]
    outcome, winner, chosen = _choose(incumbent, judged)
    facts = [_facts(j, key, metric, classes) for j in judged]
    shown = CandidateFigures(**_candidate(incumbent, key, metric, classes)) if incumbent else None
    name = chosen.scored.candidate.name if chosen else None
    version = champion.version if champion else None
    measure = chosen.scored.candidate.measure if chosen else ""
    reason = sentence(outcome, shown, version, facts, name, basis, measure)
    best = name if chosen and not chosen.flaw else None
    return Decision(outcome, winner, best, reason, shown, facts, basis)


def _judge(
    challenger: ScoredCandidate,
    incumbent: ScoredCandidate | None,
    gate: Gate,
    classes: Sequence[str],
    basis: Basis,
) -> Judged:
    metric = METRICS[basis.metric]
    gained = gains(challenger, incumbent, metric.sign, basis) if incumbent else {}
    frozen, candidate = challenger.frozen, challenger.candidate
    of_slices = slice_scores(
        candidate.frozen,
        gate.floors,
        basis.metric,
        classes,
        frozen.foreground if frozen else (),
        candidate.objects,
        candidate.score,
        frozen.objects.limits if frozen and frozen.objects else None,
        candidate.surfaces,
    )
    trial = Trial(
        metric,
        challenger.class_scores(basis.metric, classes) | of_slices,
        challenger.candidate.costs,
        incumbent.candidate.costs if incumbent else None,
        **gained,
        required=required_clusters(basis.error),
    )
    findings = apply(trial, lambda name: getattr(gate, name))
    return Judged(challenger, findings, gained, challenger.flaw(basis.score))


def _basis(
    gate: Gate,
    metric: str,
    key: str,
    seed: int,
    one: ScoredCandidate | None,
    comparisons: int,
    looks: int | None,
) -> Basis:
    """Basis of the figures; each of n comparisons has error rate (1 - confidence) / n.

    The error rate of all together is then at most 1 - confidence (Bonferroni).
    """
    each = 1 - (1 - gate.confidence) / max(comparisons, 1)
    basis = Basis(
        metric=metric,
        score=key,
        frozen=_size(one.frozen if one else None),
        new=_size(one.new if one else None),
        confidence=gate.confidence,
        comparisons=comparisons,
        confidence_each=round(each, DIGITS),
        bootstrap=gate.bootstrap,
        seed=seed,
        gate=gate.model_dump(mode="json"),
        looks=looks,
    )
    return replace(basis, required=required_clusters(basis.error))


def _size(run: ClusterSums | None) -> dict[str, int]:
    return {"regions": len(run.items) if run else 0, "clusters": len(run.clusters) if run else 0}


def _choose(
    incumbent: ScoredCandidate | None, judged: Sequence[Judged]
) -> tuple[Outcome, str | None, Judged | None]:
    """Outcome, name of the winner, and the challenger that the sentence describes."""

    def rank(j: Judged) -> tuple[bool, bool, float, str]:
        gained, validation = j.gains.get("frozen"), finite(j.scored.candidate.validation)
        worth = gained.difference if gained else validation
        return bool(j.flaw), incumbent is not None and not j.allowed, -(worth or 0.0), j.scored.candidate.name

    ranked = sorted(judged, key=rank)
    closest = next(iter(ranked), None)
    if incumbent is None:
        fit = next((j for j in ranked if j.allowed), None)
        return ("first", fit.scored.candidate.name, fit) if fit else ("refused", None, closest)
    frozen = [j.gains["frozen"] for j in ranked if not j.flaw]
    if judged and all(gained is None or gained.low is None for gained in frozen):
        return "refused", None, closest
    winner = next((j for j in ranked if j.by), None)
    return ("promoted", winner.scored.candidate.name, winner) if winner else ("kept", None, closest)


def _candidate(s: ScoredCandidate, key: str, metric: str, classes: Sequence[str]) -> dict[str, Any]:
    """The fields of CandidateFigures."""
    parts = {"frozen": _pooled(s.frozen, key, metric, classes), "new": _pooled(s.new, key, metric, classes)}
    return {
        "name": s.candidate.name,
        "title": s.candidate.title,
        "validation": _rounded(s.candidate.validation),
        "scores": {part: scores.get(key) for part, scores in parts.items()},
        "classes": {
            part: {name: scores.get(f"{metric}/dataset/{name}") for name in classes} if scores else None
            for part, scores in parts.items()
        },
        "costs": s.candidate.costs,
    }


def _pooled(
    run: ClusterSums | None, key: str, metric: str, classes: Sequence[str]
) -> dict[str, float | None]:
    """Rounded pooled scores by key: the one that decides, and those of the classes; empty without a scored region."""
    if run is None:
        return {}
    scored = [classes[i] for i in run.foreground] if METRICS[metric].of_foreground else classes
    keys = [key, *(f"{metric}/dataset/{name}" for name in scored)]
    return {name: _rounded(value) for name, value in run_scores(run, keys).items()}


def _rounded(value: float) -> float | None:
    return None if finite(value) is None else round(value, DIGITS)


def _facts(j: Judged, key: str, metric: str, classes: Sequence[str]) -> ChallengerFigures:
    return ChallengerFigures(
        **_candidate(j.scored, key, metric, classes),
        flaw=j.flaw,
        difference=j.gains,
        rules=j.findings,
        allowed=j.allowed,
        by=j.by,
    )
