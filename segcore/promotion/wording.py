"""The gate's decision as one or two sentences with the figures that decided."""

from collections.abc import Sequence

from segcore.comparison.text import difference_unit, interval_text, value_text
from segcore.gate_rules import Finding, Gain, kinds
from segcore.metrics import METRICS, Metric
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.rule_text import limit_text, unmet_text

# What a lower cost means, by the cost's name in the rule "cheaper".
_LESS = {"latency": "faster", "size": "smaller"}
# Rules that the clauses on score and cost already cover.
_COVERED = ("better", "not_worse", "not_worse_new", "cheaper")


def sentence(
    outcome: str,
    champion: CandidateFigures | None,
    version: int | None,
    challengers: Sequence[ChallengerFigures],
    chosen: str | None,
    basis: Basis,
) -> str:
    """The reason for the gate's decision.

    Args:
        outcome: promoted, kept, first or refused.
        champion: figures of the champion; None: there is none.
        version: of the champion in the registry; None: unknown.
        challengers: figures of the challengers.
        chosen: name of the challenger that the sentence describes.
        basis: of the decision.
    """
    one = next((c for c in challengers if c.name == chosen), None)
    if champion is None:
        if one is None:
            return "There is neither a champion nor a challenger, so there is nothing to decide."
        return _first(outcome, one, METRICS[basis.metric])
    label = f"{champion.title}, version {version}" if version is not None else champion.title
    kept = f"Kept the champion ({label})"
    if one is None:
        return f"{kept}: no challenger differs from it."
    if outcome == "refused":
        return (
            f"{kept}: the frozen test set has {_clusters(basis.frozen['clusters'])}, "
            f"but an interval of the difference needs at least two."
        )
    new = f"the new {one.title}" if one.title == champion.title else str(one.title)
    start = f"{new[0].upper()}{new[1:]}"
    if outcome == "promoted":
        return f"{start} replaces {champion.title} as champion: {_for(one, basis)}."
    return f"{kept}. {start} {_against(one, basis)}."


def _first(outcome: str, one: ChallengerFigures, metric: Metric) -> str:
    best = f"the best validation score ({100 * one.validation:.1f} %)"
    if outcome == "first":
        limits = " and meets all minimum scores and cost limits" if one.rules else ""
        return f"{one.title} becomes the first champion: it has {best}{limits}."
    unmet = "; ".join(_unmet(one, metric, "limit"))
    return f"No champion is chosen: {one.title} has {best}, but {unmet}."


def _for(one: ChallengerFigures, basis: Basis) -> str:
    metric, gate, frozen = METRICS[basis.metric], basis.gate, _frozen(one)
    difference = _gain(frozen, basis, metric)
    if one.by == "better":
        margin = value_text(gate["margin"], metric.unit)
        text = f"it scores {_score(one, metric)} on the frozen test images, {difference}, above the margin of {margin}"
    else:
        cheaper = _finding(one, "cheaper")
        fraction = cheaper.measured
        assert fraction is not None
        text = (
            f"its {_cost(cheaper)} is {100 * fraction:.0f} % of the champion's "
            f"(needed: {limit_text(cheaper, metric)}), and it is no worse: {_score(one, metric)} on the frozen "
            f"test images, {difference}, {limit_text(_finding(one, 'not_worse'), metric)}"
        )
    new = one.difference["new"]
    return text if new is None else f"{text}; on the new batch it is no worse, {_gain(new, basis, metric)}"


def _against(one: ChallengerFigures, basis: Basis) -> str:
    """The limits that it does not meet; else its score, its cost, and the other rules that it does not meet."""
    metric = METRICS[basis.metric]
    limits = _unmet(one, metric, "limit")
    if limits:
        return f"cannot replace it: {'; '.join(limits)}"
    frozen = _frozen(one)
    interval = interval_text(frozen.low, frozen.high, metric.unit, signed=True, between=" and ")
    score = (
        f"scores {_relative_score(frozen, basis, metric)}: {_score(one, metric)} on the frozen test images "
        f"(difference between {interval} {difference_unit(metric.unit)})"
    )
    cheaper = _finding(one, "cheaper")
    if _finding(one, "better").passed:
        return f"{score}, but {'; '.join(_unmet(one, metric, 'required', 'better'))}"
    if cheaper.passed:
        return f"{score}, and {_cost_clause(cheaper)}, but {'; '.join(_unmet(one, metric, 'required', 'cheaper'))}"
    # the interval in `score` already shows whether it is no worse
    others = _unmet(one, metric, "required", "better", "cheaper", without=_COVERED)
    cost = "" if cheaper.measured is None else f", and {_cost_clause(cheaper)}"
    return "; ".join([f"{score}{cost}", *others])


def _relative_score(frozen: Gain, basis: Basis, metric: Metric) -> str:
    """Score relative to the champion's, as far as the interval shows it."""
    low, high = frozen.low, frozen.high
    assert low is not None and high is not None
    if low > basis.gate["margin"]:
        return "better"
    if low <= 0 <= high:
        return "the same"
    if high < 0:
        return "worse"
    margin = value_text(basis.gate["margin"], metric.unit)
    return f"better, but not by more than the margin of {margin} {difference_unit(metric.unit)}"


def _cost_clause(cheaper: Finding) -> str:
    """Such as "is 5 % faster (20 % would be needed)"."""
    fraction, most = cheaper.measured, cheaper.threshold
    assert fraction is not None and most is not None
    less, saved = _LESS.get(_cost(cheaper), "cheaper"), 100 * (1 - fraction)
    needed = "" if cheaper.passed else f" ({100 * (1 - most):.0f} % would be needed)"
    if round(saved) <= 0:
        return f"is not {less}{needed}"
    return f"is {saved:.0f} % {less}{needed}"


def _cost(cheaper: Finding) -> str:
    """The cost that the rule "cheaper" compared: "latency" or "size"."""
    return str(cheaper.rule).partition(": ")[2]


def _unmet(one: ChallengerFigures, metric: Metric, *roles: str, without: tuple[str, ...] = ()) -> list[str]:
    """Why rules of these roles are not met, one text each."""
    wanted = kinds(*roles) - set(without)
    return [unmet_text(r, metric) for r in one.rules if r.kind in wanted and not r.passed]


def _frozen(one: ChallengerFigures) -> Gain:
    """The gain on the frozen test set; never None where a challenger is compared with a champion."""
    gain = one.difference["frozen"]
    assert gain is not None
    return gain


def _finding(one: ChallengerFigures, kind: str) -> Finding:
    return next(rule for rule in one.rules if rule.kind == kind)


def _score(one: ChallengerFigures, metric: Metric) -> str:
    score = one.scores["frozen"]
    assert score is not None
    return f"{value_text(score, metric.unit)} {metric.unit}"


def _gain(gain: Gain, basis: Basis, metric: Metric) -> str:
    """A difference with its interval."""
    text = f"{value_text(gain.difference, metric.unit, signed=True)} {difference_unit(metric.unit)}"
    if gain.low is None:
        return f"{text} (one cluster, no interval)"
    confidence = f"{100 * basis.confidence_each:.4g}"
    interval = interval_text(gain.low, gain.high, metric.unit, signed=True)
    return f"{text} ({confidence} % interval {interval})"


def _clusters(count: int) -> str:
    return {0: "no scored cluster", 1: "one cluster"}.get(count, f"{count} clusters")
