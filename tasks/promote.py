"""Decide whether a challenger becomes champion, and update the registry.

`python -m tasks promote [--batch ID]` compares the models of the last comparison with the champion in MLflow's registry
by the rules in section `gate` of params.yaml, writes decisions/<data.name>/<batch or run key>.json, moves the aliases,
commits the decision and renews the report. `--dry-run` prints the decision and writes nothing. `--rollback` makes the
previous champion champion again. Where `gate.approval` is `person`, the user who runs it approves the decision. Exit
code 0 whatever the decision.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segcore import params
from segcore.errors import DataError, StageError
from segcore.files import alone, locked
from segcore.ingest import catalog
from segcore.params import Params
from tasks import console
from tasks.batches import undecided
from tasks.links import require_folders
from tasks.project import COMPARE_LOCK, PROMOTE_LOCK, RETRAIN_LOCK
from tasks.promotion import agreement, approvals, candidates, decision, frozen_groups, publish, renewal
from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext
from tasks.promotion.history import (
    CHALLENGER,
    CHAMPION,
    PREVIOUS,
    now,
    read_history,
    write_copy,
    write_history,
)
from tasks.promotion.json_files import write_json
from tasks.promotion.model_card import model_card
from tasks.promotion.printed import record_text, registry_text, repeated_text
from tasks.promotion.record import (
    Approval,
    DecisionRecord,
    read_record,
    record_path,
    records,
    write_record,
)
from tasks.tracking import runs
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Run, Tracker
from tasks.versioning import git, stages


def promote(
    p: Params,
    root: Path = Path(),
    batches: Sequence[str] | None = None,
    dry_run: bool = False,
    registry: Registry | None = None,
    approval: Approval | None = None,
) -> DecisionRecord:
    """Decide and update the registry; a decision on the same inputs is read, and not acted upon twice.

    Args:
        p: parameters; `gate`, `compare`, `evaluate`, `architectures` and `seeds` are used.
        root: the project's folder.
        batches: names of the batches that count as new; empty: none, all test regions are the frozen test set;
            None: all batches without a decision.
        dry_run: decide, but write no record and do not change registry and runs.
        registry: an open registry; None: it is opened here.
        approval: a person's answer to the decision that an earlier call returned.

    Returns:
        The record of the decision. Where `gate.approval` is `person`, a decision that replaces the champion is
        returned without being acted upon (`acted` is None), until a call with an approval. That call does not act
        either if the inputs have changed since, because the person has not seen the new decision.

    Raises:
        StageError: an evaluation is missing, the registry does not respond or disagrees with the records, the test
            set is no longer the one of earlier decisions, or the batch has no item.
        ModelError: the champion's bundle is damaged; DataError: no prepared data, or a damaged record.
        ParamsError: split.folds is set.
    """
    p.require_one_split()
    # a second process waits, then reads the decision of the first
    with locked(root / PROMOTE_LOCK):
        context = PromotionContext.open(p, root, registry)
        _require_agreement(context, dry_run)
        frozen_groups.require_frozen(root, p.data.name, context.data)
        new = undecided(p, root) if batches is None else list(batches)
        _require_batches(context, new)
        models = candidates.challengers(context)
        if not dry_run:
            renewal.renew(context, models)
        mark = decision.inputs_hash(context, models, new)
        path = record_path(root, p.data.name, new[-1] if new else (stages.run_key("compare") or mark)[:16])
        holder, record = context.registry.champion(), read_record(path)
        is_new = record is None or not decision.is_current(record, mark, holder)
        if record is None or is_new:
            record = decision.new_decision(context, models, holder, new, mark, path.stem)
        if dry_run:
            return record
        if is_new:
            frozen_groups.add_groups(root, p.data.name, context.data)
            write_record(path, record)
        if approvals.awaits_approval(p, record):
            if approval is None or is_new:
                return record
            record = approvals.answered(record, approval)
            write_json(path, record.as_json())
        return carry_out(context, models, record, path)


def carry_out(
    context: PromotionContext, models: list[Model], record: DecisionRecord, path: Path
) -> DecisionRecord:
    """Act on a recorded decision if that has not been done, and write the history; the caller holds the lock.

    Args:
        context: of the promotion.
        models: the challengers, one of which may become champion.
        record: the decision.
        path: its file.
    """
    if record.acted is None:
        record = _act(context, models, record)
        write_json(path, record.as_json())
    write_history(context.root, context.params.data.name, context.registry.history())
    return record


def _require_agreement(context: PromotionContext, dry_run: bool) -> None:
    """Check that registry and records agree; the caller holds the lock."""
    registry = context.registry
    if dry_run:
        registry.require_agreement(context.root, dry_run=True)
    else:
        agreement.settle(registry, context.root)
        agreement.require_files(registry, registry.history())


def _require_batches(context: PromotionContext, names: Sequence[str]) -> None:
    known = set(context.data.items["batch"].astype(str)) | set(catalog.batch_folders(context.params.data))
    for name in names:
        if name not in known:
            raise StageError(
                f"batch {name}: there is no such batch",
                f"name an existing batch, such as {', '.join(sorted(known)[-5:])}",
            )


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
        run = runs.run_of(context.registry.tracker, model.folder.name, keys)
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
    version = registry.register(
        model.folder, ids.get(record.best), {"batch": ", ".join(record.batches) or None}
    )
    registry.describe(version, model_card(model.folder, context.params, version, context.root))
    if record.winner is not None:
        registry.promote(version, record.tags())
        return {CHAMPION: version}
    registry.set_challenger(version, record.tags())
    return {CHALLENGER: version}


def rollback(p: Params, root: Path = Path()) -> tuple[int, int]:
    """Exchange champion and previous champion; returns their versions (restored, demoted).

    A call after a kill completes that rollback and does not start another one.

    Raises:
        StageError: there is no previous champion, or registry and records disagree.
        DataError: a record is damaged.
    """
    with locked(root / PROMOTE_LOCK):
        registry = Registry(Tracker.open(p))
        if not agreement.settle(registry, root):
            registry.rollback()
            write_copy(root, p.data.name, registry.history(), "rollback")
        rows = registry.history()
        write_history(root, p.data.name, rows)
        aliases = {alias: row.version for row in rows for alias in row.aliases}
        return aliases[CHAMPION], aliases[PREVIOUS]


def _renew_report(p: Params) -> None:
    """Write the report; the registry has changed already, so a missing comparison is no error."""
    try:
        publish.write_report(p)
    except (StageError, DataError) as error:
        print(f"The report was not renewed: {error}")


def _main(arguments: argparse.Namespace) -> None:
    # a round, and a comparison, have results half written; a round promotes at its end
    with alone(RETRAIN_LOCK, "a round of retraining"), alone(COMPARE_LOCK, "a comparison"):
        _promote_or_roll_back(arguments)


def _promote_or_roll_back(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    name = p.data.name
    if not arguments.dry_run:
        # before anything changes
        require_folders()
        git.require_usable(dataset=name)
    if arguments.rollback:
        restored, demoted = rollback(p)
        sentence = f"Version {restored} is champion again; version {demoted} is now the previous champion."
        print(f"promote: {sentence}")
        try:
            publish.commit_records(p, f"Rollback of {name} to version {restored}", sentence)
        except StageError as error:
            raise StageError(
                f"the rollback is done, but not committed: {error.what}",
                "correct the cause; the next `make promote` or `make retrain` commits it (a second `make rollback` "
                "would undo it)",
            ) from error
        _renew_report(p)
        return
    carried_out = [one for one in records(Path(), name) if one.acted]
    record = promote(p, batches=arguments.batch, dry_run=arguments.dry_run)
    if not arguments.dry_run and record.acted is None:
        approval = Approval(answer="approved", by=approvals.user_name(), when=now(), comment="make promote")
        record = promote(p, batches=arguments.batch, approval=approval)
    versions = read_history(Path(), name)
    print(repeated_text(record, versions) if record in carried_out else record_text(record))
    if text := registry_text(name, versions):
        print(text)
    if arguments.dry_run:
        print("Nothing was changed (--dry-run).")
        return
    subject = f"Decision of {name} on batch {publish.batch_names(record.batches)}"
    publish.commit_decision(p, subject, record.reason)
    _renew_report(p)


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
        "--dry-run", action="store_true", help="print the decision, and write and change nothing"
    )
    parser.add_argument("--rollback", action="store_true", help="make the previous champion champion again")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_main, parser)


console.refuse_as_script(__name__)
