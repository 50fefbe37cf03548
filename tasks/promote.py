"""Decide whether a challenger becomes champion, and act on it.

`python -m tasks promote [--batch ID] [--dry-run]` judges the models of the last comparison against the champion in
MLflow's registry by the section `gate` of params.yaml, writes decisions/<data.name>/<batch or run key>.json and moves
the aliases. `--rollback` makes the champion before this one champion again. Exit code 0 whatever was decided.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.errors import StageError
from segcore.files import digest, locked
from segcore.params import Params
from segcore.promotion.drift import drift
from segcore.promotion.gate import Candidate, decide
from tasks import console
from tasks.project import PREPARED, data_fingerprint
from tasks.promotion import candidates as inputs
from tasks.promotion.record import (
    FORMAT,
    read_record,
    record_path,
    record_text,
    write_history,
    write_json,
    write_record,
)
from tasks.tracking import registry, store
from tasks.tracking import runs as tracking
from tasks.versioning import stages

_LOCK = Path("work/promote.lock")


def promote(
    p: Params, root: Path = Path(), batch: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Decide, unless this was decided before, and act, unless `dry_run` or done before.

    Args:
        p: parameters; `gate`, `compare`, `evaluate`, `architectures` and `seeds` are used.
        root: the project's folder.
        batch: of the items that are new; None: no batch is, all test regions are the frozen test set.
        dry_run: leave registry and runs as they are. The record is written, and a later call acts on it.

    Returns:
        The record: what `segcore.promotion.gate.Decision.record` has, and key, batch, decided and acted (ISO 8601),
        inputs (a hash), champion_version, champion_run, versions (registered by it), drift.

    Raises:
        StageError: an evaluation is missing, the registry does not answer, or the batch has no item.
        ModelError: the champion's bundle is damaged; DataError: no prepared data.
    """
    with locked(root / _LOCK):  # a second one waits, and finds the decision of the first
        data = PreparedData(root / PREPARED)
        if batch is not None and batch not in set(data.items["batch"].astype(str)):
            known = ", ".join(sorted(set(data.items["batch"].astype(str)))[-5:])
            raise StageError(
                f"batch {batch}: no prepared item is of it", f"name one that there is, such as {known}"
            )
        models = inputs.challengers(root, p, data)
        facts = [
            p.gate.model_dump_json(),
            p.compare.metric,
            str(p.compare.seed),
            data_fingerprint(data.folder),
            str(batch),
        ]
        mark = digest(*facts, *(m.weights for m in models))
        path = record_path(root, p.data.name, batch or (stages.run_key("compare") or mark)[:16])
        holder = registry.champion(p)
        record = read_record(path)
        if record is None or not _holds(record, mark, holder):
            record = _decided(root, p, data, models, holder, batch, mark, path.stem)
            write_record(path, record)
        if not dry_run and record["acted"] is None:
            _act(p, models, record)
            write_json(path, record)
        if not dry_run:
            write_history(root, p.data.name, registry.history(p))
        return record


def _holds(record: Mapping[str, Any], mark: str, holder: Mapping[str, Any] | None) -> bool:
    """Whether a record is the decision on these inputs, and against this champion or one it made itself."""
    if record["inputs"] != mark:
        return False
    own = [c["weights_sha256"] for c in record["challengers"] if c["name"] == record["winner"]]
    now = (holder["version"], holder["weights_sha256"]) if holder else (None, None)
    return bool(record["acted"]) or record["champion_version"] == now[0] or now[1] in own


