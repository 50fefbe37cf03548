"""The steps by their commands: exit codes, messages with remedies, and files written."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from segcore import params
from segcore.errors import ParamsError
from tasks import __main__ as entry
from tasks import console
from tasks.configure import configure
from tasks.project import WORK
from tasks.train import _checkpoints
from tests.support.tiny import make_pairs, values_for

ROOT = Path(__file__).parents[2]


Step = Callable[..., tuple[int, str, str]]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A command in a process of its own, as a user runs it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Step:
    """Runs `python -m tasks` in this process, which takes no second start of Python.

    Returns exit status, output and errors.
    """
    # it would end pytest with the death of pytest's parent
    monkeypatch.setattr(console, "die_with_parent", lambda: None)

    def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["tasks", *arguments])
        status = 0
        try:
            entry.main()
        except SystemExit as end:
            status = end.code or 0
        return (status, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder with params.yaml, ingested and prepared."""
    folder = tmp_path_factory.mktemp("project")
    make_pairs(folder / "source")
    (folder / "params.yaml").write_text(yaml.safe_dump(values_for("source")))
    for step in ("ingest", "prepare"):
        done = command(folder, "tasks", step)
        assert done.returncode == 0, done.stderr
    return folder


STEPS = ["ingest", "prepare", "train", "evaluate", "compare", "report", "configure", "promote", "measure"]
STEPS += ["lr-range", "transfer"]


@pytest.mark.parametrize("name", STEPS)
def test_every_command_has_help(name, step, tmp_path):
    status, output, _ = step(tmp_path, name, "--help")
    assert status == 0 and f"python -m tasks {name}" in output


def test_train_and_evaluate_write_the_files_that_the_report_reads(project):
    done = command(project, "tasks", "train", "unet", "0")
    assert done.returncode == 0, done.stderr
    bundle = json.loads((project / "models/unet-0/model.json").read_text())
    assert "train: cpu, " in done.stdout and "determinism of this run: bit-exact" in done.stdout
    assert bundle["training"]["determinism"] == "bit-exact" and bundle["training"]["choices"]["threads"] == 1
    assert bundle["classes"] == ["background", "square"] and bundle["training"]["steps"] == 4
    assert list(pd.read_csv(project / "models/unet-0/history.csv")["step"]) == [2, 4]
    assert not any((project / "work/checkpoints").iterdir())
    assert bundle["input"]["dtype"] == "uint8" and bundle["input"]["scale"] == "auto"
    done = command(project, "tasks", "evaluate", "unet", "0")
    assert done.returncode == 0, done.stderr
    folder = project / "evaluations/unet-0"
    counts = pd.read_parquet(folder / "counts.parquet")
    tests = pd.read_parquet(project / "data/prepared/regions.parquet").query("split == 'test'")
    assert set(counts["item"]) == set(tests["id"]) and len(list((folder / "predictions").iterdir())) == len(
        tests
    )
    matrix = pd.read_csv(folder / "confusion.csv").set_index("truth").to_numpy()
    assert matrix.sum() == counts.drop_duplicates("item")["pixels"].sum()
    cost = json.loads(next((project / "work/costs").glob("unet-0-*.json")).read_text())
    wanted = {
        "latency_ms",
        "latency_tile",
        "latency_batch",
        "precision",
        "device",
        "threads",
        "peak_memory_mb",
    }
    assert wanted | {"train_seconds"} <= set(cost) and cost["latency_ms"] > 0


def test_a_checkpoint_of_an_older_version_does_not_stop_an_unattended_training(project):
    p, prepared = params.load(project / "params.yaml"), project / "data/prepared"
    folder = _checkpoints(p, p.for_architecture("unet"), "unet", 1, prepared, project)
    folder.mkdir(parents=True)
    old = {"step": 2, "best_iou": 0.5, "best_step": 2, "stale": 0, "history": [], "seconds": 1.0}
    save_file(
        {"model.x": torch.zeros(1)}, folder / "checkpoint.safetensors", metadata={"state": json.dumps(old)}
    )
    done = command(project, "tasks", "train", "unet", "1")
    assert done.returncode == 0, done.stderr
    line = "is a checkpoint of another version of segflow; training starts from step 0"
    assert (done.stdout + done.stderr).count(line) == 1
    assert list(pd.read_csv(project / "models/unet-1/history.csv")["step"]) == [2, 4]
    shutil.rmtree(project / "models/unet-1")


def test_prediction_of_new_scenes_equals_the_prediction_of_the_evaluation(step, project):
    (project / "predict.yaml").write_text(yaml.safe_dump(values_for("source")))
    arguments = ["source/images", "--model", "models/unet-0", "--output", "out", "--params", "predict.yaml"]
    status, _, errors = step(project, "predict", *arguments)
    assert status == 0, errors
    evaluated = list((project / "evaluations/unet-0/predictions").iterdir())
    for picture in evaluated:
        with Image.open(picture) as labels, rasterio.open(project / f"out/{picture.stem}.tif") as made:
            assert np.mean(np.asarray(labels) == made.read(1)) > 0.999, "rounding changes few pixels"
    assert evaluated


