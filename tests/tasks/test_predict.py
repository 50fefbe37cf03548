"""The command `predict`: scenes found, names, scenes skipped and repeated, and models by address."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rasterio

from segcore.errors import DataError, ModelError, ParamsError, StageError
from segcore.params import Params, load
from tasks.predict import run_prediction
from tasks.prediction_arguments import chosen
from tasks.prediction_record import Record
from tasks.scenes import find_scenes
from tasks.tracking.fetch import fetch_model
from tasks.tracking.tracker import Tracker
from tests.support.bundles import OBJECTS, make_bundle, make_project, noise
from tests.support.tiny import values_for, write_tif

ROOT = Path(__file__).parents[2]
KILL_AFTER = """\
import os, signal, sys
from pathlib import Path
from segcore.params import load
from tasks import prediction_record
from tasks.prediction_arguments import chosen
from tasks.predict import Batch
prediction_record._SECONDS = 0
with Batch(chosen(load(), sys.argv[2].split(","), None), ["scenes"], "bundle", Path("out")) as batch:
    for number, scene in enumerate(batch.todo):
        if number == int(sys.argv[1]):
            batch.predict(scene, lambda done, total: os.kill(os.getpid(), signal.SIGKILL))
        batch.predict(scene)
"""


def environment() -> dict[str, str]:
    mine = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    return {**mine, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, a bundle and four scenes."""
    return make_project(tmp_path, 4, monkeypatch)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each GeoTIFF."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.glob("*.tif")}


def test_the_command_predicts_and_repeats_nothing(project: Path) -> None:
    arguments = ["-m", "tasks", "predict", "scenes", "--model", "bundle", "--output", "out"]
    done = command(project, *arguments)
    assert done.returncode == 0, done.stderr
    assert "4 predicted, 0 done before: out" in done.stdout
    before = state(project / "out")
    assert len(before) == 4 and not [p for p in (project / "out").iterdir() if p.name.endswith(".part")]
    done = command(project, *arguments)
    assert done.returncode == 0 and "0 predicted, 4 done before" in done.stdout
    assert state(project / "out") == before


def test_help_names_the_arguments(tmp_path: Path) -> None:
    done = command(tmp_path, "-m", "tasks", "predict", "--help")
    assert done.returncode == 0 and "python -m tasks predict" in done.stdout and "models:/" in done.stdout


@pytest.mark.parametrize("outputs", ["classes", "classes,objects,coco,counts"])
def test_after_a_kill_it_continues_with_the_remaining_scenes(project: Path, outputs: str) -> None:
    shutil.rmtree(project / "bundle")
    make_bundle(project / "bundle", objects=OBJECTS)
    done = command(project, "-c", KILL_AFTER, "2", outputs)
    assert done.returncode == -signal.SIGKILL
    before = state(project / "out")
    kinds = [".tif"] if outputs == "classes" else [".tif", "_objects.tif"]
    expected = {f"s{n}{kind}" for n in range(4) for kind in kinds}
    done_before = {name for name in expected if name[1] in "01"}
    assert set(before) == done_before, "the scene in progress has left no file"
    assert (project / "out" / ".s2.part").is_dir(), "it was killed during a scene"
    p = chosen(load(), outputs.split(","), None)
    assert run_prediction(p, ["scenes"], "bundle", Path("out")) == {"predicted": 2, "done before": 2}
    after = state(project / "out")
    assert set(after) == expected and {k: after[k] for k in before} == before, (
        "finished files keep inode and time"
    )
    assert not list((project / "out").glob(".*.part"))


def test_sigterm_ends_it_with_clean_up(project: Path) -> None:
    for number in range(4, 400):
        shutil.copy(project / "scenes/s0.tif", project / f"scenes/s{number}.tif")
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks", "predict", "scenes", "--model", "bundle", "--output", "out"],
        cwd=project,
        env=environment(),
        stderr=subprocess.DEVNULL,
    )
    while not (project / "out/s1.tif").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 143
    found = json.loads((project / "out/predictions.json").read_text())["scenes"]
    assert 1 <= len(found) < 400 and not list((project / "out").glob(".*.part"))
    assert len(list((project / "out").glob("*.tif"))) - len(found) in (0, 1), (
        "all finished scenes are recorded"
    )


def test_changed_scenes_models_and_settings_are_predicted_again(project: Path) -> None:
    run_prediction(load(), ["scenes"], "bundle", Path("out"))
    write_tif(project / "scenes/s1.tif", noise(70, 90, seed=9))
    before = state(project / "out")
    assert run_prediction(load(), ["scenes"], "bundle", Path("out"))["predicted"] == 1
    changed = {name for name, facts in state(project / "out").items() if facts != before[name]}
    assert changed == {"s1.tif"}
    (project / "out/s2.tif").unlink()
    assert run_prediction(load(), ["scenes"], "bundle", Path("out"))["predicted"] == 1
    p = Params.model_validate(values_for("source", predict={"overlap": 16, "blend": "logits"}))
    assert run_prediction(p, ["scenes"], "bundle", Path("out"))["predicted"] == 4
    make_bundle(project / "other", seed=1)
    assert run_prediction(p, ["scenes"], "other", Path("out"))["predicted"] == 4


