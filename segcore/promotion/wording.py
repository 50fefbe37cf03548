"""The gate's decision as one sentence that names the figures that decided."""

from collections.abc import Mapping, Sequence
from typing import Any

from segcore.comparison.leaderboard import METRIC_TITLES
from segcore.promotion.basis import Basis

RuleFacts = dict[str, Any]  # kind, rule, measured, threshold, passed, note
_UNITS = {"latency_ms": ("latency", "ms"), "memory_mb": ("memory", "MB"), "size_mb": ("size", "MB")}


def sentence(
    outcome: str,
    champion: Mapping[str, Any] | None,
    challengers: Sequence[Mapping[str, Any]],
    chosen: str | None,
    basis: Basis,
) -> str:
    """Why the gate decided as it did.

    Args:
        outcome: promoted, kept, first or refused.
        champion, challengers: as in the decision's record.
        chosen: name of the challenger that the sentence speaks of.
        basis: as in the decision's record.
    """
    one = next((c for c in challengers if c["name"] == chosen), None)
    if one is None:
        if champion is None:
            return "There is neither a champion nor a challenger, so nothing is decided."
        return f"{champion['title']} stays champion: there is no challenger that differs from it."
    if champion is None:
        return _first(outcome, one)
    if outcome == "refused":
        return (
            f"{champion['title']} stays champion: the frozen test set has {_clusters(basis.frozen['clusters'])}, "
            f"and no interval of a difference can be given from fewer than two."
        )
    who = _challenging(one, champion)
    if outcome == "promoted":
        return f"{who[0].upper()}{who[1:]} takes the place of {champion['title']}: {_for(one, basis)}."
    return f"{champion['title']} stays champion: {who}, the best challenger, {_against(one, basis)}."


def _challenging(one: Mapping[str, Any], champion: Mapping[str, Any]) -> str:
    """A challenger's title, told apart from a champion of the same architecture."""
    return f"a new {one['title']}" if one["title"] == champion["title"] else str(one["title"])


def _first(outcome: str, one: Mapping[str, Any]) -> str:
    score = f"validation score {100 * one['validation']:.1f} %"
    if outcome == "first":
        limits = ", and keeps all floors and ceilings" if one["rules"] else ""
        return f"{one['title']} becomes the first champion: it has the best {score}{limits}."
    return f"No champion is chosen: {one['title']}, the best by {score}, {_limits(one)}."


def _for(one: Mapping[str, Any], basis: Basis) -> str:
    gate, frozen = basis.gate, one["difference"]["frozen"]
    if one["by"] == "better":
        first = f"its {_metric(basis)} on the frozen test set is higher by {_points(frozen, basis)}"
        limit = f", above the margin of {100 * gate['margin']:.1f}"
    else:
        cheaper = _rule(one, "cheaper")
        what = cheaper["rule"].partition(": ")[2]
        first = (
            f"its {what} is {100 * cheaper['measured']:.0f} % of the champion's (at most "
            f"{100 * gate['cheaper']:.0f} %), and its {_metric(basis)} on the frozen test set is no worse: "
            f"{_points(frozen, basis)}"
        )
        limit = f", above the limit of {-100 * gate['not_worse']:.1f}"
    return f"{first}{limit}{_new_batch(one, basis)}"


def _against(one: Mapping[str, Any], basis: Basis) -> str:
    if not one["allowed"]:
        return _limits(one)
    gate, frozen = basis.gate, one["difference"]["frozen"]
    new, cheaper = _rule(one, "not_worse_new"), _rule(one, "cheaper")
    if _rule(one, "better")["passed"] and not new["passed"]:
        return (
            f"is better on the frozen test set by {_points(frozen, basis)}, but on the new batch it is not shown "
            f"to be no worse: {_points(one['difference']['new'], basis)}, not above {-100 * gate['not_worse']:.1f}"
        )
    text = (
        f"is not shown to be better: its {_metric(basis)} on the frozen test set differs by "
        f"{_points(frozen, basis)}, not above the margin of {100 * gate['margin']:.1f}"
    )
    if cheaper["passed"]:
        what, share = cheaper["rule"].partition(": ")[2], 100 * cheaper["measured"]
        where = "on the new batch" if _rule(one, "not_worse")["passed"] else "on the frozen test set"
        return f"{text}; its {what} is {share:.0f} % of the champion's, but it is not shown to be no worse {where}"
    if cheaper["measured"] is None:
        return text
    what = cheaper["rule"].partition(": ")[2]
    share = f"{what} {100 * cheaper['measured']:.0f} % of the champion's"
    return f"{text}; nor is it cheaper ({share}, at most {100 * gate['cheaper']:.0f} % asked)"


def _limits(one: Mapping[str, Any]) -> str:
    """The first floor or ceiling that it does not keep."""
    rule = next(r for r in one["rules"] if r["kind"] in ("ceiling", "floor") and not r["passed"])
    if rule["kind"] == "ceiling":
        what, unit = _UNITS[rule["rule"]]
        found = "was not measured" if rule["measured"] is None else f"is {rule['measured']:.1f} {unit}"
        return f"does not keep the ceiling of {what}: it {found}, at most {rule['threshold']:g} {unit} are allowed"
    found = rule["note"] if rule["measured"] is None else f"it scores {100 * rule['measured']:.1f} %"
    least = f"at least {100 * rule['threshold']:.1f} % are asked"
    return f"does not keep the floor of class {rule['rule']}: {found}, {least}"


def _new_batch(one: Mapping[str, Any], basis: Basis) -> str:
    new = one["difference"]["new"]
    return "" if new is None else f"; on the new batch it is no worse: {_points(new, basis)}"


def _rule(one: Mapping[str, Any], kind: str) -> RuleFacts:
    return next(rule for rule in one["rules"] if rule["kind"] == kind)


def _metric(basis: Basis) -> str:
    return f"foreground {METRIC_TITLES[basis.metric]}"


def _points(difference: Mapping[str, Any], basis: Basis) -> str:
    text = f"{100 * difference['difference']:+.1f} points"
    if difference["low"] is None:
        return f"{text} (one cluster, no interval)"
    confidence = f"{100 * basis.confidence_each:.4g}"
    return (
        f"{text} ({confidence} % interval {100 * difference['low']:+.1f} to {100 * difference['high']:+.1f})"
    )


def _clusters(count: int) -> str:
    return {0: "no scored cluster", 1: "one cluster"}.get(count, f"{count} clusters")
