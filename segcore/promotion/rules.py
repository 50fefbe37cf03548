"""The gate's rules: what each measures, its threshold, and whether a challenger keeps it."""

from collections.abc import Mapping, Sequence
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
from segcore.params.operations import Gate
from segcore.promotion.basis import Basis
from segcore.promotion.wording import RuleFacts

COSTS = ("latency_ms", "memory_mb", "size_mb")
DIGITS = 6  # far finer than the statistics
_TIE = 1e-12  # sums in another order differ by rounding alone


@dataclass(frozen=True)
class Costs:
    """What one prediction costs; None where it was not measured. Latency of one tile, memory at its peak, bundle."""

    latency_ms: float | None = None
    memory_mb: float | None = None
    size_mb: float | None = None


@dataclass(frozen=True)
class Candidate:
    """Who is judged.

    Attributes:
        name: unique among the challengers.
        title: as it is printed.
        validation: score on the validation split, in [0, 1]; only chooses where there is no champion yet.
        frozen: evaluation table (see `segcore.metrics.pixel`) of the frozen test set.
        new: evaluation table of the new batch; may hold no row.
        costs: measured on the machine that decides.
    """

    name: str
    title: str
    validation: float
    frozen: pd.DataFrame
    new: pd.DataFrame
    costs: Costs = Costs()


@dataclass(frozen=True)
class Scored:
    who: Candidate
    frozen: ClusterSums | None
    new: ClusterSums | None
    present: tuple[int, ...]  # pixels of each class on the frozen test set


@dataclass(frozen=True)
class Judged:
    scored: Scored
    rules: list[RuleFacts]
    differences: dict[str, dict[str, float | None] | None] = field(default_factory=dict)

    def passed(self, *kinds: str) -> bool:
        return all(rule["passed"] for rule in self.rules if rule["kind"] in kinds)

    @property
    def allowed(self) -> bool:
        return self.passed("ceiling", "floor")

    @property
    def by(self) -> str | None:
        """The rule that lets it take the champion's place."""
        if not self.allowed or not self.passed("not_worse_new"):
            return None
        if self.passed("better"):
            return "better"
        return "cheaper" if self.passed("not_worse", "cheaper") else None


def scored(who: Candidate, foreground: Sequence[int]) -> Scored:
    frozen, new = _sums(who.frozen, foreground), _sums(who.new, foreground)
    there = frozen.sums["tp"] + frozen.sums["fn"] if frozen else np.zeros((1, 0))
    return Scored(who, frozen, new, tuple(int(n) for n in there.sum(0)))


def _sums(table: pd.DataFrame, foreground: Sequence[int]) -> ClusterSums | None:
    """None where no pixel of the table can be scored."""
    return cluster_sums(table, foreground) if len(table) and (table["pixels"] > 0).any() else None


def require_same_regions(scored: Sequence[Scored]) -> None:
    for runs in ([s.frozen for s in scored], [s.new for s in scored]):
        there = [run for run in runs if run is not None]
        if there:
            require_same(there)


def judge(
    s: Scored,
    holder: Scored | None,
    gate: Gate,
    key: str,
    metric: str,
    classes: Sequence[str],
    basis: Basis,
) -> Judged:
    rules = [*_ceilings(s.who.costs, gate), *_floors(s, gate, metric, classes)]
    if holder is None:
        return Judged(s, rules)
    frozen = _difference(s.frozen, holder.frozen, key, basis)
    new = _difference(s.new, holder.new, key, basis)
    rules += [
        _above("better", "better on the frozen test set", frozen, gate.margin),
        _above("not_worse", "no worse on the frozen test set", frozen, -gate.not_worse),
        _on_new_batch(new, gate),
        _cheaper(s.who.costs, holder.who.costs, gate),
    ]
    return Judged(s, rules, {"frozen": frozen, "new": new})


def _rule(
    kind: str, name: str, measured: float | None, threshold: float | None, passed: bool, note: str = ""
) -> RuleFacts:
    shown = None if measured is None else round(measured, DIGITS) + 0.0
    return {
        "kind": kind, "rule": name, "measured": shown, "threshold": threshold, "passed": bool(passed), "note": note
    }  # fmt: skip


def _ceilings(costs: Costs, gate: Gate) -> list[RuleFacts]:
    """A cost that was not measured does not keep its ceiling."""
    rules = []
    for name in COSTS:
        most, found = getattr(gate.ceilings, name), getattr(costs, name)
        if most is not None:
            note = "not measured, so not shown to keep the ceiling" if found is None else ""
            rules.append(_rule("ceiling", name, found, most, found is not None and found <= most, note))
    return rules


def _floors(s: Scored, gate: Gate, metric: str, classes: Sequence[str]) -> list[RuleFacts]:
    """A class without a pixel on the frozen test set does not keep its floor: nothing shows that it would."""
    scores, rules = (run_scores(s.frozen) if s.frozen else {}), []
    for name, least in gate.floors.items():
        there = s.frozen is not None and s.present[classes.index(name)] > 0
        found = scores[f"{metric}/dataset/{name}"] if there else None
        note = "" if there else "the frozen test set has no pixel of this class, so nothing shows its score"
        rules.append(_rule("floor", name, found, least, found is not None and found >= least - _TIE, note))
    return rules


def _difference(
    one: ClusterSums | None, other: ClusterSums | None, key: str, basis: Basis
) -> dict[str, float | None] | None:
    """Challenger minus champion; no interval from fewer than two clusters; None where nothing is scored."""
    if one is None or other is None:
        return None
    estimate = run_scores(one)[key] - run_scores(other)[key]
    low = high = None
    if len(one.clusters) > 1:
        a, b = (bootstrap([run], basis.bootstrap, basis.seed)[key] for run in (one, other))
        low, high = interval(a - b, basis.confidence_each)
    values = {"difference": estimate, "low": low, "high": high}
    return {name: None if v is None else round(v, DIGITS) + 0.0 for name, v in values.items()}


def _above(kind: str, name: str, difference: Mapping[str, float | None] | None, limit: float) -> RuleFacts:
    low = difference["low"] if difference else None
    if low is None:
        return _rule(kind, name, None, limit, False, "no interval: fewer than two clusters")
    return _rule(kind, name, low, limit, low > limit + _TIE, "the interval's lower end")


def _on_new_batch(difference: Mapping[str, float | None] | None, gate: Gate) -> RuleFacts:
    """A batch without a scored region has no say; of one cluster, the difference itself has to do."""
    name, limit = "no worse on the new batch", -gate.not_worse
    if difference is None:
        return _rule("not_worse_new", name, None, limit, True, "the new batch has no scored region")
    low, found = difference["low"], difference["difference"]
    if low is None and found is not None:
        note = "one cluster gives no interval: the difference itself counts"
        return _rule("not_worse_new", name, found, limit, found > limit + _TIE, note)
    return _above("not_worse_new", name, difference, limit)


def _cheaper(costs: Costs, others: Costs, gate: Gate) -> RuleFacts:
    """Cost as a share of the champion's: the latency, or the size where either's latency was not measured."""
    for name, what in (("latency_ms", "latency"), ("size_mb", "size")):
        own, its = getattr(costs, name), getattr(others, name)
        if own is not None and its:
            share = own / its
            return _rule("cheaper", f"cheaper: {what}", share, gate.cheaper, share <= gate.cheaper,
                         f"{what} as a share of the champion's")  # fmt: skip
    return _rule("cheaper", "cheaper", None, gate.cheaper, False, "neither latency nor size was measured")
