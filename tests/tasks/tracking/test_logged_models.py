"""Bundles as MLflow models in a real embedded store, loaded by MLflow alone."""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel

import segcore
from segcore.files import sha256
from segcore.params import Params
from tasks.tracking import logged_models, runs
from tasks.tracking.fetch import find_model
from tasks.tracking.logged_models import log_model, model_of, write_model
from tasks.tracking.registry import DecisionTags, Registry
from tasks.tracking.tracker import Run, Tracker
from tests.support.bundles import OBJECTS, make_bundle, noise, rewrite
from tests.support.tiny import params_for, write_tif

ROOT = Path(__file__).parents[3]
ADDRESS = "models:/tiny@champion"
DECISION = DecisionTags("promoted", "first", "2026-01-01T00:00:00Z")
# rooms of segcore that a prediction imports; "" for the modules beside them
ROOMS = ("", "params", "data", "objects", "io", "models", "inference", "prediction", "metrics", "tables")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a training's run, and its model as champion."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        bundle = make_bundle(folder / "models/unet-0", objects=OBJECTS, input={"dtype": "uint8"})
        tracker = Tracker.open(params())
        run = tracker.create("U-Net · seed 0", "training")
        log_model(run, bundle)
        registry = Registry(tracker)
        registry.promote(registry.register(bundle, run.id, {}), DECISION)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield folder


def params() -> Params:
    return params_for("source")


@pytest.fixture(scope="module")
def model(project: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(ADDRESS)


@pytest.fixture(scope="module")
def predictor(project: Path) -> Any:
    return segcore.load(project / "models/unet-0", outputs=["objects"])


def batch(count: int = 2, height: int = 40, width: int = 50) -> np.ndarray:
    """(N, H, W, C) uint8."""
    return np.stack([np.moveaxis(noise(height, width, seed=seed), 0, -1) for seed in range(count)])


def test_arrays_give_the_class_maps_and_probabilities_of_the_bundle(
    model: PyFuncModel, predictor: Any
) -> None:
    images = batch()
    expected = [predictor.predict(image) for image in images]
    classes = model.predict(images)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [one.classes for one in expected])
    np.testing.assert_array_equal(model.predict(images[0]), expected[0].classes)
    probabilities = model.predict(images, params={"output": "probabilities"})
    assert probabilities.shape == (2, 40, 50, 3) and probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities[1, ..., 2], expected[1].probabilities[2])


def test_the_table_of_objects_is_that_of_the_bundle(model: PyFuncModel, predictor: Any) -> None:
    images = batch()
    table = model.predict(images, params={"output": "objects"})
    found = predictor.predict(images[1]).objects
    second = table[table["image"] == 1]
    assert len(second) == len(found) > 10
    assert second["area"].tolist() == found.areas.tolist()
    assert second["class"].tolist() == [predictor.classes[index] for index in found.classes]
    boxes = second[["top", "left", "bottom", "right"]].to_numpy()
    np.testing.assert_array_equal(boxes[:, :2], found.boxes[:, :2])
    np.testing.assert_array_equal(boxes[:, 2:], found.boxes[:, :2] + found.boxes[:, 2:])


@pytest.mark.parametrize("kind", ["array", "series", "column", "Path"])
def test_paths_give_a_list_of_class_maps(
    kind: str, model: PyFuncModel, predictor: Any, tmp_path: Path
) -> None:
    sizes = ((40, 50), (33, 70))
    paths = [str(tmp_path / f"{index}.tif") for index in range(2)]
    for path, size in zip(paths, sizes, strict=True):
        write_tif(Path(path), noise(*size))
    given = {"array": np.array(paths), "series": pd.Series(paths), "column": pd.DataFrame({"path": paths})}
    given["Path"] = np.array([Path(path) for path in paths])
    classes = model.predict(given[kind])
    assert [one.shape for one in classes] == list(sizes)
    np.testing.assert_array_equal(classes[1], predictor.predict(paths[1]).classes)


def test_values_of_json_get_the_data_type_of_the_training_images(model: PyFuncModel) -> None:
    images = batch()
    expected = model.predict(images)
    # as MLflow's server makes them of nested lists
    np.testing.assert_array_equal(model.predict(np.array(images.tolist(), object)), expected)
    np.testing.assert_array_equal(model.predict(images.astype(float).astype(object)), expected)
    of_two_sizes = np.array([images[0].tolist(), images[1, :33].tolist()], object)
    assert [one.shape for one in model.predict(of_two_sizes)] == [(40, 50), (33, 50)]
    with pytest.raises(MlflowException, match="int64 values, the training images have uint8"):
        model.predict((images.astype(int) + 200).astype(object))
    accepted = model.predict((images.astype(int) + 200).astype(object), params={"accept": ["range"]})
    assert accepted.shape == expected.shape


