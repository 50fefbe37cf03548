"""The gate's rules, one `Rule` each: what it measures, the key of its limit under `gate` in params.yaml, its texts.

A new rule is one more row of RULES: the gate applies it, and decisions, terminal and report show it. Import-light
(NumPy and pydantic), because the section `gate` of params.yaml is built from the rules' parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from segcore.errors import ParamsError
from segcore.latency import Latency, doubt
from segcore.metrics import Metric

# decimals of measured values, far finer than the statistics
DIGITS = 6
# tolerance for rounding, because sums in another order differ in the last digits
_TIE = 1e-12


@dataclass(frozen=True)
class Costs:
    """Costs of a model: latency per tile, peak memory, size of the bundle. None where not measured.

    The latency is a median over rounds in which the models take turns; latency_low_ms and latency_high_ms are the
    quartiles, None in files of earlier versions.
    """

    latency_ms: float | None = None
    memory_mb: float | None = None
    size_mb: float | None = None
    latency_low_ms: float | None = None
    latency_high_ms: float | None = None

    @property
    def latency(self) -> Latency:
        """Latency with its quartiles; it must have been measured."""
        assert self.latency_ms is not None
        return Latency(self.latency_ms, self.latency_low_ms, self.latency_high_ms)


@dataclass(frozen=True)
class Gain:
    """How much better a challenger scores than the champion, with the ends of the interval (None without one).

    In the metric's own range. For metrics where lower is better, a lower score is a positive gain.

    Attributes:
        difference: score of the challenger minus that of the champion.
        low, high: ends of the interval; None with too few clusters.
        smallest: about the difference that would have been just enough to be better: the margin plus the interval's
            lower half, or half of its width if that is more; None without an interval.
        clusters: clusters with foreground; None in files of earlier versions.
    """

    difference: float
    low: float | None
    high: float | None
    smallest: float | None = None
    clusters: int | None = None


@dataclass(frozen=True)
class Trial:
    """A challenger's figures, the input of every rule.

    Attributes:
        metric: the compared metric.
        class_scores: pooled score on the frozen test set per class, and per slice that gate.floors names; None where it
            has no pixel of them.
        costs: costs of the challenger.
        champion_costs: costs of the champion; None without a champion.
        frozen, new, both: gain on the frozen test set, on the new batch, and on both together; None where no region is
            scored.
        required: clusters that an interval needs.
    """

    metric: Metric
    class_scores: Mapping[str, float | None]
    costs: Costs
    champion_costs: Costs | None = None
    frozen: Gain | None = None
    new: Gain | None = None
    both: Gain | None = None
    required: int = 0


@dataclass(frozen=True)
class Finding:
    """Result of a rule for one challenger.

    Attributes:
        kind: kind of the rule.
        rule: subject of the rule, such as a class or a cost, or its title.
        measured, threshold: the compared values; measured is None where it could not be measured.
        passed: whether the rule is met; None where it does not apply.
        note: remark on the measured value.
    """

    kind: str
    rule: str
    measured: float | None
    threshold: float | None
    passed: bool | None
    note: str = ""


@dataclass(frozen=True)
class Parameter:
    """A key under `gate` in params.yaml; `field` is a pydantic Field with default, bounds and description."""

    name: str
    annotation: Any
    field: Any


@dataclass(frozen=True)
class Rule:
    """One rule of the gate.

    Attributes:
        kind: key of the rule in decisions.
        title: printed name; "{}" is replaced by the subject of a finding.
        measures: printed name of the measured value; "{}" as in the title.
        side: required relation of the measured value to the limit.
        unit: of measured value and limit: "score" for scores, "points" for gains, "%" for shares; or by subject.
        role: "limit" for every challenger, also without a champion; "required" against a champion; "better" and
            "cheaper" for the two ways in which a challenger wins.
        parameter: the key of its limit in params.yaml.
        check: function of a challenger's figures and the limit that returns one finding per subject.
        subjects: printed names of subjects that are keys.
    """

    kind: str
    title: str
    measures: str
    side: Literal["at least", "at most", "above"]
    unit: str | Mapping[str, str]
    role: Literal["limit", "required", "better", "cheaper"]
    parameter: Parameter
    check: Callable[[Trial, Any], list[Finding]]
    subjects: Mapping[str, str] = field(default_factory=dict)


class Ceilings(BaseModel):
    """Cost limits of a champion; costs are measured on the machine that runs the gate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_ms: float | None = Field(default=None, gt=0, description="milliseconds per tile; null: no limit")
    memory_mb: float | None = Field(default=None, gt=0, description="peak memory in MB; null: no limit")
    size_mb: float | None = Field(default=None, gt=0, description="size of the bundle in MB; null: no limit")


