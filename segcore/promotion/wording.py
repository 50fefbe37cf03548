"""The gate's decision as one or two sentences with the figures that decided."""

from collections.abc import Sequence

from segcore.comparison.text import difference_unit, interval_text, value_text
from segcore.gate_rules import Finding, Gain, kinds, too_few
from segcore.metrics import METRICS, Metric
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.rule_text import counted, exact_text, unmet_text

# What a lower and a higher cost mean, by the cost's name in the rule "cheaper".
_LESS = {"latency": ("faster", "slower"), "size": ("smaller", "larger")}
# Rules that the clauses on score, cost and new batch already cover.
_COVERED = ("better", "not_worse", "not_worse_new", "cheaper")


def sentence(
    outcome: str,
    champion: CandidateFigures | None,
    version: int | None,
    challengers: Sequence[ChallengerFigures],
    chosen: str | None,
    basis: Basis,
    measure: str,
) -> str:
    """The reason for the gate's decision.

    Args:
        outcome: promoted, kept, first or refused.
        champion: figures of the champion; None: there is none.
        version: of the champion in the registry; None: unknown.
        challengers: figures of the challengers.
        chosen: name of the challenger that the sentence describes.
        basis: of the decision.
        measure: what the challenger's validation score is, such as "PQ".
    """
    one = next((c for c in challengers if c.name == chosen), None)
    metric = METRICS[basis.metric]
    if one is None:
        if champion is None:
            return "There is neither a champion nor a challenger, so there is nothing to decide."
        return f"Kept {_champion(champion, version, metric)}: no challenger differs from it."
    left_out = [f" {c.title} was left out: {c.flaw}." for c in challengers if c.flaw and c is not one]
    if champion is None:
        return _first(outcome, one, metric, measure) + "".join(left_out)
    old = _champion(champion, version, metric)
    new = f"the new {one.title}" if one.title == champion.title else one.title
    if outcome == "promoted":
        text = _promoted(new, old, one, basis)
    elif one.flaw:
        text = f"Kept {old}: {new} cannot be judged, because {one.flaw}."
    else:
        short = f": the frozen test set has {_too_few(one, basis)}" if outcome == "refused" else ""
        text = f"Kept {old}{short}. {new[0].upper()}{new[1:]} {_against(one, basis)}."
    return text + "".join(left_out)


def _first(outcome: str, one: ChallengerFigures, metric: Metric, measure: str) -> str:
    if one.validation is None or one.flaw:
        return f"No champion is chosen: {one.title} cannot be judged, because {one.flaw}."
    best = f"the best validation score ({measure} {100 * one.validation:.1f} %)"
    if outcome == "first":
        scores = "minimum scores" if metric.sign > 0 else "limits of scores"
        limits = f" and meets all {scores} and cost limits" if one.rules else ""
        return f"{one.title} becomes the first champion: it has {best}{limits}."
    unmet = "; ".join(_unmet(one, metric, "limit"))
    return f"No champion is chosen: {one.title} has {best}, but {unmet}."


def _champion(champion: CandidateFigures, version: int | None, metric: Metric) -> str:
    """Such as "U-Net (version 2, 81.2 %)"."""
    facts = [] if version is None else [f"version {version}"]
    score = _score(champion, metric)
    facts += [score] if score else []
    return f"{champion.title} ({', '.join(facts)})" if facts else champion.title


def _promoted(new: str, old: str, one: ChallengerFigures, basis: Basis) -> str:
    metric, gate, cost = METRICS[basis.metric], basis.gate, _cost_clause(one)
    frozen = _gain(one.difference["frozen"], basis, metric)
    if one.by == "better":
        text = f"{frozen}, required: above {_limit(gate['margin'], metric)}"
        text += f"; {cost}" if cost else ""
    else:
        saved, lowest = _percent(1 - gate["cheaper"]), _limit(-gate["not_worse"], metric)
        text = f"{cost} (required: {saved}) and no worse: {frozen}, required: above {lowest}"
    batch = one.difference.get("new")
    confirmed = f" On the new batch: {_new_batch(one, batch, basis)}." if batch and batch.clusters else ""
    return f"Promoted {new} ({_score(one, metric)}) in place of {old}: {text}.{confirmed}"


