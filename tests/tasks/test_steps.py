"""The steps as a user runs them: by their commands, with exit codes, messages and remedies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from PIL import Image

from segcore import params
from segcore.errors import ParamsError
from tasks.configure import configure
from tasks.project import WORK
from tests.support.tiny import make_pairs, values_for

ROOT = Path(__file__).parents[2]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


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


@pytest.mark.parametrize("step", STEPS)
def test_every_command_has_help(step, tmp_path):
    done = command(tmp_path, "tasks", step, "--help")
    assert done.returncode == 0 and f"python -m tasks {step}" in done.stdout


def test_train_and_evaluate_write_what_the_report_needs(project):
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


def test_new_scenes_are_predicted_as_the_evaluation_predicted(project):
    (project / "predict.yaml").write_text(yaml.safe_dump(values_for("source", predict={"overlap": 16})))
    arguments = ["source/images", "--model", "models/unet-0", "--output", "out", "--params", "predict.yaml"]
    done = command(project, "tasks", "predict", *arguments)
    assert done.returncode == 0, done.stderr
    evaluated = list((project / "evaluations/unet-0/predictions").iterdir())
    for picture in evaluated:
        with Image.open(picture) as labels, rasterio.open(project / f"out/{picture.stem}.tif") as made:
            assert np.mean(np.asarray(labels) == made.read(1)) > 0.999, "rounding decides few pixels"
    assert evaluated


def test_no_timing_is_part_of_what_dvc_hashes(project):
    for path in [*(project / "evaluations").rglob("*.json"), *(project / "models").rglob("*.json")]:
        assert not [word for word in ("latency", "_seconds", "peak_memory") if word in path.read_text()]


def test_checkpoints_live_where_dvc_cannot_reach_them():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = [out if isinstance(out, str) else next(iter(out)) for s in stages.values() for out in s["outs"]]
    assert outs and not [out for out in outs if out.split("/")[0] == WORK.name]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tasks", "train", "segnet", "0"], "'segnet' is unknown"),
        (["tasks", "evaluate", "fcn", "7"], "holds no model bundle"),
        (["tasks", "train", "unet", "0", "--params", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["tasks", "configure", "nowhere"], "no such example"),
    ],
)
def test_errors_end_with_a_remedy_and_exit_code_1(project, arguments, expected):
    done = command(project, *arguments)
    assert done.returncode == 1 and expected in done.stderr and "Remedy:" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_bad_item_is_quarantined_and_a_failed_ingest_leaves_what_was_there(project):
    before = (project / "data/ingested/catalog.parquet").read_bytes()
    (project / "source/masks").rename(project / "source/elsewhere")
    done = command(project, "tasks", "ingest")
    (project / "source/elsewhere").rename(project / "source/masks")
    assert done.returncode == 1 and "a0.png: has no mask" in done.stderr
    assert (project / "data/ingested/catalog.parquet").read_bytes() == before
    moved = project / "source/masks/a0.png"
    kept = moved.read_bytes()
    moved.unlink()
    done = command(project, "tasks", "ingest")
    moved.write_bytes(kept)
    assert done.returncode == 0, done.stderr
    assert "a0.png: has no mask" in (project / "data/ingested/quarantine.csv").read_text()


def test_checking_the_data_touches_nothing_but_the_card(project):
    before = {p: p.stat().st_mtime_ns for p in (project / "data").rglob("*")}
    done = command(project, "tasks", "ingest", "--check")
    assert done.returncode == 0 and "12 items" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (project / "data").rglob("*")} == before
    assert (project / "reports/tiny/data.html").stat().st_size > 10_000


def test_examples_of_at_most_15_lines_find_their_folder_by_variable_or_argument(tmp_path, monkeypatch):
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
    assert configure("buildings", path, examples)  # nothing of the others stays
    assert params.load(path).data == params.load(ROOT / "params.yaml").data


def test_an_example_is_laid_over_params_and_back_and_the_former_is_kept(tmp_path):
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