def objects(*items: Any) -> np.ndarray:
    """An array of objects, of which none is unpacked."""
    made = np.empty(len(items), object)
    for index, item in enumerate(items):
        made[index] = item
    return made


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        (np.zeros((1, 8, 8, 2), np.uint8), {}, "has 2 bands, the model takes 3"),
        (np.zeros((1, 8, 8, 3), bool), {}, "has bool values"),
        (np.zeros((0, 8, 8, 3), np.uint8), {}, "has shape"),
        (np.zeros(3), {}, "has shape"),
        (np.ma.masked_equal(np.zeros((1, 8, 8, 3), np.uint8), 0), {}, "is a masked array; fill it with"),
        (
            objects(*[np.ma.masked_equal(np.zeros((side, 8, 3)), 0) for side in (8, 9)]),
            {},
            "is a masked array",
        ),
        (np.array(["a/missing.tif", "b/missing.tif"]), {}, "a/missing.tif: No such file"),
        (np.array(["models"]), {}, "models: .*; if not, give the path of an image"),
        (np.array([""]), {}, "empty path ''"),
        (np.array(["a.tif", " "]), {}, "empty path ' '"),
        (np.array(["a\0b.tif"]), {}, "no path is"),
        (np.array([b"a.tif"]), {}, "neither images nor paths; .* and not bytes"),
        (objects(b"a.tif"), {}, "neither images nor paths; .* and not bytes"),
        (np.zeros((2, 8, 8, 3), np.uint16), {}, 'image 0: has uint16 .* or give params=.*"range"'),
        (np.array([["a.tif", 3]], object), {}, "neither images nor paths"),
        (np.array([[[1], [2, 3]], [[4], []]], object), {}, "rows of unequal length"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"output": "masks"}, "'masks' is unknown; choose one of classes"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"accept": ["all"]}, "'range' or 'resolution'"),
        (np.zeros((1, 8, 8, 3), np.uint8), {"tile": 64}, "tile"),
    ],
)
def test_input_that_does_not_fit_is_named(
    given: np.ndarray, settings: dict[str, Any], message: str, model: PyFuncModel
) -> None:
    if "tile" in settings:
        # MLflow leaves out parameters that the signature does not name
        assert model.predict(given, params=settings).shape == (1, 8, 8)
        return
    with pytest.raises(MlflowException, match=message):
        model.predict(given, params=settings)


def test_a_model_has_signature_example_and_requirements_and_no_pickle(project: Path) -> None:
    info = mlflow.models.get_model_info(ADDRESS)
    assert info.signature is not None
    assert [spec.name for spec in info.signature.params] == ["output", "accept"]
    loaded = mlflow.pyfunc.load_model(ADDRESS)
    assert loaded.predict(loaded.input_example).shape == (1, 32, 32)
    folder = stored(project)
    flavor = loaded.metadata.flavors["python_function"]
    assert "python_model" not in flavor and not {file.suffix for file in folder.rglob("*")} & {".pkl", ".pt"}
    required = (folder / "requirements.txt").read_text().splitlines()
    assert f"mlflow=={mlflow.__version__}" in required
    assert any(line.startswith("torch==") and "+" not in line for line in required)


def test_no_file_of_a_model_names_the_folder_of_this_clone(project: Path) -> None:
    files = [path for path in stored(project).rglob("*") if path.suffix != ".pyc" and path.is_file()]
    assert len(files) > 100
    assert not [path for path in files if str(ROOT).encode() in path.read_bytes()]


def test_the_requirements_are_the_imports_of_the_rooms_that_predict() -> None:
    top = Path(segcore.__file__).parent
    files = [file for room in ROOMS for file in (top / room).glob("**/*.py" if room else "*.py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    third_party = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"segcore"}
    providers = packages_distributions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # the others are of an extra
    core = {re.split("[<>=]", line)[0] for line in project["dependencies"]}
    distributions = {providers[name][0].lower() for name in third_party if name in providers}
    assert distributions & core == set(logged_models.REQUIREMENTS)


def test_the_files_of_a_model_are_stored_once_with_the_registered_hashes(project: Path) -> None:
    version = Tracker.open(params()).client.get_model_version("tiny", "1")
    weights, tags = stored(project) / "model.safetensors", version.tags
    assert not list(project.glob(f"mlruns/*/{version.run_id}/**/*.safetensors"))
    assert sha256(weights) == tags["weights_sha256"]
    assert sha256(weights.with_name("model.json")) == tags["description_sha256"]
    found = find_model(params(), ADDRESS, project)
    logged = model_of(Tracker.open(params()).client, version.run_id)
    assert logged is not None and version.source == logged.artifact_location
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": "1"}]
    names = {path.name for path in found.bundle.folder.iterdir()}
    assert names == {"model.json", "model.safetensors"}, "the bundle alone is fetched"


def test_a_logged_model_names_its_version_once_also_after_a_kill_and_on_a_server(project: Path) -> None:
    client, registry = Tracker.open(params()).client, Registry(Tracker.open(params()))
    logged = model_of(client, client.get_model_version("tiny", "1").run_id)
    assert logged is not None
    model_id = logged.model_id
    # as a server writes it, and as a kill before the name leaves it
    for tag in ([{"name": "tiny", "version": 1}], []):
        client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(tag)})
        assert registry.register(project / "models/unet-0", None, {}) == 1
        (named,) = json.loads(client.get_logged_model(model_id).tags["mlflow.modelVersions"])
        assert (named["name"], str(named["version"])) == ("tiny", "1")