def finding(
    kind: str, rule: str, measured: float | None, limit: float, passed: bool | None, note: str = ""
) -> Finding:
    """A finding with its measured value rounded."""
    shown = None if measured is None else round(measured, DIGITS) + 0.0
    return Finding(kind, rule, shown, limit, None if passed is None else bool(passed), note)


def _ceilings(trial: Trial, limits: Ceilings) -> list[Finding]:
    """Cost limits; a cost that was not measured does not meet its limit."""
    findings = []
    for name in Ceilings.model_fields:
        most, cost = getattr(limits, name), getattr(trial.costs, name)
        if most is not None:
            note = "not measured, so not shown to meet the limit" if cost is None else ""
            findings.append(finding("ceiling", name, cost, most, cost is not None and cost <= most, note))
    return findings


def _floors(trial: Trial, limits: Mapping[str, float]) -> list[Finding]:
    """Minimum scores, or highest ones where lower is better; a class or slice without a pixel does not meet its own."""
    unknown = sorted(set(limits) - set(trial.class_scores))
    if unknown:
        raise ParamsError(
            f"gate.floors names {unknown[0]!r}, which is not a class; classes: {', '.join(trial.class_scores)}",
            "correct gate.floors in params.yaml",
        )
    findings, sign = [], trial.metric.sign
    for name, least in limits.items():
        score = trial.class_scores[name]
        what, kind = "slice" if "=" in name else "class", "object" if trial.metric.of_objects else "pixel"
        note = (
            f"the frozen test set has no {kind} of this {what}, so nothing shows its score"
            if score is None
            else ""
        )
        passed = score is not None and sign * trial.metric.compared(score) >= sign * least - _TIE
        findings.append(finding("floor", name, score, least, passed, note))
    return findings


def too_few(clusters: int, required: int) -> str:
    """Text for fewer clusters than an interval needs."""
    have = "1 cluster" if clusters == 1 else f"{clusters} clusters"
    return f"{have} with foreground, at least {required} are needed: {required - clusters} more"


def _above(kind: str, name: str, gain: Gain | None, limit: float, required: int) -> list[Finding]:
    if gain is None or gain.low is None:
        note = too_few(gain.clusters or 0, required) if gain else "nothing is scored"
        return [finding(kind, name, None, limit, False, note)]
    return [finding(kind, name, gain.low, limit, gain.low > limit + _TIE, "the interval's lower end")]


def _better(trial: Trial, margin: float) -> list[Finding]:
    return _above("better", "better on the frozen test set", trial.frozen, margin, trial.required)


def _not_worse(trial: Trial, loss: float) -> list[Finding]:
    return _above("not_worse", "no worse on the frozen test set", trial.frozen, -loss, trial.required)


def _not_worse_new(trial: Trial, loss: float) -> list[Finding]:
    """Not worse on the new batch; with too few clusters, its difference and the interval of both sets must show it."""
    kind, name, new, both = "not_worse_new", "no worse on the new batch", trial.new, trial.both
    if new is None or not new.clusters:
        what = "scored region" if new is None else "foreground"
        return [finding(kind, name, None, -loss, None, f"the new batch has no {what}")]
    if new.low is not None:
        return _above(kind, name, new, -loss, trial.required)
    if both is None or both.low is None:
        return _above(kind, name, both, -loss, trial.required)
    note = f"{new.clusters} of {trial.required} clusters: the lower of its difference and the interval with all images"
    least = min(new.difference, both.low)
    return [finding(kind, name, least, -loss, least > -loss + _TIE, note)]


