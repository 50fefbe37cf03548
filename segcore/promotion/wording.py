"""The gate's decision as one or two sentences with the figures that decided."""

from collections.abc import Sequence

from segcore.comparison.text import difference_unit, interval_text, value_text
from segcore.gate_rules import Finding, Gain, kinds
from segcore.metrics import METRICS, Metric
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.rule_text import limit_text, unmet_text

# Words of a cost that is lower, by its name in the rule "cheaper".
_LESS = {"latency": "faster", "size": "smaller"}
# Rules that the sentence on a score and a cost covers.
_OWN_WORDS = ("better", "not_worse", "not_worse_new", "cheaper")


def sentence(
    outcome: str,
    champion: CandidateFigures | None,
    version: int | None,
    challengers: Sequence[ChallengerFigures],
    chosen: str | None,
    basis: Basis,
) -> str:
    """Why the gate decided as it did.

    Args:
        outcome: promoted, kept, first or refused.
        champion, challengers: their figures.
        version: of the champion in the registry, where it is known.
        chosen: name of the challenger that the sentence speaks of.
        basis: as in the decision's record.
    """
    one = next((c for c in challengers if c.name == chosen), None)
    if champion is None:
        if one is None:
            return "There is neither a champion nor a challenger, so nothing is decided."
        return _first(outcome, one, METRICS[basis.metric])
    known = f"{champion.title}, version {version}" if version is not None else champion.title
    kept = f"Kept the champion ({known})"
    if one is None:
        return f"{kept}: there is no challenger that differs from it."
    if outcome == "refused":
        return (
            f"{kept}: the frozen test set has {_clusters(basis.frozen['clusters'])}, "
            f"and no interval of a difference can be given from fewer than two."
        )
    new = f"the new {one.title}" if one.title == champion.title else str(one.title)
    start = f"{new[0].upper()}{new[1:]}"
    if outcome == "promoted":
        return f"{start} takes the place of {champion.title}: {_for(one, basis)}."
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
    found = _gain(frozen, basis, metric)
    if one.by == "better":
        margin = value_text(gate["margin"], metric.unit)
        text = f"it scores {_score(one, metric)} on the frozen test images, {found}, above the margin of {margin}"
    else:
        cheaper = _found(one, "cheaper")
        share = cheaper.measured
        assert share is not None
        text = (
            f"its {_cost(cheaper)} is {100 * share:.0f} % of the champion's "
            f"(needed: {limit_text(cheaper, metric)}), and it is no worse: {_score(one, metric)} on the frozen "
            f"test images, {found}, {limit_text(_found(one, 'not_worse'), metric)}"
        )
    new = one.difference["new"]
    return text if new is None else f"{text}; on the new batch it is no worse, {_gain(new, basis, metric)}"


def _against(one: ChallengerFigures, basis: Basis) -> str:
    """Limits that it does not meet; else how it scores, what it costs, and what other rules it does not meet."""
    metric = METRICS[basis.metric]
    limits = _unmet(one, metric, "limit")
    if limits:
        return f"cannot replace it: {'; '.join(limits)}"
    frozen = _frozen(one)
    interval = interval_text(frozen.low, frozen.high, metric.unit, signed=True, between=" and ")
    score = (
        f"scores {_standing(frozen, basis, metric)}: {_score(one, metric)} on the frozen test images "
        f"(difference between {interval} {difference_unit(metric.unit)})"
    )
    cheaper = _found(one, "cheaper")
    if _found(one, "better").passed:
        return f"{score}, but {'; '.join(_unmet(one, metric, 'required', 'better'))}"
    if cheaper.passed:
        return f"{score}, and {_cost_clause(cheaper)}, but {'; '.join(_unmet(one, metric, 'required', 'cheaper'))}"
    # the interval above says that it is not shown to be no worse
    others = _unmet(one, metric, "required", "better", "cheaper", without=_OWN_WORDS)
    cost = "" if cheaper.measured is None else f", and {_cost_clause(cheaper)}"
    return "; ".join([f"{score}{cost}", *others])


def _standing(frozen: Gain, basis: Basis, metric: Metric) -> str:
    """What the interval shows."""
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
    share, most = cheaper.measured, cheaper.threshold
    assert share is not None and most is not None
    less, saved = _LESS.get(_cost(cheaper), "cheaper"), 100 * (1 - share)
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
    """The gain on the frozen test set: there is one wherever a challenger is compared with a champion."""
    gain = one.difference["frozen"]
    assert gain is not None
    return gain


def _found(one: ChallengerFigures, kind: str) -> Finding:
    return next(rule for rule in one.rules if rule.kind == kind)


def _score(one: ChallengerFigures, metric: Metric) -> str:
    score = one.scores["frozen"]
    assert score is not None
    return f"{value_text(score, metric.unit)} {metric.unit}"


def _gain(found: Gain, basis: Basis, metric: Metric) -> str:
    """A difference with its interval."""
    text = f"{value_text(found.difference, metric.unit, signed=True)} {difference_unit(metric.unit)}"
    if found.low is None:
        return f"{text} (one cluster, no interval)"
    confidence = f"{100 * basis.confidence_each:.4g}"
    interval = interval_text(found.low, found.high, metric.unit, signed=True)
    return f"{text} ({confidence} % interval {interval})"


def _clusters(count: int) -> str:
    return {0: "no scored cluster", 1: "one cluster"}.get(count, f"{count} clusters")