def stored(project: Path) -> Path:
    """Folder of the champion in the store."""
    return Path(Registry(Tracker.open(params())).source(1))


def test_scores_of_an_evaluation_are_metrics_of_the_model_on_its_data(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs.stages, "run_key", lambda stage=None: "a" * 64)
    monkeypatch.setattr(runs.stages, "data_version", lambda: "0123456789abcdef")
    tracker = Tracker.open(params())
    with runs.training_run(tracker, params(), "unet", 7, "U-Net") as run:
        made = log_model(run, project / "models/unet-0")
    runs.log_evaluation(tracker, "unet", 7, {"iou/dataset/field": 0.75, "cost/latency_ms": 12.0})
    logged = tracker.client.get_logged_model(made.model_id)
    metrics = {metric.key: metric for metric in logged.metrics}
    assert metrics["test/iou.dataset.field"].value == 0.75 and metrics["cost/latency_ms"].value == 12.0
    assert metrics["test/iou.dataset.field"].dataset_digest == "0123456789ab"
    assert str(logged.status) == "READY" and logged.params["architecture"] == "unet"
    assert tracker.client.get_run(run.id).data.metrics["test/iou.dataset.field"] == 0.75


@pytest.mark.parametrize("call", ["log_outputs", "log_model_artifacts", "finalize_logged_model"])
def test_a_repeated_call_completes_the_model_that_a_kill_left(
    call: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    tracker = Tracker.open(params())
    run = tracker.create("killed", "training")
    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, call, die)
        with pytest.raises(Killed):
            log_model(run, project / "models/unet-0")
    made = log_model(run, project / "models/unet-0")
    assert [one.model_id for one in logged_models.models_of(tracker.client, run.id)] == [made.model_id]
    outputs = tracker.client.get_run(run.id).outputs.model_outputs
    assert [one.model_id for one in outputs] == [made.model_id] and str(made.status) == "READY"
    shutil.rmtree(Path(made.artifact_location))


def test_a_version_without_the_files_of_mlflow_gets_them_when_it_is_stored_again(project: Path) -> None:
    client, bundle = Tracker.open(params()).client, make_bundle(project / "models/unet-9", seed=9)
    run = client.create_run(Tracker.open(params()).experiment()).info
    client.log_artifacts(run.run_id, str(bundle), "model")
    version = Registry(Tracker.open(params())).create(f"{run.artifact_uri}/model", run.run_id, {})
    assert find_model(params(), f"models:/tiny/{version}", project).version == version
    with pytest.raises(MlflowException, match="MLmodel"):
        mlflow.pyfunc.load_model(f"models:/tiny/{version}")
    Registry(Tracker.open(params())).restore_files(version, bundle)
    assert mlflow.pyfunc.load_model(f"models:/tiny/{version}").predict(batch()).shape == (2, 40, 50)
    assert model_of(client, run.run_id) is None
    shutil.rmtree(Path(run.artifact_uri))


def loaded_alone(bundle: Path, folder: Path) -> PyFuncModel:
    folder.mkdir()
    write_model(folder, bundle, None, None)
    return mlflow.pyfunc.load_model(str(folder))


def test_a_model_of_neighbouring_planes_takes_volumes(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "unet-0", bands=3, input={"neighbours": 1, "dtype": "uint8"})
    model = loaded_alone(bundle, tmp_path / "model")
    volumes = np.stack([noise(40, 50, 4, seed)[..., None] for seed in range(2)])
    classes = model.predict(volumes)
    assert classes.shape == (2, 4, 40, 50)
    np.testing.assert_array_equal(classes[1], segcore.load(bundle).predict(volumes[1]).classes)
    with pytest.raises(MlflowException, match="takes 3 neighbouring ones together"):
        model.predict(volumes[0])
    assert model.predict(model.input_example).shape == (1, 3, 32, 32)


