"""Findings of the gate's rules as text, from the words of `segcore.gate_rules`; old decisions' findings too."""

from segcore.comparison.text import difference_unit, value_text
from segcore.gate_rules import Finding, rule_of
from segcore.metrics import Metric


def _subject(found: Finding) -> str:
    return str(rule_of(found.kind).subjects.get(found.rule, found.rule))


def title_text(found: Finding) -> str:
    """The rule in words, such as "latency limit"."""
    return rule_of(found.kind).title.format(_subject(found))


def measures_text(found: Finding) -> str:
    """What was measured in words, such as "score of class road"."""
    return rule_of(found.kind).measures.format(_subject(found))


def measured_text(found: Finding, metric: Metric) -> str:
    """The measured value with its unit; a dash where there is none."""
    signed = rule_of(found.kind).unit == "points"
    return _with_unit(found, found.measured, metric, signed)


def limit_text(found: Finding, metric: Metric) -> str:
    """What is needed, such as "at most 50.0 ms"."""
    rule = rule_of(found.kind)
    side = "at most" if rule.unit == "score" and metric.sign < 0 else rule.side
    return f"{side} {_with_unit(found, found.threshold, metric, signed=False)}"


def _with_unit(found: Finding, value: float | None, metric: Metric, signed: bool) -> str:
    if value is None:
        return "–"
    unit = rule_of(found.kind).unit
    if not isinstance(unit, str):
        return f"{value:,.1f} {unit[found.rule]}"
    if unit in ("score", "points"):
        if unit == "score":
            return f"{value_text(value, metric.unit)} {metric.unit}"
        # limits as they stand in params.yaml, however small
        exact = f"{round(100 * value, 3):g}" if metric.unit == "%" else f"{value:g}"
        text = value_text(value, metric.unit, signed=True) if signed else exact
        return f"{text} {difference_unit(metric.unit)}"
    return f"{value_text(value, unit)} {unit}".strip()


def unmet_text(found: Finding, metric: Metric) -> str:
    """Why a rule is not met, as the rest of a sentence on the challenger."""
    start = rule_of(found.kind).unmet or f"it does not meet the {title_text(found)}"
    if found.measured is None:
        return f"{start} ({found.note})"
    what = found.note if found.note.startswith("one cluster") else measures_text(found)
    return f"{start} ({what}: {measured_text(found, metric)}; needed: {limit_text(found, metric)})"
