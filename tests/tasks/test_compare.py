"""The compare stage on a project built in a temporary folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from segcore import params
from segcore.errors import DataError, StageError
from segcore.tables import counts
from tasks import compare

CLASSES = ["background", "building"]
SIZE, ITEMS = 16, 14
SUMMARY = {"parameters": 1000, "macs": 2_000_000, "receptive_field": 99, "global_context": False, "steps": 10}
PARAMS = {
    "architectures": ["fcn", "unet"],
    "seeds": [0, 1],
    "data": {
        "name": "toy",
        "source": "toy",
        "classes": CLASSES,
        "colors": [[0, 0, 0], [255, 0, 0]],
        "label_values": {0: 0, 1: 1},
        "baselines": {"second-annotator": "other/{stem}.png"},
    },
    "split": {"fractions": {"train": 0.5, "validation": 0.2, "test": 0.3}},
    "prepare": {"window": 32, "stride": 16},
    "train": {"common": {"steps": 10, "batch": 2, "crop": 32, "validate_every": 5}},
    "compare": {"bootstrap": 100, "permutations": 200},
}


def blurred(label: np.ndarray, skill: float, rng: np.random.Generator) -> np.ndarray:
    wrong = np.where(label == 255, 0, 1 - label)
    return np.where(rng.random(label.shape) < skill, np.where(label == 255, 0, label), wrong).astype(np.uint8)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """params.yaml, prepared data of 14 test images and one training image, and four evaluations."""
    rng = np.random.default_rng(0)
    labels = (rng.random((ITEMS + 1, SIZE, SIZE)) < 0.4).astype(np.uint8)
    labels[:, 0] = 255
    prepared = tmp_path / "data/prepared"
    prepared.mkdir(parents=True)
    names = [f"item-{i:02d}" for i in range(ITEMS + 1)]
    place = {"row": 0, "col": 0, "height": SIZE, "width": SIZE}
    regions = pd.DataFrame({"id": names, "item": names, "group": names, "cluster": names, **place})
    regions["split"] = ["test"] * ITEMS + ["train"]
    regions.to_parquet(prepared / "regions.parquet")
    size = {"height": SIZE, "width": SIZE, "dtype": "uint8", "bands": 1}
    items = pd.DataFrame({"item": names, "plane": range(ITEMS + 1), "packed": "all.safetensors", **size})
    items.to_parquet(prepared / "items.parquet")
    regions[:0].to_parquet(prepared / "windows.parquet")
    meta = {
        "classes": CLASSES,
        "colors": [[0, 0, 0], [255, 0, 0]],
        "foreground": [1],
        "cluster_kind": "group",
        "instances": False,
    }
    (prepared / "prepared.json").write_text(json.dumps(meta | {"baselines": ["second-annotator"]}))
    (prepared / "statistics.json").write_text("{}")
    other = blurred(labels, 0.85, rng)
    # buildings that this annotator left unlabelled
    other[5][labels[5] == 1] = 255
    (tmp_path / "data/packed").mkdir()
    tensors = {"pixels": labels[..., None], "labels": labels, "valid": (labels < 255).astype(np.uint8)}
    save_file({**tensors, "baselines": other[None]}, tmp_path / "data/packed/all.safetensors")

    for name, title, skill in (("fcn", "FCN-8s", 0.7), ("unet", "U-Net", 0.95)):
        for seed in (0, 1):
            folder = tmp_path / f"evaluations/{name}-{seed}"
            folder.mkdir(parents=True)
            images = [
                (names[i], names[i], counts.count(blurred(labels[i], skill, rng), labels[i], 2))
                for i in range(ITEMS)
            ]
            counts.counts_table(images, CLASSES).to_parquet(folder / "counts.parquet")
            (folder / "summary.json").write_text(json.dumps(SUMMARY | {"title": title, "seed": seed}))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tasks", "compare", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_the_stage_writes_the_same_bytes_each_time(project: Path) -> None:
    first = run(project)
    assert first.returncode == 0, first.stderr
    assert "U-Net" in first.stdout and "is best" in first.stdout
    files = {path.name: path.read_bytes() for path in (project / "comparison").iterdir()}
    assert set(files) == {"comparison.json", "leaderboard.csv", "metrics.json"}
    second = compare.build(project, params.load(project / "params.yaml"))
    compare.write(second, project / "comparison")
    assert {path.name: path.read_bytes() for path in (project / "comparison").iterdir()} == files

    comparison = json.loads(files["comparison.json"])
    assert (comparison["test_images"], comparison["clusters"], comparison["cluster_kind"]) == (
        ITEMS,
        ITEMS,
        "group",
    )
    board = pd.read_csv(project / "comparison/leaderboard.csv")
    assert board["architecture"].tolist() == ["unet", "fcn", "second-annotator"]
    assert board["rank"].tolist()[:2] == [1, 2] and board["rank"].isna().tolist() == [False, False, True]
    key = "iou/dataset/foreground_mean"
    shown = json.loads(files["metrics.json"])
    assert set(shown) == {"unet", "fcn"} and shown["unet"][key] == board.loc[0, key] > 0.8
    assert (board[f"{key} low"] < board[key]).all() and (board[key] < board[f"{key} high"]).all()


def test_human_baseline_is_scored_from_the_prepared_data(project: Path) -> None:
    comparison = compare.build(project, params.load(project / "params.yaml"))
    human = comparison.leaderboard[-1]
    assert (human.kind, human.title) == ("human", "Second annotator")
    packed = load_file(project / "data/packed/all.safetensors")
    label, other = packed["labels"][:ITEMS], packed["baselines"][0, :ITEMS]
    labelled = other != 255
    a, b = (label == 1) & labelled, (other == 1) & (label != 255)
    assert (label[~labelled] == 1).any(), "not scored, neither as found nor as missed"
    assert human.scores["iou/dataset/building"].estimate == pytest.approx(
        (a & b).sum() / (a | b).sum(), abs=1e-6
    )


def test_the_histories_of_the_trainings_tell_whether_scores_were_still_rising(project: Path) -> None:
    p = params.load(project / "params.yaml")
    assert "Validation scores" not in compare.build(project, p).verdict
    for name, last in (("fcn", 0.6), ("unet", 0.8)):
        for seed in (0, 1):
            folder = project / f"models/{name}-{seed}"
            folder.mkdir(parents=True)
            table = pd.DataFrame({"step": [4, 8, 10], "val_loss": 1.0, "val_iou": [0.5, 0.6, last]})
            table.to_csv(folder / "history.csv", index=False)
    # step 8 is in the last third of 10 too: .8 after .5, and .6 after .5
    verdict = compare.build(project, p).verdict
    assert (
        "of the 10 steps: U-Net by 30.0 points of IoU and FCN-8s by 10.0 points of IoU; more steps" in verdict
    )
    path = project / "models/unet-1/history.csv"
    path.write_text("step,val_loss\n4,1.0\n")
    with pytest.raises(DataError, match=r"unet-1/history.csv: is damaged(.|\n)*dvc checkout train@unet-1"):
        compare.build(project, p)


@pytest.mark.parametrize("name", ["counts.parquet", "summary.json"])
def test_missing_evaluation_is_named_with_the_remedy(project: Path, name: str) -> None:
    (project / "evaluations/unet-1" / name).unlink()
    with pytest.raises(StageError, match=r"unet-1.*unet with seed 1(.|\n)*dvc repro evaluate@unet-1"):
        compare.build(project, params.load(project / "params.yaml"))
    failed = run(project)
    assert failed.returncode == 1 and "Remedy" in failed.stderr and "Traceback" not in failed.stderr
    assert not (project / "comparison").exists()


def test_evaluation_without_a_test_region_is_an_error(project: Path) -> None:
    path = project / "evaluations/fcn-0/counts.parquet"
    table = pd.read_parquet(path)
    table[table["item"] != "item-03"].to_parquet(path)
    with pytest.raises(DataError, match="1 of 14 images have no prediction: item-03"):
        compare.build(project, params.load(project / "params.yaml"))


def test_help_is_printed(project: Path) -> None:
    shown = run(project, "--help")
    assert shown.returncode == 0 and "usage: python -m tasks compare" in shown.stdout