def test_an_instance_network_gives_its_objects(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "solo-0", architecture="solo")
    model = loaded_alone(bundle, tmp_path / "model")
    table = model.predict(batch(1, 64, 64), params={"output": "objects"})
    found = segcore.load(bundle).predict(batch(1, 64, 64)[0]).objects
    assert table["score"].tolist() == pytest.approx(found.scores.tolist()) and len(table) == len(found) > 0
    assert model.predict(batch(1, 64, 64)).shape == (1, 64, 64)


def test_a_model_without_objects_names_the_reason(tmp_path: Path) -> None:
    model = loaded_alone(make_bundle(tmp_path / "unet-0"), tmp_path / "model")
    with pytest.raises(MlflowException, match="cannot give the outputs objects"):
        model.predict(batch(), params={"output": "objects"})


def test_a_bundle_of_an_older_version_or_a_damaged_one_is_loaded_or_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "unet-0")
    rewrite(bundle, lambda description: description.pop("files"))
    assert loaded_alone(bundle, tmp_path / "old").predict(batch()).shape == (2, 40, 50)
    with (tmp_path / "old/model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(MlflowException, match=r"model\.safetensors: is not the file"):
        mlflow.pyfunc.load_model(str(tmp_path / "old"))


@pytest.mark.slow
def test_a_model_is_loaded_where_this_project_is_not(project: Path, tmp_path: Path) -> None:
    script = (
        "import json, mlflow, numpy as np, sys\n"
        f"model = mlflow.pyfunc.load_model({ADDRESS!r})\n"
        "classes = model.predict(np.load('images.npy'))\n"
        "import segcore\n"
        "print(json.dumps([classes.tolist(), segcore.__file__, 'tasks' in sys.modules]))\n"
    )
    np.save(tmp_path / "images.npy", batch())
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    classes, file, has_tasks = json.loads(done.stdout.splitlines()[-1])
    assert classes == mlflow.pyfunc.load_model(ADDRESS).predict(batch()).tolist()
    assert file.startswith(str(stored(project))) and not has_tasks


def test_a_run_of_an_earlier_version_gets_no_metrics_of_a_model(project: Path) -> None:
    tracker = Tracker.open(params())
    run = tracker.create("old", "training")
    assert Run.of_model(tracker.client, tracker.client.get_run(run.id)).model_id is None


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[str]:
    """Address of `mlflow models serve`, started outside of the project."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # MLflow starts uvicorn by its name
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = ["mlflow", "models", "serve", "-m", ADDRESS, "--env-manager", "local", "-p", str(port)]
    folder = project / "elsewhere"
    folder.mkdir()
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while not is_ready(address):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "serve.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def is_ready(address: str) -> bool:
    try:
        return requests.get(f"{address}/ping", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def answer(server: str, **content: Any) -> Any:
    response = requests.post(f"{server}/invocations", json=content, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


@pytest.mark.slow
def test_a_server_answers_images_and_paths_with_the_predictions_of_the_bundle(
    server: str, project: Path, predictor: Any
) -> None:
    images = batch()
    expected = [predictor.predict(image) for image in images]
    classes = [one.classes.tolist() for one in expected]
    assert answer(server, inputs=images.tolist()) == classes
    assert answer(server, instances=images.tolist()) == classes
    assert answer(server, inputs=images[0].tolist()) == classes[0]
    table = answer(server, inputs=images.tolist(), params={"output": "objects"})
    assert sum(row["image"] == 1 for row in table) == len(expected[1].objects)
    path = project / "elsewhere/a.tif"
    write_tif(path, noise(40, 50))
    column = {"columns": ["path"], "data": [[str(path)]]}
    probabilities = answer(server, dataframe_split=column, params={"output": "probabilities"})
    np.testing.assert_allclose(probabilities[0], np.moveaxis(expected[0].probabilities, 0, -1), atol=1e-6)
    assert answer(server, inputs=[str(path)]) == classes[:1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"inputs": [[[[1, 2]]]]}, "has 2 bands, the model takes 3"),
        ({"inputs": ["missing.tif"]}, "missing.tif"),
        ({"inputs": [""]}, "empty path"),
        ({"inputs": [[[1], [1, 2]], 3]}, "rows of unequal length"),
        ({"inputs": [[[[1, 2, 3]]]], "params": {"output": "mask"}}, "'mask' is unknown"),
    ],
)
def test_a_server_names_what_is_wrong_with_a_request(server: str, content: Any, message: str) -> None:
    response = requests.post(f"{server}/invocations", json=content, timeout=60)
    assert response.status_code == 400 and message in response.json()["message"]
    assert "Traceback" not in response.text
