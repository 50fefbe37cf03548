"""Files that were written before segcore had rooms can be read: bundles, splits, packed items, decisions, registry.

`before_rooms/` was made by the code of that time, with the twelve pictures of `make_pairs`: params.yaml, the packed
file of one picture, the split, a U-Net of 60 steps with what it predicts for that picture, the decision that made it
champion, and the MLflow store as SQL, in which PROJECT stands for the folder of the project.
"""

import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from segcore import params
from segcore.data.packed import Packed
from segcore.data.prepared import PreparedData
from segcore.models.base.bundle import load_bundle, load_description
from segcore.splits.assignment import read_split_file
from tasks import train as training
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.promotion.printed import record_text
from tasks.promotion.record import read_record
from tasks.tracking.fetch import fetch_model
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tests.support.tiny import blobs, make_pairs

BEFORE = Path(__file__).with_name("before_rooms")
PACKED = next((BEFORE / "data/packed").glob("a0-*.safetensors"))
RUN = "b1fc686879e44d2a8481cfcf978fadf4"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as it was then, with the store of its runs and the models in it."""
    folder = tmp_path / "project"
    shutil.copytree(BEFORE, folder)
    make_pairs(folder / "source")
    with sqlite3.connect(folder / "mlflow.db") as store:
        store.executescript(
            (BEFORE / "mlflow.sql").read_text(encoding="utf-8").replace("PROJECT", str(folder))
        )
    store.close()
    shutil.copytree(BEFORE / "models/unet-0", folder / f"mlruns/1/{RUN}/artifacts/model")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def test_an_old_packed_item_holds_the_pixels_and_labels_that_were_packed() -> None:
    image, mask = blobs(48, 56, seed=0)
    packed = Packed(PACKED)
    np.testing.assert_array_equal(packed.rows("pixels", (0,), 0, 48), image)
    np.testing.assert_array_equal(packed.rows("labels", (0,), 0, 48), mask)
    assert packed.rows("valid", (0,), 0, 48).all()


def test_an_unchanged_picture_is_packed_under_the_same_name_with_the_same_bytes(project: Path) -> None:
    ingest(params.load(project / "params.yaml").data, project / "data/ingested")
    again = project / "data/packed" / PACKED.name
    assert again.read_bytes() == PACKED.read_bytes()
    assert len(list(again.parent.iterdir())) == 12


def test_an_old_bundle_predicts_what_it_did() -> None:
    pixels = Packed(PACKED).rows("pixels", (0,), 0, 48)
    images = torch.from_numpy(np.moveaxis(pixels, -1, 0)[None].astype(np.float32))
    found = load_bundle(BEFORE / "models/unet-0").predict(images).numpy()
    expected = load_file(BEFORE / "probabilities.safetensors")["probabilities"]
    # another processor may add in another order
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert (found[0].argmax(0) == blobs(48, 56, seed=0)[1]).mean() > 0.9


def test_the_splits_of_an_old_split_file_are_kept(project: Path) -> None:
    p = params.load(project / "params.yaml")
    old = read_split_file(project / "splits/tiny.csv", p.split)
    assert len(old) == 12
    # an assignment that a new run would not make
    exchanged = {"train": "test", "test": "train", "validation": "validation"}
    text = (project / "splits/tiny.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in text[2:]]
    moved = [",".join([row[0], exchanged[row[1]], *row[2:]]) for row in rows]
    (project / "splits/tiny.csv").write_text("\n".join([*text[:2], *moved, ""]), encoding="utf-8")
    ingest(p.data, project / "data/ingested")
    prepare(p, project / "data/ingested", project / "data/prepared", project / "splits/tiny.csv")
    items = PreparedData(project / "data/prepared").regions.set_index("item")["split"]
    assert items.to_dict() == {group: exchanged[str(entry.split)] for group, entry in old.items()}


@pytest.mark.slow
def test_an_old_project_trains_with_its_params_yaml(project: Path) -> None:
    """It has no section of objects, nor of networks that were added later."""
    p = params.load(project / "params.yaml")
    assert set(p.train) == {"common", "unet"} and "objects" not in p.train["common"]
    ingest(p.data)
    prepare(p)
    p = p.model_copy(update={"train": p.train | {"common": p.train["common"] | {"steps": 2}}})
    facts = load_description(training.train(p, "unet", 1))
    assert "kind" not in facts and "objects" not in facts and facts["training"]["steps"] == 2
    assert facts["settings"].keys() == load_description(BEFORE / "models/unet-0")["settings"].keys()


def test_an_old_registry_says_which_model_is_champion(project: Path) -> None:
    p = params.load(project / "params.yaml")
    champion = Registry(Tracker.open(p)).champion()
    assert champion is not None
    assert (champion.version, champion.architecture, champion.seed) == (1, "unet", 0)
    assert champion.run_id == RUN and champion.outcome == "first"
    assert champion.weights_sha256 == load_description(BEFORE / "models/unet-0")["weights_sha256"]
    fetched = fetch_model(Tracker.open(p).client, "models:/tiny@champion", project / "work/champion/1")
    assert (fetched / "model.safetensors").read_bytes() == (
        BEFORE / "models/unet-0/model.safetensors"
    ).read_bytes()


def test_an_old_decision_is_read(project: Path) -> None:
    (path,) = (p for p in (project / "decisions/tiny").glob("*.json") if p.name != "history.json")
    record = read_record(path)
    assert record is not None
    assert (record.winner, record.outcome, record.versions) == ("unet-0", "first", {"champion": 1})
    assert "U-Net becomes the first champion" in record_text(record)


def test_no_path_of_the_machine_that_made_them_is_in_these_files() -> None:
    for path in BEFORE.rglob("*"):
        if path.suffix in (".sql", ".json", ".yaml", ".csv"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"[\"' =]/[a-z]+/", text), path