def test_bad_scenes_are_reported_and_the_others_are_predicted(project: Path) -> None:
    write_tif(project / "scenes/five.tif", noise(40, 40, bands=5))
    data = (project / "scenes/s1.tif").read_bytes()
    (project / "scenes/s1.tif").write_bytes(data[: len(data) // 2])
    done = command(project, "-m", "tasks", "predict", "scenes", "--model", "bundle", "--output", "out")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "2 of 5 scenes failed" in done.stderr
    assert "five.tif: has 5 bands, the model takes 3" in done.stderr and "s1.tif: truncated" in done.stderr
    assert set(state(project / "out")) == {"s0.tif", "s2.tif", "s3.tif"}
    (project / "scenes/s1.tif").write_bytes(data)
    with pytest.raises(StageError, match="1 of 5 scenes failed"):
        run_prediction(load(), ["scenes"], "bundle", Path("out"))
    assert "s1.tif" in state(project / "out"), "corrected"


def test_scenes_of_one_stem_do_not_share_a_file(project: Path) -> None:
    write_tif(project / "scenes/a/s0.tif", noise(40, 50, seed=7))
    write_tif(project / "scenes/b/a/s0.tif", noise(50, 40, seed=8))
    write_tif(project / "scenes/s0_probabilities.tif", noise(40, 60))
    both = {"overlap": 16, "outputs": ["classes", "probabilities"]}
    p = Params.model_validate(values_for("x", predict=both))
    run_prediction(p, ["scenes/a"], "bundle", Path("out"))
    run_prediction(p, ["scenes"], "bundle", Path("out"))
    record = json.loads((project / "out/predictions.json").read_text())["scenes"]
    files = [file for entry in record.values() for file in entry["files"]]
    assert len(set(files)) == len(files) == 7 * 5
    for path, entry in record.items():
        with rasterio.open(path) as source, rasterio.open(project / "out" / entry["files"][0]) as made:
            assert made.shape == source.shape
    assert record[str(project / "scenes/a/s0.tif")]["name"] == "s0", "a name is never changed"


def test_scenes_are_never_overwritten(project: Path) -> None:
    with pytest.raises(ParamsError, match="would overwrite"):
        run_prediction(load(), ["scenes/*.tif"], "bundle", Path("scenes"))
    with rasterio.open(project / "scenes/s0.tif") as source:
        assert source.count == 3


def test_files_folders_and_patterns_are_found(project: Path) -> None:
    for name in ("scenes/series/b.dcm", "scenes/.hidden/x.tif", "scenes/notes.txt", "scenes/out/s9.tif"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    out = Path("scenes/out")
    names = {p.relative_to(project / "scenes").as_posix() for p in find_scenes(["scenes"], out)}
    assert names == {"s0.tif", "s1.tif", "s2.tif", "s3.tif", "series"}
    assert [p.name for p in find_scenes(["scenes/s[01].tif", "scenes/s0.tif"], out)] == ["s0.tif", "s1.tif"]
    assert [p.name for p in find_scenes([project / "scenes" / "*.t*"], out)] == [
        f"s{i}.tif" for i in range(4)
    ]
    with pytest.raises(DataError, match=r"no scene found \(files of that pattern: none\)"):
        find_scenes(["nowhere/*.tif"], out)
    (project / "scenes/up").symlink_to("..")
    assert len(find_scenes(["scenes"], out)) == 5
    for odd in ("z" * 300, "a\0b"):
        with pytest.raises(DataError, match=r"no scene found|cannot be searched"):
            find_scenes([odd], out)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"scenes": {"/x": {"name": "..", "files": [".lock"]}}}',
        '{"scenes": {"/x": {"name": "x", "files": ["predictions.json"]}}}',
        '{"scenes": {"/x": {"name": "x", "files": "x.tif"}}}',
        '{"scenes": {"/x": {"name": ""}}}',
        '{"scenes": {"/x": {"name": "x", "outputs": 3}}}',
        '{"scenes": {"/x": {"name": "x", "outputs": ["shapes"]}}}',
        '{"scenes": {"/x": {"name": "a\\u0000b"}}}',
        '{"scenes": {"/x": {"name": "\\ud800"}}}',
    ],
)
def test_a_damaged_record_is_an_error(project: Path, content: str) -> None:
    """Also one that names files that are no outputs, since outdated files are deleted."""
    (project / "out").mkdir()
    (project / "out/predictions.json").write_text(content)
    with pytest.raises(DataError, match=r"predictions\.json"):
        run_prediction(load(), ["scenes"], "bundle", Path("out"))


