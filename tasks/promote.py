"""Decide whether a challenger becomes champion, and update the registry.

`python -m tasks promote [--batch ID] [--dry-run]` compares the models of the last comparison with the champion in
MLflow's registry by the rules in section `gate` of params.yaml, writes decisions/<data.name>/<batch or run key>.json
and moves the aliases. `--rollback` makes the previous champion champion again. Exit code 0 whatever the decision.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segcore import params
from segcore.errors import StageError
from segcore.files import digest, locked
from segcore.ingest import catalog
from segcore.params import Params
from segcore.promotion.drift import drift
from segcore.promotion.figures import CandidateFigures
from segcore.promotion.gate import Candidate, decide
from segcore.promotion.slice_floors import require_known
from segcore.tables.slices import known_texts
from tasks import console
from tasks.batches import undecided
from tasks.project import PROMOTE_LOCK, stage_name
from tasks.promotion import candidates
from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext
from tasks.promotion.record import (
    DecisionRecord,
    JudgedModel,
    RegisteredVersion,
    looks,
    read_record,
    record_path,
    record_text,
    write_history,
    write_json,
    write_record,
)
from tasks.tracking import runs
from tasks.tracking.registry import DecisionTags, Registry, now
from tasks.tracking.tracker import Run, Tracker
from tasks.versioning import stages


def promote(
    p: Params,
    root: Path = Path(),
    batches: Sequence[str] | None = None,
    dry_run: bool = False,
    registry: Registry | None = None,
) -> DecisionRecord:
    """Decide and update the registry; a decision on the same inputs is read, and not acted upon twice.

    Args:
        p: parameters; `gate`, `compare`, `evaluate`, `architectures` and `seeds` are used.
        root: the project's folder.
        batches: names of the batches that count as new; empty: none, all test regions are the frozen test set;
            None: all batches without a decision.
        dry_run: do not change registry and runs. The record is written, and a later call acts on it.
        registry: an open registry; None: it is opened here.

    Returns:
        The record of the decision.

    Raises:
        StageError: an evaluation is missing, the registry does not respond, or the batch has no item.
        ModelError: the champion's bundle is damaged; DataError: no prepared data.
    """
    # a second process waits, then reads the decision of the first
    with locked(root / PROMOTE_LOCK):
        context = PromotionContext.open(p, root, registry)
        new = undecided(p, root) if batches is None else list(batches)
        _require_batches(context, new)
        models = candidates.challengers(context)
        mark = _inputs_hash(context, models, new)
        path = record_path(root, p.data.name, new[-1] if new else (stages.run_key("compare") or mark)[:16])
        holder = context.registry.champion()
        record = read_record(path)
        if record is None or not _is_current(record, mark, holder):
            record = _new_decision(context, models, holder, new, mark, path.stem)
            write_record(path, record)
        if dry_run:
            return record
        if record.acted is None:
            record = _act(context, models, record)
            write_json(path, record.as_json())
        write_history(root, p.data.name, context.registry.history())
        return record


def _require_batches(context: PromotionContext, names: Sequence[str]) -> None:
    known = set(context.data.items["batch"].astype(str)) | set(catalog.batch_folders(context.params.data))
    for name in names:
        if name not in known:
            raise StageError(
                f"batch {name}: there is no such batch",
                f"name an existing batch, such as {', '.join(sorted(known)[-5:])}",
            )


def _inputs_hash(context: PromotionContext, models: list[Model], batches: Sequence[str]) -> str:
    """Hash of everything that a decision depends on, except the champion."""
    p = context.params
    facts = [p.gate.model_dump_json(), p.compare.metric, str(p.compare.seed), context.data_hash, *batches]
    return digest(*facts, *(m.weights for m in models))


def _is_current(record: DecisionRecord, mark: str, holder: RegisteredVersion | None) -> bool:
    """Whether a record decides on these inputs, against this champion or one that it promoted itself."""
    if record.inputs != mark:
        return False
    promoted = [c.weights_sha256 for c in record.challengers if c.name == record.winner]
    version, weights = (holder.version, holder.weights_sha256) if holder else (None, None)
    return bool(record.acted) or record.champion_version == version or weights in promoted


def _new_decision(
    context: PromotionContext,
    models: list[Model],
    holder: RegisteredVersion | None,
    batches: Sequence[str],
    mark: str,
    key: str,
) -> DecisionRecord:
    p, data = context.params, context.data
    require_known(p.gate.floors, data.classes, known_texts(data.items))
    champion = candidates.champion(context, holder.version) if holder else None
    rivals = [m for m in models if champion is None or m.weights != champion.weights]
    models_to_judge = [*([champion] if champion else []), *rivals]
    judged = {}
    for model, cost in zip(models_to_judge, candidates.costs(context, models_to_judge), strict=True):
        name = "champion" if model is champion else model.folder.name
        frozen, new = candidates.split(model.counts, data, batches)
        version = holder.version if holder and model is champion else None
        judged[name] = Candidate(name, model.title, model.validation, frozen, new, cost, version)
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
        reason=decision.reason,
        champion=decision.champion,
        challengers=challengers,
        basis=decision.basis,
        drift=_drift(context, batches, champion, decision.champion),
    )


def _drift(
    context: PromotionContext, batches: Sequence[str], champion: Model | None, judged: CandidateFigures | None
) -> dict[str, Any] | None:
    if not batches:
        return None
    if champion is None or judged is None:
        return drift(context.data, batches)
    errors = candidates.calibration_errors(champion, batches)
    return drift(context.data, batches, {"score": judged.scores, "ece": errors})


def _act(context: PromotionContext, models: list[Model], record: DecisionRecord) -> DecisionRecord:
    """Update registry and runs as decided; every step can be repeated, and the record is marked as acted upon last."""
    tracker, ids = context.registry.tracker, _training_runs(context, models)
    versions = _register(context, models, record, ids)
    tags = {"gate.outcome": record.outcome, "gate.reason": record.reason, "gate.winner": record.winner}
    judged = {ids[c.name] for c in record.challengers if c.name in ids}
    for run_id in sorted(judged | set(filter(None, [record.champion_run]))):
        Run(tracker.client, run_id).tag(tags)
    return replace(record, versions=versions, acted=now())


def _training_runs(context: PromotionContext, models: list[Model]) -> dict[str, str]:
    """Run id of each model's training by the model's name; models without a run in this store are left out."""
    keys, ids = stages.run_keys(), {}
    for model in models:
        stage = stage_name("train", model.folder.name)
        run = runs.training_of(context.registry.tracker, stage, keys.get(stage))
        if run is not None:
            ids[model.folder.name] = run.info.run_id
    return ids


def _register(
    context: PromotionContext, models: list[Model], record: DecisionRecord, ids: Mapping[str, str]
) -> dict[str, int]:
    """Register the best challenger and set its alias; returns versions by alias."""
    if record.best is None:
        return dict(record.versions)
    registry = context.registry
    (model,) = [m for m in models if m.folder.name == record.best]
    facts = record.challenger(record.best)
    scores = {"metric": record.basis.metric, **facts.scores, "validation": facts.validation}
    decision = DecisionTags(record.outcome, record.reason, record.decided, json.dumps(scores))
    version = registry.register(
        model.folder, ids.get(record.best), {"batch": ", ".join(record.batches) or None}
    )
    if record.winner is not None:
        registry.promote(version, decision)
        return {"champion": version}
    registry.set_challenger(version, decision)
    return {"challenger": version}


def rollback(p: Params, root: Path = Path()) -> tuple[int, int]:
    """Exchange champion and previous champion; returns their versions (restored, demoted).

    Raises:
        StageError: there is no previous champion.
    """
    with locked(root / PROMOTE_LOCK):
        registry = Registry(Tracker.open(p))
        restored, demoted = registry.rollback()
        write_history(root, p.data.name, registry.history())
        return restored, demoted


def _main(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    if arguments.rollback:
        restored, demoted = rollback(p)
        print(
            f"promote: version {restored} is champion again; version {demoted} is now the previous champion"
        )
        return
    record = promote(p, batches=arguments.batch, dry_run=arguments.dry_run)
    print(record_text(record))
    if arguments.dry_run and record.acted is None:
        print(
            "The registry was not changed (--dry-run). Run again without --dry-run to act on this decision."
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks promote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--batch",
        action="append",
        help="batch whose items count as new; may be repeated (default: all batches without a decision)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and write the record, but do not change the registry"
    )
    parser.add_argument("--rollback", action="store_true", help="make the previous champion champion again")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_main, parser)


console.refuse_as_script(__name__)