def _cheaper(trial: Trial, most: float) -> list[Finding]:
    """Cost relative to the champion's: latency, or size if the latency of either was not measured.

    Rounds that disagree, or whose middle halves overlap, show neither a lower nor a higher latency.
    """
    for name, what in (("latency_ms", "latency"), ("size_mb", "size")):
        cost, champion_cost = getattr(trial.costs, name), getattr(trial.champion_costs, name)
        if cost is not None and champion_cost:
            ratio, note = cost / champion_cost, f"{what} relative to the champion's"
            if name == "latency_ms" and ratio != 1 and trial.champion_costs is not None:
                why = doubt(*sorted([trial.costs.latency, trial.champion_costs.latency]))
                if why:
                    return [finding("cheaper", f"cheaper: {what}", None, most, False, why)]
            return [finding("cheaper", f"cheaper: {what}", ratio, most, ratio <= most, note)]
    return [finding("cheaper", "cheaper", None, most, False, "neither latency nor size was measured")]


_NOT_WORSE = Parameter(
    "not_worse",
    float,
    Field(
        default=0.01,
        ge=0,
        description="not worse: the interval of the difference is above minus this; below 1, except for metrics "
        "without an upper limit, such as count_error_area, which need a value in their own unit",
    ),
)
_COSTS = {"latency_ms": "latency", "memory_mb": "memory", "size_mb": "size"}

RULES: tuple[Rule, ...] = (
    Rule(
        "ceiling", "{} limit", "{}", "at most",
        {"latency_ms": "ms", "memory_mb": "MB", "size_mb": "MB"}, "limit",
        Parameter("ceilings", Ceilings, Field(default=Ceilings(), description="cost limits")),
        _ceilings, subjects=_COSTS,
    ),
    Rule(
        "floor", "minimum score of {}", "score of {}", "at least", "score", "limit",
        Parameter(
            "floors", dict[str, float],
            Field(
                default={},
                description="lowest allowed score on the frozen test set (highest, where lower is better), per class, "
                "slice (`site=oslo`) or class in a slice (`road site=oslo`)",
            ),
        ),
        _floors,
    ),
    Rule(
        "better", "{}", "lower end of the difference's interval", "above", "points", "better",
        Parameter(
            "margin", float,
            Field(
                default=0.0, ge=0,
                description="better: the interval of the difference is above this; below 1, except for metrics without "
                "an upper limit",
            ),
        ),
        _better,
    ),
    Rule(
        "not_worse", "{}", "lower end of the difference's interval", "above", "points", "cheaper",
        _NOT_WORSE, _not_worse,
    ),
    Rule(
        "not_worse_new", "{}", "lower end of the difference's interval", "above", "points", "required",
        _NOT_WORSE, _not_worse_new,
    ),
    Rule(
        "cheaper", "{}", "cost relative to the champion's", "at most", "%", "cheaper",
        Parameter(
            "cheaper", float,
            Field(
                default=0.8, gt=0, lt=1,
                description="a challenger that is only not worse needs at most this fraction of the champion's latency",
            ),
        ),
        _cheaper,
    ),
)  # fmt: skip


def rule_of(kind: str) -> Rule:
    """The rule of a kind; a placeholder for a kind that only another version's decision contains."""
    for rule in RULES:
        if rule.kind == kind:
            return rule
    unused = Parameter("", float, None)
    return Rule(kind, "{}", "{}", "at least", "", "limit", unused, lambda _, __: [])


def kinds(*roles: str) -> set[str]:
    """Kinds of the rules that have one of the roles."""
    return {rule.kind for rule in RULES if rule.role in roles}


def apply(trial: Trial, limits: Callable[[str], Any]) -> list[Finding]:
    """Findings of all rules in their order; without a champion, of the limits only.

    Args:
        trial: the challenger's figures.
        limits: returns the value of a parameter under `gate` by its name.
    """
    return [
        found
        for rule in RULES
        if trial.champion_costs is not None or rule.role == "limit"
        for found in rule.check(trial, limits(rule.parameter.name))
    ]