def test_scenes_whose_names_cannot_be_used_are_reported_and_the_others_are_predicted(project: Path) -> None:
    scene = project / "scenes/s0.tif"
    names = ("loop.tif", "new\nline.tif", os.fsdecode(b"not-utf8-\xff.tif"), "l" * 251 + ".tif")
    for name in names[1:]:
        shutil.copy(scene, scene.with_name(name))
    scene.with_name(names[0]).symlink_to(names[0])
    with pytest.raises(StageError, match="4 of 8 scenes failed") as caught:
        run_prediction(load(), ["scenes"], "bundle", Path("out"))
    for reason in ("Too many levels", "control or undecodable", "too long"):
        assert reason in caught.value.what
    assert set(state(project / "out")) == {f"s{number}.tif" for number in range(4)}


def test_the_record_is_not_written_once_per_scene(tmp_path: Path) -> None:
    record = Record(tmp_path / "predictions.json", {"weights_sha256": ""}, {})
    start = time.monotonic()
    for number in range(3000):
        record.add(tmp_path / str(number), str(number), files=[], stamp="")
    record.save()
    assert time.monotonic() - start < 5
    assert len(json.loads((tmp_path / "predictions.json").read_text())["scenes"]) == 3000


@pytest.fixture
def registered(project: Path) -> Params:
    """A store with version 1 of the model `tiny`, without an alias."""
    # MLflow keeps stores open by address, so each test needs its own
    store = {"uri": f"sqlite:///{project}/mlflow.db"}
    p = Params.model_validate(values_for("source", tracking=store))
    client = Tracker.open(p).client
    run = client.create_run(Tracker.open(p).experiment())
    client.log_artifacts(run.info.run_id, str(project / "bundle"), "model")
    client.create_registered_model("tiny")
    client.create_model_version("tiny", f"{run.info.artifact_uri}/model", run.info.run_id)
    return p


def test_models_are_fetched_by_address(
    project: Path, registered: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=r"models:/tiny@champion: no version has the alias"):
        run_prediction(registered, ["scenes/s0.tif"], output=Path("out"))
    Tracker.open(registered).client.set_registered_model_alias("tiny", "champion", "1")
    assert run_prediction(registered, ["scenes/s0.tif"], output=Path("out"))["predicted"] == 1
    record = json.loads((project / "out/predictions.json").read_text())
    described = json.loads((project / "bundle/model.json").read_text())
    assert record["model"]["weights_sha256"] == described["weights_sha256"]
    model = record["scenes"][str(project / "scenes/s0.tif")]["model"]
    assert (model["name"], model["version"], model["alias"]) == ("tiny", 1, "champion")
    shown = f"predict: unet, version 1 of tiny (champion), weights {described['weights_sha256'][:12]}\n"
    assert shown in capsys.readouterr().out
    addresses = ("bundle", "models:/tiny/1", "models:/tiny@champion", "champion")
    for address in addresses:
        counts = run_prediction(registered, ["scenes/s0.tif"], address, Path("out"))
        assert counts == {"predicted": 0, "done before": 1}, "the same weights by another address"


def test_unknown_addresses_are_errors_that_list_the_known_ones(project: Path, registered: Params) -> None:
    for address, message in (
        ("models:/other/1", "registered: tiny"),
        ("models:/tiny/7", "there is no version 7; existing versions: 1"),
        ("models:/tiny", "not a model address"),
        ("nowhere", "holds no model bundle"),
        ("s3://bucket/unet-0", r"'s3://bucket/unet-0': not a model address"),
        ("", "'': not a model address"),
    ):
        with pytest.raises(ModelError, match=message):
            run_prediction(registered, ["scenes/s0.tif"], address, Path("out"))


def test_a_registered_model_that_was_tampered_with_is_refused(project: Path, registered: Params) -> None:
    (stored,) = project.glob("mlruns/**/model.safetensors")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(ModelError, match=r"not the file that model.json describes"):
        fetch_model(Tracker.open(registered).client, "models:/tiny/1", project / "fetched")
    assert not (project / "fetched").exists()


def test_a_store_that_does_not_respond_is_an_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StageError, match="does not answer"):
        run_prediction(load(), ["scenes/s0.tif"], output=Path("out"))


def remove_after(first: Path, removed: Path, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run a prediction and remove a path once the file `first` is there; its exit code and errors."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tasks", "predict", *arguments],
        cwd=folder,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.001)
    # a folder into which files are being written cannot be removed at once
    removed.rename(removed.with_name("elsewhere"))
    _, errors = process.communicate(timeout=200)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("removed", ["out", "out/s0.tif", "scenes"])