def _against(one: ChallengerFigures, basis: Basis) -> str:
    """Score and cost, then what they do not meet: the limits; else the new batch; else margin and cost."""
    metric, gate = METRICS[basis.metric], basis.gate
    frozen = one.difference["frozen"]
    if frozen is None or not frozen.clusters:
        return "cannot be compared with it"
    cost = _cost_clause(one)
    text = f"scores {_score(one, metric)} ({_gain(frozen, basis, metric)})" + (
        f" and is {cost}" if cost else ""
    )
    limits = _unmet(one, metric, "limit")
    if limits:
        return f"{text}, but {'; '.join(limits)}"
    if frozen.low is None:
        return text
    others = _unmet(one, metric, "required", "better", "cheaper", without=_COVERED)
    ways = [{"better"}, {"not_worse", "cheaper"}]
    batch = one.difference.get("new")
    if batch and any(all(_finding(one, kind).passed for kind in way) for way in ways):
        found = _finding(one, "not_worse_new")
        if found.passed is False:
            required = f"required: above {_limit(-gate['not_worse'], metric, unit=True)}"
            others.insert(
                0,
                f"on the new batch it is not shown to be no worse: {_new_batch(one, batch, basis)}, {required}",
            )
        return f"{text}, but {'; '.join(others)}"
    less = _LESS.get(_cost(one), ("cheaper",))[0]
    required = f"required: above {_limit(gate['margin'], metric, unit=True)}"
    # points are named once
    lowest = _limit(-gate["not_worse"], metric, unit=metric.unit != "%")
    required += f", or above {lowest} and {_percent(1 - gate['cheaper'])} {less}"
    return "; ".join([text, required, *others])


def _new_batch(one: ChallengerFigures, batch: Gain, basis: Basis) -> str:
    """Difference on the new batch; with too few clusters, also the interval of all test images."""
    metric, both = METRICS[basis.metric], one.difference.get("both")
    if batch.low is not None or both is None or both.low is None:
        return _gain(batch, basis, metric)
    value = _gap(batch.difference, metric)
    together = interval_text(both.low, both.high, metric.unit, signed=True)
    return f"{value} in {counted(batch.clusters or 0, 'cluster')}, and {together} with all test images"


def _cost_clause(one: ChallengerFigures) -> str:
    """Such as "5 % faster"; empty where the costs were not measured."""
    fraction = _finding(one, "cheaper").measured
    if fraction is None:
        return ""
    less, more = _LESS.get(_cost(one), ("cheaper", "more expensive"))
    saved = round(100 * (1 - fraction))
    return f"{abs(saved)} % {less if saved > 0 else more}" if saved else f"not {less}"


def _cost(one: ChallengerFigures) -> str:
    """The cost that the rule "cheaper" compared: "latency" or "size"."""
    return _finding(one, "cheaper").rule.partition(": ")[2]


def _unmet(one: ChallengerFigures, metric: Metric, *roles: str, without: tuple[str, ...] = ()) -> list[str]:
    """Why rules of these roles are not met, one text each."""
    wanted = kinds(*roles) - set(without)
    return [unmet_text(r, metric) for r in one.rules if r.kind in wanted and r.passed is False]


def _finding(one: ChallengerFigures, kind: str) -> Finding:
    return next(rule for rule in one.rules if rule.kind == kind)


def _score(one: CandidateFigures, metric: Metric) -> str:
    score = one.scores["frozen"]
    return "" if score is None else f"{value_text(score, metric.unit)} {metric.unit}".strip()


def _gain(gain: Gain | None, basis: Basis, metric: Metric) -> str:
    """A gain with its interval, such as "-0.3 points, 95 % interval -1.2 to +0.5"."""
    if gain is None:
        return "not scored"
    text = _gap(gain.difference, metric)
    if gain.low is None:
        return f"{text}, no interval"
    interval = interval_text(gain.low, gain.high, metric.unit, signed=True)
    of_gain = "" if metric.sign > 0 else "of the gain "
    return f"{text}, {100 * basis.confidence_each:.4g} % interval {of_gain}{interval}"


def _gap(gain: float, metric: Metric) -> str:
    """A gain; where lower is better its sign is opposite to that of the scores' difference, so words replace it."""
    unit = difference_unit(metric.unit)
    if metric.sign > 0:
        return f"{value_text(gain, metric.unit, signed=True)} {unit}".strip()
    if not gain:
        return "no difference"
    return f"{'better' if gain > 0 else 'worse'} by {value_text(abs(gain), metric.unit)} {unit}".strip()


def _limit(value: float, metric: Metric, unit: bool = False) -> str:
    """A limit of a difference, with sign, exact."""
    text = f"{'-' if value < 0 else '+'}{exact_text(abs(value), metric)}"
    return f"{text} {difference_unit(metric.unit)}".strip() if unit else text


def _percent(fraction: float) -> str:
    return f"{round(100 * fraction, 3):g} %"


def _too_few(one: ChallengerFigures, basis: Basis) -> str:
    """Such as "3 clusters, at least 6 are needed: 3 more"."""
    gain, total = one.difference["frozen"], basis.frozen["clusters"]
    found, required = (gain.clusters or 0) if gain else 0, basis.required or 0
    text = too_few(found, required)
    return (
        text.replace(" with foreground", "")
        if found == total
        else f"{text} ({counted(total, 'cluster')} in all)"
    )
