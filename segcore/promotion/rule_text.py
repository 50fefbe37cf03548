"""Findings of the gate's rules, and what its test set can show, as text; also those of old decisions."""

from segcore.comparison.text import difference_unit, value_text
from segcore.gate_rules import Finding, rule_of, too_few
from segcore.metrics import METRICS, Metric
from segcore.promotion.figures import Basis, ChallengerFigures


def _subject(finding: Finding) -> str:
    return str(rule_of(finding.kind).subjects.get(finding.rule, finding.rule))


def _is_highest(finding: Finding, metric: Metric) -> bool:
    """Whether the limit of a score is the highest allowed value, because lower is better."""
    return rule_of(finding.kind).unit == "score" and metric.sign < 0


def title_text(finding: Finding, metric: Metric) -> str:
    """Title of the rule, such as "latency limit"."""
    title = rule_of(finding.kind).title
    if _is_highest(finding, metric):
        title = f"highest allowed {'distance from 0' if metric.is_signed else 'value'} of {{}}"
    return title.format(_subject(finding))


def measures_text(finding: Finding, metric: Metric) -> str:
    """What was measured, such as "score of road"."""
    rule = rule_of(finding.kind)
    measures = "value of {}" if _is_highest(finding, metric) else rule.measures
    if rule.unit == "points" and metric.sign < 0:
        measures = measures.replace("difference", "gain")
    return measures.format(_subject(finding))


def measured_text(finding: Finding, metric: Metric) -> str:
    """The measured value with its unit; a dash if there is none."""
    signed = rule_of(finding.kind).unit == "points"
    return _with_unit(finding, finding.measured, metric, signed)


def limit_text(finding: Finding, metric: Metric) -> str:
    """What is needed, such as "at most 50.0 ms"."""
    rule = rule_of(finding.kind)
    side = "at most" if _is_highest(finding, metric) else rule.side
    return f"{side} {_with_unit(finding, finding.threshold, metric, signed=False)}"


def exact_text(value: float, metric: Metric) -> str:
    """A limit of a difference in full precision, as in params.yaml, but at least with the usual decimals."""
    usual = value_text(value, metric.unit)
    exact = f"{round(100 * value, 3):g}" if metric.unit == "%" else f"{value:g}"
    return usual if float(usual) == float(exact) else exact


def passed_text(finding: Finding) -> str:
    """Whether the rule is met: "yes", "no" or "does not apply"."""
    return {True: "yes", False: "no", None: "does not apply"}[finding.passed]


def _with_unit(finding: Finding, value: float | None, metric: Metric, signed: bool) -> str:
    if value is None:
        return "–"
    unit = rule_of(finding.kind).unit
    if not isinstance(unit, str):
        return f"{value:,.1f} {unit[finding.rule]}"
    if unit in ("score", "points"):
        if unit == "score":
            return f"{value_text(value, metric.unit)} {metric.unit}"
        text = value_text(value, metric.unit, signed=True) if signed else exact_text(value, metric)
        return f"{text} {difference_unit(metric.unit)}"
    return f"{value_text(value, unit)} {unit}".strip()


def unmet_text(finding: Finding, metric: Metric) -> str:
    """Why a rule is not met, as the end of a sentence about the challenger."""
    title = title_text(finding, metric)
    if finding.measured is None:
        return f"it does not meet the {title} ({finding.note})"
    verb = "exceeds" if _is_highest(finding, metric) else "does not meet"
    found = f"{measures_text(finding, metric)}: {measured_text(finding, metric)}"
    return f"it {verb} the {title} ({found}; required: {limit_text(finding, metric)})"


def smallest_text(one: ChallengerFigures, basis: Basis) -> str:
    """The smallest improvement that the frozen test set can show; empty in decisions of earlier versions."""
    gain, metric = one.difference.get("frozen"), METRICS[basis.metric]
    if basis.required is None or gain is None:
        return ""
    images, clusters = (
        counted(basis.frozen[key], name) for key, name in (("regions", "image"), ("clusters", "cluster"))
    )
    start = f"With {images.replace('image', 'test image')} in {clusters}"
    if gain.smallest is None:
        return f"{start}, no improvement can be shown: {too_few(gain.clusters or 0, basis.required)}."
    value = f"{100 * gain.smallest:.2g}" if metric.unit == "%" else f"{gain.smallest:.2g}"
    return f"{start}, an improvement must exceed about {value} {difference_unit(metric.unit)}."


def tolerance_text(basis: Basis) -> str:
    """A tolerance that was left at the default of scores in %; empty unless the metric has no upper limit."""
    metric, tolerance = METRICS[basis.metric], basis.gate.get("not_worse")
    if metric.is_bounded or tolerance != rule_of("not_worse").parameter.field.default:
        return ""
    return (
        f"gate.not_worse is {tolerance:g} {difference_unit(metric.unit)}, the default: set it to a loss that does not "
        "matter, because a cheaper model can hardly be shown to be that little worse."
    )


def looks_text(basis: Basis) -> str:
    """How often this test set was used for a decision; empty where that is unknown."""
    if basis.looks is None:
        return ""
    start = f"This is decision {basis.looks} against a champion on this test set"
    return f"{start}; every further one adds to the chance of a wrong promotion."


def counted(count: int, name: str) -> str:
    """Such as "1 cluster" or "2 clusters"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
