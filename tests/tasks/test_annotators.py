"""Several annotators: networks learn their mean, and are scored against the majority and each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from segcore import params
from segcore.constants import IGNORE
from segcore.data.annotators import majority
from segcore.data.prepared import PreparedData
from segcore.errors import ParamsError
from segcore.params.root import _validated
from segcore.training.sampler import Sampler
from tasks import compare, evaluate
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.train import train
from tests.support.tiny import blobs, values_for

NAMES = ["ann", "bob", "cyd"]
DATA = {"annotators": NAMES, "masks": "masks/{annotator}/{stem}.png"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net trained for four steps on images whose three masks differ by noise."""
    folder = tmp_path_factory.mktemp("project")
    rng = np.random.default_rng(0)
    for name in ("images", *(f"masks/{name}" for name in NAMES)):
        (folder / "source" / name).mkdir(parents=True)
    for i in range(12):
        image, mask = blobs(48, 56, seed=i)
        Image.fromarray(image).save(folder / f"source/images/a{i}.png")
        for name in NAMES:
            wrong = rng.random(mask.shape) < 0.1
            Image.fromarray(np.where(wrong, 1 - mask, mask).astype(np.uint8) * 255).save(
                folder / f"source/masks/{name}/a{i}.png"
            )
    values = values_for("source", architectures=["unet"], data=DATA)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setattr(evaluate, "measure", lambda *_: [{"peak_memory_mb": 700.0}])
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
        train(p, "unet", 0)
        evaluate.run_evaluation(p, "unet", 0)
    return folder


def test_the_label_is_the_majority_and_training_sees_the_mean(project: Path) -> None:
    p, data = params.load(project / "params.yaml"), PreparedData(project / "data/prepared")
    assert data.annotators == NAMES
    region = str(data.regions["id"].iloc[0])
    each = [data.read_baseline(name, region) for name in NAMES]
    assert (data.read(region).label == majority(each, 2)).all()
    files = [np.array(Image.open(project / f"source/masks/{n}/{region}.png")) // 255 for n in NAMES]
    assert all((a == b).all() for a, b in zip(each, files, strict=True))
    settings = p.for_architecture("unet")
    batch = Sampler(data, settings, p.prepare.window, 0).batch(0)
    label = batch["label"]
    assert label.shape == (2, 2, 32, 32) and label.dtype == torch.float32
    sums = label.sum(1)
    assert ((sums - 1).abs() < 1e-6).logical_or(sums == 0).all()
    assert {0.0, 0.333, 0.667, 1.0} == {round(v, 3) for v in label.unique().tolist()}


def test_networks_are_scored_against_each_and_the_agreement_is_printed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    table = pd.read_parquet("evaluations/unet-0/annotators.parquet")
    assert set(table["annotator"]) == set(NAMES)
    comparison = compare.build(Path(), params.load())
    (agreed,) = [note for note in comparison.notes if note.startswith("Agreement of the annotators")]
    data = PreparedData(Path("data/prepared"))
    ids = data.regions.loc[data.regions["split"] == "test", "id"]
    ious = []
    for a, b in (("ann", "bob"), ("ann", "cyd"), ("bob", "cyd")):
        one, other = ([data.read_baseline(n, i) == 1 for i in ids] for n in (a, b))
        pairs = list(zip(one, other, strict=True))
        ious.append(sum((x & y).sum() for x, y in pairs) / sum((x | y).sum() for x, y in pairs))
    assert f"IoU {100 * np.mean(ious):.1f} %" in agreed
    assert any(note.startswith("U-Net against each annotator, IoU: ann ") for note in comparison.notes)
    assert [row.architecture for row in comparison.leaderboard if row.kind == "human"] == NAMES


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"annotators": NAMES}, "masks needs {annotator}"),
        ({**DATA, "annotators": ["ann"]}, "name at least two"),
        ({**DATA, "annotators": [f"a{i}" for i in range(50)]}, "50 of them with 2 classes are too many"),
        ({**DATA, "baselines": {"x": "x/{stem}.png"}}, "not possible beside baselines"),
        ({**DATA, "instances": "components"}, "not possible with objects"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, object], expected: str) -> None:
    with pytest.raises(ParamsError, match=expected):
        _validated(params.Params, values_for("source", data=data), "params.yaml")


def test_ignored_pixels_have_no_class() -> None:
    labels = [np.full((2, 2), IGNORE, np.uint8)] * 2
    assert (majority(labels, 3) == IGNORE).all()
