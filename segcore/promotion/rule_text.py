"""Findings of the gate's rules as text, from the words of `segcore.gate_rules`; old decisions' findings too."""

from collections.abc import Mapping
from typing import Any

from segcore.comparison.text import difference_unit, value_text
from segcore.gate_rules import rule_of
from segcore.metrics import Metric

# a `segcore.gate_rules.Finding` as decisions/*.json has it
Found = Mapping[str, Any]


def _subject(found: Found) -> str:
    return str(rule_of(found["kind"]).subjects.get(found["rule"], found["rule"]))


def title_text(found: Found) -> str:
    """The rule in words, such as "ceiling of latency"."""
    return rule_of(found["kind"]).title.format(_subject(found))


def measures_text(found: Found) -> str:
    """What was measured in words, such as "score of class road"."""
    return rule_of(found["kind"]).measures.format(_subject(found))


def measured_text(found: Found, metric: Metric) -> str:
    """The measured value with its unit; a dash where there is none."""
    signed = rule_of(found["kind"]).unit == "points"
    return _with_unit(found, found["measured"], metric, signed)


def limit_text(found: Found, metric: Metric) -> str:
    """What is needed, such as "at most 50.0 ms"."""
    rule = rule_of(found["kind"])
    side = "at most" if rule.unit == "score" and metric.sign < 0 else rule.side
    return f"{side} {_with_unit(found, found['threshold'], metric, signed=False)}"


def _with_unit(found: Found, value: float | None, metric: Metric, signed: bool) -> str:
    if value is None:
        return "–"
    unit = rule_of(found["kind"]).unit
    if not isinstance(unit, str):
        return f"{value:,.1f} {unit[found['rule']]}"
    if unit in ("score", "points"):
        if unit == "score":
            return f"{value_text(value, metric.unit)} {metric.unit}"
        # limits as they stand in params.yaml, however small
        exact = f"{round(100 * value, 3):g}" if metric.unit == "%" else f"{value:g}"
        text = value_text(value, metric.unit, signed=True) if signed else exact
        return f"{text} {difference_unit(metric.unit)}"
    return f"{value_text(value, unit)} {unit}".strip()


def unmet_text(found: Found, metric: Metric) -> str:
    """Why a rule is not met, as the rest of a sentence on the challenger."""
    start = rule_of(found["kind"]).unmet or f"it does not meet the {title_text(found)}"
    if found["measured"] is None:
        return f"{start} ({found['note']})"
    what = found["note"] if found["note"].startswith("one cluster") else measures_text(found)
    return f"{start} ({what}: {measured_text(found, metric)}; needed: {limit_text(found, metric)})"
