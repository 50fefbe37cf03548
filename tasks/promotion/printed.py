"""A decision as text for a terminal."""

from collections.abc import Iterable

from segcore.comparison.text import value_text
from segcore.metrics import METRICS
from segcore.promotion.rule_text import limit_text, measured_text, passed_text, title_text
from tasks.promotion.history import CHAMPION, RegisteredVersion, holder
from tasks.promotion.record import DecisionRecord, JudgedModel, evidence_text


def record_text(record: DecisionRecord) -> str:
    """The decision: scores and one line per rule of each challenger, drift, test set, and the reason."""
    metric = METRICS[record.basis.metric]
    lines = [f"Score on the validation split, and {metric.heading} on the frozen test set:"]
    for one in record.challengers:
        lines.append(f"{one.title} (seed {one.seed}): {_scores(one, metric.unit)}")
        for result in one.rules:
            measured, limit = measured_text(result, metric), limit_text(result, metric)
            why = f": {result.note}" if result.measured is None and result.note else ""
            lines.append(
                f"  {title_text(result, metric):<32} {measured:>14}   {limit:<22} {passed_text(result)}{why}"
            )
    drift = record.drift["verdicts"] if record.drift else []
    shown = [*lines, ""] if record.challengers else []
    return "\n".join([*shown, *drift, *evidence_text(record), record.reason])


def _scores(one: JudgedModel, unit: str) -> str:
    validation = "not scored" if one.validation is None else f"{100 * one.validation:.1f} %"
    frozen = one.scores.get("frozen")
    return f"{validation}, {'not scored' if frozen is None else f'{value_text(frozen, unit)} {unit}'}"


def repeated_text(record: DecisionRecord, versions: Iterable[RegisteredVersion]) -> str:
    """A decision that was carried out before; one that made a champion is not told again as if it had just done so."""
    unchanged = f"the decision of {record.decided} stands, and nothing was changed."
    if record.winner is None:
        return f"{record_text(record)}\nNothing is new: {unchanged}"
    champion = holder(versions, CHAMPION)
    if champion is None or champion.weights_sha256 != record.weights_of(record.winner):
        return f"Nothing is new: {unchanged}"
    one = record.challenger(record.winner)
    return f"{one.title} (seed {one.seed}) is champion already: {unchanged}"


def registry_text(name: str, versions: Iterable[RegisteredVersion]) -> str:
    """Which versions of a registered model have an alias, in one line; empty without one."""
    held = [
        f"version {row.version} ({row.title or row.architecture}, seed {row.seed}) is {' and '.join(row.aliases)}"
        for row in versions
        if row.aliases
    ]
    return f"Registry, {name}: {'; '.join(held)}." if held else ""