def _decided(
    root: Path,
    p: Params,
    data: PreparedData,
    models: list[inputs.Model],
    holder: Mapping[str, Any] | None,
    batch: str | None,
    mark: str,
    key: str,
) -> dict[str, Any]:
    champion = inputs.champion(root, p, data, holder["version"]) if holder else None
    rivals = [m for m in models if champion is None or m.weights != champion.weights]
    everyone = [*([champion] if champion else []), *rivals]
    judged = {}
    for model, cost in zip(everyone, inputs.costs(root, p, everyone), strict=True):
        name = "champion" if model is champion else model.folder.name
        frozen, new = inputs.split(model.counts, data, batch)
        version = holder["version"] if holder and model is champion else None
        judged[name] = Candidate(name, model.title, model.validation, frozen, new, cost, version)
    held = judged.pop("champion", None)
    foreground, classes = data.foreground, data.classes
    found = decide(
        held, list(judged.values()), p.gate, p.compare.metric, foreground, classes, p.compare.seed
    ).record()
    for one, model in zip(found["challengers"], rivals, strict=True):
        one |= {"architecture": model.architecture, "seed": model.seed, "weights_sha256": model.weights}
    return {
        "format": FORMAT,
        "dataset": p.data.name,
        "key": key,
        "batch": batch,
        "decided": registry.now(),
        "acted": None,
        "inputs": mark,
        "champion_version": holder["version"] if holder else None,
        "champion_run": holder["run_id"] if holder else None,
        "versions": {},
        **found,
        "drift": _drift(data, batch, champion, found),
    }


def _drift(
    data: PreparedData, batch: str | None, champion: inputs.Model | None, found: Mapping[str, Any]
) -> dict[str, Any] | None:
    if batch is None:
        return None
    errors = {"ece": inputs.calibration_errors(champion, batch)} if champion else {}
    return drift(data, batch, {"score": found["champion"]["scores"], **errors} if champion else None)


def _act(p: Params, models: list[inputs.Model], record: dict[str, Any]) -> None:
    """Registry and runs as the record says; each step may be repeated, and the record is marked last."""
    client = store.client(p)
    of_name = {m.folder.name: m for m in models}
    runs = {m.folder.name: tracking.member(client, p, f"train@{m.folder.name}") for m in models}
    ids = {name: run.info.run_id for name, run in runs.items() if run is not None}
    if record["best"] is not None:
        model = of_name[record["best"]]
        facts = next(c for c in record["challengers"] if c["name"] == record["best"])
        scores = {"metric": record["basis"]["metric"], **facts["scores"], "validation": facts["validation"]}
        decision = {k: record[k] for k in ("outcome", "reason", "decided")} | {"scores": json.dumps(scores)}
        version = registry.register(p, model.folder, ids.get(record["best"]), {"batch": record["batch"]})
        if record["winner"] is not None:
            registry.promote(p, version, decision)
        else:
            registry.set_challenger(p, version, decision)
        record["versions"] = {"champion" if record["winner"] else "challenger": version}
    tags = {
        "gate.outcome": record["outcome"],
        "gate.reason": record["reason"],
        "gate.winner": record["winner"],
    }
    judged = {ids[c["name"]] for c in record["challengers"] if c["name"] in ids}
    for run_id in sorted(judged | set(filter(None, [record["champion_run"]]))):
        store.Run(client, run_id).tag(tags)
    record["acted"] = registry.now()


def rollback(p: Params, root: Path = Path()) -> tuple[int, int]:
    """Exchange champion and previous champion; (restored, demoted).

    Raises:
        StageError: there is no previous champion.
    """
    with locked(root / _LOCK):
        restored, demoted = registry.rollback(p)
        write_history(root, p.data.name, registry.history(p))
        return restored, demoted


def _main(arguments: argparse.Namespace) -> None:
    p = params.load(arguments.params)
    if arguments.rollback:
        restored, demoted = rollback(p)
        print(f"promote: version {restored} is champion again; version {demoted} is the previous one now")
        return
    record = promote(p, batch=arguments.batch, dry_run=arguments.dry_run)
    print(record_text(record))
    if arguments.dry_run and record["acted"] is None:
        print("Nothing was changed (--dry-run); without it, this decision is acted upon.")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks promote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--batch", help="name of the ingest whose items are new (column batch of the catalogue)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and write the record, but change nothing else"
    )
    parser.add_argument("--rollback", action="store_true", help="make the previous champion champion again")
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(_main, parser)
