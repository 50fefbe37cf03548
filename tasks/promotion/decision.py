"""One decision of the gate: what it depends on, the models that it judges, and its record."""

from collections.abc import Sequence
from typing import Any

from segcore.files import digest
from segcore.gate_rules import Costs
from segcore.metrics import METRICS
from segcore.promotion.drift import drift
from segcore.promotion.figures import CandidateFigures
from segcore.promotion.gate import Candidate, decide
from segcore.promotion.slice_floors import require_known
from segcore.tables.slices import known_texts
from tasks.promotion import candidates
from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext
from tasks.promotion.costs import costs
from tasks.promotion.history import RegisteredVersion, now
from tasks.promotion.record import DecisionRecord, JudgedModel, looks


def inputs_hash(context: PromotionContext, models: list[Model], batches: Sequence[str]) -> str:
    """Hash of everything that a decision depends on, except the champion."""
    p = context.params
    # who approves does not change what is decided
    gate = p.gate.model_dump_json(exclude={"approval", "approval_hours"})
    facts = [gate, p.compare.metric, str(p.compare.seed), context.data_hash, *batches]
    return digest(*facts, *(m.weights for m in models))


def is_current(record: DecisionRecord, mark: str, holder: RegisteredVersion | None) -> bool:
    """Whether a record decides on these inputs, against this champion or one that it promoted itself."""
    if record.inputs != mark:
        return False
    promoted = [c.weights_sha256 for c in record.challengers if c.name == record.winner]
    version, weights = (holder.version, holder.weights_sha256) if holder else (None, None)
    return bool(record.acted) or record.champion_version == version or weights in promoted


def new_decision(
    context: PromotionContext,
    models: list[Model],
    holder: RegisteredVersion | None,
    batches: Sequence[str],
    mark: str,
    key: str,
) -> DecisionRecord:
    """Judge the models against the champion.

    Args:
        context: of the promotion.
        models: challengers; those with the champion's weights are left out.
        holder: the champion's version; None without one.
        batches: names of the new batches.
        mark: of `inputs_hash`.
        key: file name of the record.

    Raises:
        ModelError: the champion's bundle is damaged; StageError: a model could not be measured.
    """
    p, data = context.params, context.data
    require_known(p.gate.floors, data.classes, known_texts(data.items))
    champion = candidates.champion(context, holder.version) if holder else None
    rivals = [m for m in models if champion is None or m.weights != champion.weights]
    models_to_judge = [*([champion] if champion else []), *rivals]
    judged, notes = {}, []
    for model, cost in zip(models_to_judge, _costs(context, champion, rivals), strict=True):
        name = "champion" if model is champion else model.folder.name
        frozen, new = candidates.split(model.counts, data, batches)
        version = holder.version if holder and model is champion else None
        score, note = candidates.operating_score(context, model)
        if note and METRICS[p.compare.metric].of_objects:
            whose = "the champion, " if model is champion else ""
            notes.append(f"For {whose}{model.title}, {note}.")
        tables = (frozen, new, cost, version, model.objects, score, model.measure, model.surfaces)
        judged[name] = Candidate(name, model.title, model.validation, *tables)
    incumbent = judged.pop("champion", None)
    decision = decide(
        incumbent,
        list(judged.values()),
        p.gate,
        p.compare.metric,
        data.foreground,
        data.classes,
        p.compare.seed,
        looks(context.root, p.data.name, mark) if incumbent else None,
    )
    challengers = [
        JudgedModel(**vars(one), architecture=m.architecture, seed=m.seed, weights_sha256=m.weights)
        for one, m in zip(decision.challengers, rivals, strict=True)
    ]
    return DecisionRecord(
        dataset=p.data.name,
        key=key,
        batches=list(batches),
        decided=now(),
        inputs=mark,
        champion_version=holder.version if holder else None,
        champion_run=holder.run_id if holder else None,
        outcome=decision.outcome,
        winner=decision.winner,
        best=decision.best,
        reason=" ".join([decision.reason, *notes]),
        champion=decision.champion,
        challengers=challengers,
        basis=decision.basis,
        drift=_drift(context, batches, champion, decision.champion),
    )


def _costs(context: PromotionContext, champion: Model | None, rivals: list[Model]) -> list[Costs]:
    """Costs of champion and rivals; they are measured, which takes minutes, only where a rule compares them."""
    models, limits = [*([champion] if champion else []), *rivals], context.params.gate.ceilings
    if rivals and (champion or limits.latency_ms is not None or limits.memory_mb is not None):
        return costs(context, models)
    return [Costs(size_mb=model.size_mb) for model in models]


def _drift(
    context: PromotionContext, batches: Sequence[str], champion: Model | None, judged: CandidateFigures | None
) -> dict[str, Any] | None:
    if not batches:
        return None
    if champion is None or judged is None:
        return drift(context.data, batches)
    errors = candidates.calibration_errors(champion, batches)
    return drift(context.data, batches, {"score": judged.scores, "ece": errors})
