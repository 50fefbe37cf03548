"""The verdict of a comparison as text, and notes on the limits of its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segcore.comparison import ensembles, folds
from segcore.comparison.results import Difference, PairTest
from segcore.comparison.statistics import smallest_p
from segcore.comparison.text import difference_unit, interval_text, listed, value_text
from segcore.metrics import METRICS
from segcore.params import Params

FEW_CLUSTERS = 10
# settings that are the budget of a training; their values stand in the verdict
_BUDGET = ("steps", "batch", "crop", "patience")
# trainings of instance networks of fewer steps are named as short
_FEW_STEPS = 1000
# other settings that the verdict names; the notes name all
_NAMED = 3


@dataclass(frozen=True)
class Placed:
    """A contestant with its headline score.

    Attributes:
        name: key; title: printed name.
        estimate: the score; seeds: number of evaluations.
        network: of a model: "semantic" or "instance".
        macs: of a model: multiply-accumulates for 256 x 256 pixels.
        windows: of a model: number of overlapping windows in which it predicts a tile; side: theirs in pixels.
        work: of a model: multiply-accumulates for 256 x 256 pixels of a tile, which its windows compute repeatedly.
        steps: of a model: of its training.
        members: of an ensemble: number of its networks; 0 for anything else.
    """

    name: str
    title: str
    estimate: float
    seeds: int
    network: str = "semantic"
    macs: int = 0
    windows: int = 1
    side: int = 0
    work: float = 0
    steps: int = 0
    members: int = 0


@dataclass(frozen=True)
class Standing:
    """Input of the verdict and its notes.

    Attributes:
        models: best first.
        humans: each with the difference of the best model from it.
        tests: of all pairs of models.
        clusters: number of test clusters; cluster_kind: "block" or "group".
        differences: training setting -> architecture -> value, only settings that differ.
        method: sentence that names a better method to find objects of semantic networks; "" where there is none.
        progress: sentence on whether validation scores were still rising; "" where it is not known.
        folds: of a cross-validation; None: one test split.
    """

    models: list[Placed]
    humans: list[tuple[Placed, Difference]]
    tests: list[PairTest]
    clusters: int
    cluster_kind: str
    differences: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    method: str = ""
    progress: str = ""
    folds: int | None = None


def sentence(standing: Standing, p: Params) -> str:
    """The verdict; it names a winner only if its difference from every other model is shown.

    Where semantic and instance networks are compared, it says which kind the data need. Short trainings of instance
    networks, scores that were still rising, and unequal budgets and settings, are part of it.
    """
    shown = none_possible(standing.clusters, standing.cluster_kind, len(standing.tests), p)
    more = [_short(standing), standing.progress and f" {standing.progress}", _unequal(standing), shown]
    return _verdict(standing, p) + _ensemble(standing, p) + _kinds(standing, p) + "".join(more)


def notes(standing: Standing, p: Params) -> list[str]:
    """Notes on humans, on the limits of the numbers, and on settings that differ."""
    lines = [
        *_human_notes(standing, p),
        *limits(standing.clusters, standing.cluster_kind, len(standing.tests), p, standing.folds),
    ]
    if standing.differences:
        differing = listed(list(standing.differences))
        lines.append(f"Training settings are not the same: architectures differ in {differing}.")
    return lines


def level(p: Params) -> float:
    """The level of the tests: 1 - confidence."""
    return round(1 - p.compare.confidence, 9)


def _verdict(standing: Standing, p: Params) -> str:
    best, others = standing.models[0], standing.models[1:]
    metric = METRICS[p.compare.metric]
    how = ", one seed" if best.seeds == 1 and not best.members else ""
    if best.members:
        how = f", the mean of {best.members} networks"
    elif standing.folds:
        how = f", {folds.words(standing.folds, best.seeds)}"
    top = f"{best.title} (dataset {metric.title} {_value(best.estimate, p)}{how})"
    if not others:
        return f"{top} was the only architecture trained, so there is nothing to compare it with."
    against = {test.b: test for test in standing.tests if test.a == best.name}
    leads = [
        f"{m.title} by {_amount(_of(against[m.name]).times(metric.sign), p)}"
        for m in others
        if against[m.name].significant
    ]
    equals = [f"{m.title} ({_value(m.estimate, p)})" for m in others if not against[m.name].significant]
    if not equals:
        return f"{top} is best: it leads {listed(leads)}."
    also = f", but {best.title} leads {listed(leads)}" if leads else ""
    return f"No difference shown between {top} and {listed(equals, 'or')}{also}."


def _ensemble(standing: Standing, p: Params) -> str:
    """Sentence on the whole cost of a best ensemble, beside the best network alone; empty if a network is best."""
    best = standing.models[0]
    single = next((m for m in standing.models if not m.members), None)
    if not best.members or single is None:
        return ""
    test = next(t for t in standing.tests if (t.a, t.b) == (best.name, single.name))
    lead = _amount(_of(test).times(METRICS[p.compare.metric].sign), p)
    return ensembles.sentence(best, single, lead, test.significant)


def _kinds(standing: Standing, p: Params) -> str:
    """Sentence on the best network of each kind: whether one is better, and its cost; empty if all are of one kind."""
    best = standing.models[0]
    other = next((m for m in standing.models if m.network != best.network), None)
    if other is None:
        return ""
    metric = METRICS[p.compare.metric]
    test = next(t for t in standing.tests if (t.a, t.b) == (best.name, other.name))
    cost = _cost(best, other, p.evaluate.tile)
    if not test.significant:
        return (
            f" No difference is shown between {best.network} and {other.network} networks (the best of each by "
            f"{metric.title}: {best.title} and {other.title}); {cost}."
        )
    needed = "an instance network" if best.network == "instance" else "no instance network"
    lead = _amount(_of(test).times(metric.sign), p)
    leads = f"{best.title} leads the best {other.network} network, {other.title}, by {lead}; {cost}."
    if standing.method and metric.of_objects and best.network == "instance":
        # that lead can be one over the method, and not over the network
        return f" Whether these data need {needed} is not shown, by {metric.title}: {leads} {standing.method}"
    # pixels say nothing of objects
    subject = "These data" if metric.of_objects else "Class maps of these data"
    return f" {subject} need {needed}, by {metric.title}: {leads}"


def _cost(a: Placed, b: Placed, tile: int) -> str:
    """How much more the dearer of two networks computes for a tile."""
    cheaper, dearer = sorted((a, b), key=lambda m: m.work)
    windows = "".join(
        f"; {m.title} predicts {tile}x{tile} pixels in {m.windows} overlapping windows of {m.side}x{m.side}"
        for m in (dearer, cheaper)
        if m.windows > 1
    )
    return (
        f"{dearer.title} computes {dearer.work / max(cheaper.work, 1):.1f} times as much as {cheaper.title} "
        f"({dearer.macs / 1e9:.2f} and {cheaper.macs / 1e9:.2f} GMACs for 256x256 pixels{windows})"
    )


def _short(standing: Standing) -> str:
    """Sentence on trainings of instance networks that are too short for conclusions; empty if one is not."""
    most = max((m.steps for m in standing.models if m.network == "instance"), default=0)
    if not 0 < most < _FEW_STEPS:
        return ""
    return f" {most:,} steps show the procedure, not what the instance networks reach."


def _unequal(standing: Standing) -> str:
    """Sentence on budgets and settings that differ between the models; empty if none does.

    Numbers of seeds do not differ: such models are not compared.
    """
    rows = dict(standing.differences)
    parts = [_values(key, rows.pop(key), standing) for key in _BUDGET if key in rows]
    if rows:
        names = list(rows)
        more = [f"{len(names) - _NAMED} more settings"] if len(names) > _NAMED else []
        parts.append(f"{'other ' if parts else ''}settings ({listed([*names[:_NAMED], *more])})")
    return f" They were not trained alike: {listed(parts)} differ." if parts else ""


def _values(setting: str, values: Mapping[str, Any], standing: Standing) -> str:
    """A setting with its values, such as "steps (U-Net 500, FCN-8s 200)"."""
    each = ", ".join(f"{m.title} {_plain(values[m.name])}" for m in standing.models if m.name in values)
    return f"{setting} ({each})"


def _plain(value: Any) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _human_notes(standing: Standing, p: Params) -> list[str]:
    best, lines = standing.models[0], []
    for human, difference in standing.humans:
        reached = (
            f"{human.title}, a human, reaches dataset {METRICS[p.compare.metric].title} "
            f"{_value(human.estimate, p)} against"
        )
        if p.data.annotators:
            # networks are scored against another majority: there is no difference to tell
            lines.append(f"{reached} the majority of the others.")
            continue
        side = "below" if difference.difference < 0 else "above"
        signed = difference.times(-1 if side == "below" else 1)
        lines.append(f"{reached} the same ground truth; {best.title} is {_amount(signed, p)} {side} that.")
    return lines


def limits(clusters: int, cluster_kind: str, tests: int, p: Params, of_folds: int | None = None) -> list[str]:
    """Notes on the limits of the numbers; `of_folds` is the number of folds of a cross-validation."""
    seeds, notes = len(p.seeds), []
    is_compared = len(p.architectures) > 1
    if of_folds:
        notes.append(folds.note(of_folds, seeds // of_folds, cluster_kind, is_compared))
    elif seeds == 1 and not is_compared:
        notes.append(
            "The architecture was trained with one seed only: the variation between seeds is not measured."
        )
    elif seeds == 1:
        notes.append(
            "Each architecture was trained with one seed only: the variation between seeds is not measured, "
            "and a difference may be due to these trainings rather than to the architectures."
        )
    else:
        notes.append(
            f"Scores are means over {seeds} seeds. Intervals cover the choice of test {cluster_kind}s and of "
            f"seeds{'; the tests treat the trained models as fixed' if is_compared else ''}."
        )
    if p.ensembles:
        notes.append(ensembles.NOTE)
    if p.evaluate.flips:
        notes.append(
            "Every prediction is the mean over four mirror images (evaluate.flips): GMACs, time and memory are those "
            "of all four."
        )
    if clusters == 1:
        notes.append(
            f"All test images are of one {cluster_kind}: nothing is known about other {cluster_kind}s, so intervals "
            "span the whole range."
        )
    elif clusters < FEW_CLUSTERS:
        notes.append(f"There are only {clusters} test {cluster_kind}s: the intervals are likely too narrow.")
    least = smallest_p(clusters, p.compare.permutations) * tests
    if none_possible(clusters, cluster_kind, tests, p):
        notes.append(
            f"With {clusters} test {cluster_kind}{'s' if clusters > 1 else ''} and {tests} "
            f"comparison{'s' if tests > 1 else ''} no p-value after Holm's correction can be below "
            f"{min(least, 1):.2g}: no difference, however large, can be shown at the level of {level(p):g}."
        )
    if cluster_kind == "block":
        notes.append(
            "Blocks are parts of the same scenes: scores and intervals say nothing about other places."
        )
    return notes


def none_possible(clusters: int, cluster_kind: str, tests: int, p: Params) -> str:
    """Sentence for the verdict if no test could have shown a difference; empty if one could."""
    if not tests or smallest_p(clusters, p.compare.permutations) * tests <= level(p):
        return ""
    groups = f"{clusters} test {cluster_kind}{'s' if clusters > 1 else ''}"
    return f" With {groups} no difference can be shown, however large."


def _of(test: PairTest) -> Difference:
    return Difference(test.difference, test.low, test.high)


def _value(score: float, p: Params) -> str:
    unit = METRICS[p.compare.metric].unit
    return f"{value_text(score, unit)} {unit}"


def _amount(gap: Difference, p: Params) -> str:
    """A difference with its interval."""
    unit = METRICS[p.compare.metric].unit
    interval = interval_text(gap.low, gap.high, unit)
    if gap.low is not None:
        interval = f"{100 * p.compare.confidence:g} % interval {interval}"
    return f"{value_text(gap.difference, unit)} {difference_unit(unit)} ({interval})"
