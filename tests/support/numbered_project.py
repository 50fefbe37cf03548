"""A project whose images have numbered objects, trained for some steps, and its evaluations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segcore import params
from tasks import evaluate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.train import train
from tests.support.tiny import blobs, values_for

COST = {"latency_ms": 10.0, "peak_memory_mb": 700.0}


def trained(folder: Path, architectures: list[str], steps: int) -> Path:
    """Train each architecture on 12 images in an empty folder, validated twice; returns the folder."""
    from segcore.objects.components import components

    for name in ("images", "masks"):
        (folder / "source" / name).mkdir(parents=True)
    for i in range(12):
        image, mask = blobs(48, 56, seed=i)
        Image.fromarray(image).save(folder / f"source/images/a{i}.png")
        Image.fromarray(components(mask, [1]).astype(np.uint16)).save(folder / f"source/masks/a{i}.png")
    common = {"steps": steps, "validate_every": steps // 2}
    values = values_for(
        "source", architectures=architectures, data={"instances": True}, train={"common": common}
    )
    values["data"]["label_values"] = {"0": 0, "others": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        for architecture in p.architectures:
            train(p, architecture, 0)
    return folder


def evaluated(project: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, **settings: Any) -> Path:
    """The folder of an evaluation with other settings, without measured costs."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/mlflow.db")
    monkeypatch.setattr(evaluate, "measure", lambda folders, *_: [dict(COST) for _ in folders])
    p = params.load()
    p = p.model_copy(update={"evaluate": p.evaluate.model_copy(update=settings)})
    return evaluate.run_evaluation(p, architecture, 0)