def test_outputs_that_dvc_hashes_contain_no_timing(project):
    for path in [*(project / "evaluations").rglob("*.json"), *(project / "models").rglob("*.json")]:
        assert not [word for word in ("latency", "_seconds", "peak_memory") if word in path.read_text()]


def test_checkpoints_are_written_outside_of_dvcs_outputs():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out if isinstance(out, str) else next(iter(out)) for s in stages.values() for out in s["outs"]]
    assert outs and not [out for out in outs if out.split("/")[0] == WORK.name]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "segnet", "0"], "'segnet' is unknown"),
        (["evaluate", "fcn", "7"], "holds no model bundle"),
        (["train", "unet", "0", "--params", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["configure", "nowhere"], "no such example"),
        (["transfer"], "no model to start from"),
    ],
)
def test_errors_end_with_a_remedy_and_exit_code_1(step, project, arguments, expected):
    status, _, errors = step(project, *arguments)
    assert status == 1 and expected in errors and "Remedy:" in errors
    assert "Traceback" not in errors


def test_the_exit_code_of_an_error_reaches_the_shell(project):
    done = command(project, "tasks", "configure", "nowhere")
    assert done.returncode == 1 and "Remedy:" in done.stderr and "Traceback" not in done.stderr


def test_a_bad_item_is_quarantined_and_a_failed_ingest_keeps_the_old_catalogue(step, project):
    before = (project / "data/ingested/catalog.parquet").read_bytes()
    (project / "source/masks").rename(project / "source/elsewhere")
    status, _, errors = step(project, "ingest")
    (project / "source/elsewhere").rename(project / "source/masks")
    assert status == 1 and "a0.png: has no mask" in errors
    assert (project / "data/ingested/catalog.parquet").read_bytes() == before
    moved = project / "source/masks/a0.png"
    kept = moved.read_bytes()
    moved.unlink()
    status, _, errors = step(project, "ingest")
    moved.write_bytes(kept)
    assert status == 0, errors
    assert "a0.png: has no mask" in (project / "data/ingested/quarantine.csv").read_text()


def test_ingest_check_writes_the_data_card_alone(step, project):
    before = {p: p.stat().st_mtime_ns for p in (project / "data").rglob("*")}
    status, output, _ = step(project, "ingest", "--check")
    assert status == 0 and "12 items" in output
    assert {p: p.stat().st_mtime_ns for p in (project / "data").rglob("*")} == before
    assert (project / "reports/tiny/data.html").stat().st_size > 10_000


def test_examples_have_at_most_15_lines_of_data_and_take_their_folder_from_a_variable_or_an_argument(
    tmp_path, monkeypatch
):
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    path, examples = tmp_path / "params.yaml", ROOT / "examples"
    monkeypatch.delenv("SEGFLOW_DATA", raising=False)
    names = sorted(p.stem for p in examples.glob("*.yaml"))
    assert len(names) >= 8
    for name in names:
        text = (examples / f"{name}.yaml").read_text()
        section = text[text.index("\ndata:") : text.index("\nsplit:")].strip().splitlines()
        assert len(section) <= 15, name
        if "$SEGFLOW_DATA" in text:
            with pytest.raises(ParamsError, match="SEGFLOW_DATA is not set"):
                configure(name, path, examples)
            assert configure(name, path, examples, source="/somewhere")
            assert params.load(path).data.source == "/somewhere"
    monkeypatch.setenv("SEGFLOW_DATA", "/elsewhere")
    assert configure("dubai", path, examples) is True
    assert params.load(path).data.source == "/elsewhere/dubai_aerial"
    # no value of the former examples is left
    assert configure("buildings", path, examples)
    assert params.load(path).data == params.load(ROOT / "params.yaml").data


def test_an_example_is_merged_into_params_and_the_former_params_are_kept(tmp_path):
    for name in ("params.yaml", "examples"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    path, examples = tmp_path / "params.yaml", tmp_path / "examples"
    configure("buildings", path, examples)
    before = params.load(path)
    assert configure("vessels", path, examples) and not configure("vessels", path, examples)
    vessels = params.load(path)
    assert vessels.data.name == "vessels" and len(vessels.split.given["test"]) == 10
    assert params.load(tmp_path / "work/params-buildings.yaml") == before
    assert configure("buildings", path, examples) and params.load(path) == before
    assert "# modules of segcore/models" in path.read_text()
    with pytest.raises(ParamsError, match=r"choose one of .*buildings.* vessels"):
        configure("none", path, examples)
