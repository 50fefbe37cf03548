"""While a model is exchanged, pixels and record of a prediction are of one model, and never of two."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from segcore.files import atomic_folder, copy_files
from segcore.models.base import bundle
from segcore.params import Params, Predict
from segcore.prediction import predictor, scene_writer
from segcore.prediction.predictor import Predictor
from tasks import prediction_record
from tasks.predict import run_prediction
from tasks.tracking import fetch
from tasks.tracking.registry import DecisionTags, Registry
from tasks.tracking.tracker import Tracker
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import values_for, write_tif

# what a prediction does, in order; the exchange happens before or after the call of this number (-1: of the last)
STEPS: list[tuple[Any, str, int]] = [
    (fetch, "_resolved", 0),
    (fetch, "_fetched", 0),
    (fetch, "_downloaded", 0),
    (fetch, "verified", -1),
    (bundle, "_described", 0),
    (bundle, "_described", -1),
    (bundle, "_check_weights", 0),
    (bundle, "_check_weights", -1),
    (bundle.Bundle, "model", 0),
    (predictor, "fused", 0),
    (prediction_record.Record, "open", 0),
    (scene_writer.SceneWriter, "put", 0),
    (scene_writer.SceneWriter, "put", -1),
    (scene_writer.SceneWriter, "finish", 0),
    (predictor.Predictor, "predict_file", 0),
    (prediction_record.Record, "add", 0),
    (prediction_record.Record, "save", 0),
    (prediction_record.Record, "save", -1),
]
CASES = [(*step, "before") for step in STEPS] + [(*STEPS[-1], "after")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, `one` and `two`, with different pixels, and a scene of several blocks."""
    folder = tmp_path_factory.mktemp("exchange")
    (folder / "params.yaml").write_text(yaml.safe_dump(values_for("source")))
    make_bundle(folder / "one")
    make_bundle(folder / "two", seed=1, classes=["background", "meadow", "lake"])
    write_tif(folder / "scenes/s.tif", noise(150, 90))
    for name in ("one", "two"):
        Predictor(folder / name, Predict(tile=64, overlap=16)).predict_file(
            folder / "scenes/s.tif", folder / "expected", name
        )
    expected = [pixels(folder / f"expected/{name}.tif") for name in ("one", "two")]
    assert not np.array_equal(*expected)
    return folder


@pytest.fixture(scope="module")
def registered(project: Path) -> Params:
    """A store in which `one` is version 1 and champion, and `two` version 2."""
    store = {"uri": f"sqlite:///{project}/mlflow.db"}
    p = Params.model_validate(values_for("source", tracking=store))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        registry = Registry(Tracker.open(p))
        for name in ("one", "two"):
            registry.promote(registry.register(project / name, None, {}), DecisionTags("promoted", "", ""))
    return p


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("work", "out", "models"):
        shutil.rmtree(project / name, ignore_errors=True)
    return project


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


def model_of(project: Path) -> tuple[str, dict[str, Any]]:
    """Which bundle the pixels of the scene are of, and what the record says; both must agree."""
    (entry,) = json.loads((project / "out/predictions.json").read_text())["scenes"].values()
    found = pixels(project / "out/s.tif")
    (name,) = (n for n in ("one", "two") if np.array_equal(found, pixels(project / f"expected/{n}.tif")))
    described = bundle.read_bundle(project / name)
    assert entry["model"]["weights_sha256"] == described.weights_sha256
    assert entry["model"]["description_sha256"] == described.description_sha256
    with rasterio.open(project / "out/s.tif") as source:
        assert source.tags()["CLASS_1"] == described.description["classes"][1]
        assert source.tags()["MODEL_SHA256"] == described.weights_sha256
    return name, entry["model"]


def exchange_at(
    owner: Any, name: str, number: int, when: str, exchange: Callable[[], object], run: Callable[[], object]
) -> bool:
    """Run with an exchange at one call of a function; whether the function was called."""
    real, total = getattr(owner, name), 0

    def wrapped(at: int) -> Callable[..., Any]:
        done = 0

        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal done
            done, mine = done + 1, done == at
            if mine and when == "before":
                exchange()
            nonlocal total
            try:
                return real(*arguments, **keywords)
            finally:
                # also after an error, such as that a version is not in work/ yet
                if mine and when == "after":
                    exchange()
                total = done

        return call

    with pytest.MonkeyPatch.context() as patch:
        if number < 0:
            # a run without an exchange counts the calls
            patch.setattr(owner, name, wrapped(-1))
            run()
            shutil.rmtree("out")
            shutil.rmtree("work", ignore_errors=True)
        at = total + number if number < 0 else number
        patch.setattr(owner, name, wrapped(at))
        run()
    return total > at >= 0


@pytest.mark.parametrize(("owner", "name", "number", "when"), CASES)
def test_promotions_and_rollbacks_at_every_step(
    here: Path, registered: Params, owner: Any, name: str, number: int, when: str
) -> None:
    registry = Registry(Tracker.open(registered))
    before = registry.champion()
    assert before is not None

    def exchange() -> None:
        registry.rollback()
        # another process predicts with the new champion
        fetch.find_model(registered, "champion")

    def run() -> None:
        run_prediction(registered, ["scenes/s.tif"], output=Path("out"))

    assert exchange_at(owner, name, number, when, exchange, run)
    found, model = model_of(here)
    assert (found, model["version"]) in (("one", 1), ("two", 2))
    assert (name == "_resolved" and when == "before") or model["version"] == before.version
    run()
    champion = registry.champion()
    assert champion is not None and champion.version != before.version
    assert model_of(here)[1]["version"] == champion.version


@pytest.mark.parametrize(
    ("owner", "name", "number", "when"), [case for case in CASES if case[0] is not fetch]
)
def test_a_local_folder_that_is_trained_again_at_every_step(
    here: Path, registered: Params, owner: Any, name: str, number: int, when: str
) -> None:
    def place(name: str) -> None:
        with atomic_folder(here / "models/unet-0") as part:
            copy_files(here / name, part)

    def run() -> None:
        run_prediction(registered, ["scenes/s.tif"], "models/unet-0", Path("out"))

    place("one")
    assert exchange_at(owner, name, number, when, lambda: place("two"), run)
    model_of(here)
    run()
    assert model_of(here)[0] == "two"


def test_a_kill_while_files_are_replaced_leaves_no_record_of_the_earlier_model(
    here: Path, registered: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Simulates kill -9: no record is written any more."""

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    run_prediction(registered, ["scenes/s.tif"], "one", Path("out"))
    with monkeypatch.context() as patch:
        patch.setattr(prediction_record.Record, "add", killed)
        patch.setattr("tasks.predict.Batch.__exit__", lambda self, *_: self._stack.close())
        with pytest.raises(Killed):
            run_prediction(registered, ["scenes/s.tif"], "two", Path("out"))
    counts = run_prediction(registered, ["scenes/s.tif"], "one", Path("out"))
    assert counts["predicted"] == 1 and model_of(here)[0] == "one"