def test_what_is_removed_meanwhile_is_named_and_not_in_the_record(project: Path, removed: str) -> None:
    for number in range(4, 60):
        shutil.copy(project / "scenes/s0.tif", project / f"scenes/s{number}.tif")
    arguments = ["scenes", "--model", "bundle", "--output", "out"]
    status, errors = remove_after(project / "out/s1.tif", project / removed, arguments, project)
    assert status == 1 and "Traceback" not in errors and "Error:" in errors and "Remedy:" in errors
    assert str(removed) in errors
    record = project / "out/predictions.json"
    if removed == "out":
        assert not record.exists()
    else:
        entries = json.loads(record.read_text())["scenes"].values()
        files = [file for entry in entries for file in entry.get("files", [])]
        assert files and all((project / "out" / file).exists() for file in files)


@pytest.mark.parametrize("name", ["put", "finish", "__enter__"])
def test_a_folder_that_is_removed_during_a_scene_is_one_error(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from segcore.prediction import scene_writer

    real = getattr(scene_writer.SceneWriter, name)

    def removing(*arguments: object) -> object:
        shutil.rmtree(project / "out", ignore_errors=True)
        return real(*arguments)

    monkeypatch.setattr(scene_writer.SceneWriter, name, removing)
    with pytest.raises(StageError, match=r"out: this folder was removed"):
        run_prediction(load(), ["scenes"], "bundle", Path("out"))
    assert not (project / "out/predictions.json").exists()


def test_a_folder_that_cannot_be_written_to_is_an_error(project: Path) -> None:
    (project / "out").write_text("a file")
    for output in ("out", "out/below", "/proc/x"):
        with pytest.raises(DataError, match="cannot be used as output folder"):
            run_prediction(load(), ["scenes"], "bundle", Path(output))


def test_a_full_disk_is_reported_for_each_scene_and_nothing_is_left(project: Path) -> None:
    write_tif(project / "scenes/s0.tif", noise(1200, 1200))
    code = (
        "import resource, sys; from segcore.params import load; from pathlib import Path\n"
        "from tasks import predict, console\n"
        "from segcore.prediction import predictor\n"
        # no file may be larger than that
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "sys.argv = ['predict', 'scenes', '--model', 'bundle', '--output', 'out']\n"
        "predict.main()"
    )
    done = command(project, "-c", code)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "1 of 4 scenes failed" in done.stderr and "out/s0: could not be written" in done.stderr
    assert sorted(f.name for f in (project / "out").glob("*.tif")) == ["s1.tif", "s2.tif", "s3.tif"]
    assert not list((project / "out").glob(".*.part"))


def test_scenes_that_old_versions_predicted_are_predicted_again(project: Path) -> None:
    run_prediction(load(), ["scenes"], "bundle", Path("out"))
    path = project / "out/predictions.json"
    record = json.loads(path.read_text())
    old = ("address", "architecture", "weights_sha256")
    record["model"] = {name: record["model"][name] for name in old}
    weights, settings = record["model"]["weights_sha256"], record["settings"]
    from segcore.files import digest

    for entry in record["scenes"].values():
        entry["key"] = digest(json.dumps([weights, settings], sort_keys=True))[:16]
        del entry["model"]
    path.write_text(json.dumps(record))
    assert run_prediction(load(), ["scenes"], "bundle", Path("out"))["predicted"] == 4
    assert all("model" in entry for entry in json.loads(path.read_text())["scenes"].values())


def test_changed_names_of_classes_predict_anew(project: Path) -> None:
    run_prediction(load(), ["scenes"], "bundle", Path("out"))
    make_bundle(project / "renamed", classes=["background", "meadow", "lake"])
    assert run_prediction(load(), ["scenes"], "renamed", Path("out"))["predicted"] == 4
    with rasterio.open(project / "out/s0.tif") as made:
        assert made.tags()["CLASS_1"] == "meadow"


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"scenes": [5]}',
        '{"scenes": {"/a": 5}}',
        '{"scenes": {"/a": {}}}',
        '{"scenes": {"/a": {"name": "../x"}}}',
        '{"scenes": {"/a": {"name": "a", "files": ["../params.yaml"]}}}',
        "[" * 10**5,
        b"\xff\xfe",
    ],
    ids=range(8),
)
def test_an_odd_record_is_an_error(project: Path, content: str | bytes) -> None:
    (project / "out").mkdir()
    (project / "out/predictions.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"predictions\.json: the record of predictions is damaged"):
        run_prediction(load(), ["scenes"], "bundle", Path("out"))
    assert (project / "params.yaml").exists()
