"""Decisions and promotions of models that were never trained, in a real MLflow registry."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from segcore.gate_rules import Costs
from segcore.params import Params
from segcore.promotion.figures import Basis
from tasks import promote
from tasks.promotion.candidates import Model
from tasks.promotion.context import PromotionContext
from tasks.promotion.history import now
from tasks.promotion.record import DecisionRecord, JudgedModel, record_path, write_record
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker

SETS = {"frozen": None, "new": None}


def bundle(folder: Path, content: str, seed: int = 0) -> Path:
    """A bundle whose weights are a text."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_text(content)
    facts = {"format": 2, "architecture": "unet", "title": "U-Net", "seed": seed}
    weights = hashlib.sha256(content.encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(facts | {"weights_sha256": weights}))
    return folder


def model(folder: Path) -> Model:
    """The challenger in a folder."""
    unused: Any = None
    return Model(folder, json.loads((folder / "model.json").read_text()), unused, 0.8, {})


def decision(p: Params, key: str, one: Model, champion: int | None, promoted: bool = True) -> DecisionRecord:
    """A decision on one challenger that was not acted upon yet."""
    figures = {"name": one.folder.name, "title": one.title, "validation": 0.8, "scores": {"frozen": 0.9}}
    judged = JudgedModel(
        **figures,
        classes=SETS,
        costs=Costs(),
        difference={},
        rules=[],
        allowed=True,
        by="better",
        architecture=one.architecture,
        seed=one.seed,
        weights_sha256=one.weights,
    )
    size = {"regions": 9, "clusters": 9}
    basis = Basis(
        metric="iou",
        score="iou/dataset/foreground_mean",
        frozen=size,
        new=size,
        confidence=0.95,
        comparisons=1,
        confidence_each=0.95,
        bootstrap=100,
        seed=0,
        gate={},
    )
    outcome = ("promoted" if champion else "first") if promoted else "kept"
    return DecisionRecord(
        dataset=p.data.name,
        key=key,
        batches=[key],
        decided=now(),
        inputs=key,
        champion_version=champion,
        outcome=outcome,
        winner=one.folder.name if promoted else None,
        best=one.folder.name,
        reason=f"reason of {key}",
        champion=None,
        challengers=[judged],
        basis=basis,
    )


def carry_out(p: Params, root: Path, record: DecisionRecord, one: Model) -> DecisionRecord:
    """Record a decision and act on it, as `promote` does once it has decided."""
    unused: Any = None
    context = PromotionContext(root, p, unused, "", Registry(Tracker.open(p)))
    path = record_path(root, p.data.name, record.key)
    write_record(path, record)
    return promote.carry_out(context, [one], record, path)


def promoted(
    p: Params, root: Path, number: int, champion: int | None, is_better: bool = True
) -> DecisionRecord:
    """Train (in name) model `unet-<number>`, decide on it and act."""
    one = model(bundle(root / f"models/unet-{number}", f"weights {number}", number))
    return carry_out(p, root, decision(p, f"b{number}", one, champion, is_better), one)


def registry_of(p: Params) -> Registry:
    return Registry(Tracker.open(p))


def aliases(p: Params) -> dict[str, int]:
    return {alias: row.version for row in registry_of(p).history() for alias in row.aliases}


def use_store(patch: pytest.MonkeyPatch, file: Path, copy: Path | None) -> None:
    """Use another file as the store; MLflow keeps a store open by its address, so that it needs another name."""
    if copy is None:
        file.write_bytes(b"")
    else:
        shutil.copy(copy, file)
        shutil.copy("mlflow.db.lock", f"{file}.lock")
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file.absolute()}")
