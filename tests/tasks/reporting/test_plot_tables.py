"""The tables of `dvc plots`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.reporting import plot_tables
from tasks.reporting.inputs import Inputs, read_inputs
from tests.support.fake_project import BOTH_KINDS, build_project, scene_patches
from tests.tasks.test_report import _params


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Three networks of both kinds; U-Net has two seeds, the second of which has twice the pixels and other scores."""
    prepared = scene_patches(blocks=6, has_objects=True)
    params = _params(prepared).model_copy(update={"architectures": list(BOTH_KINDS)})
    params.train["mask_rcnn"] = {"model": {"width": 64, "anchors": "auto"}}
    build_project(tmp_path, prepared, params, skill=BOTH_KINDS)
    read = read_inputs(tmp_path, params, prepared)
    (unet,) = [run for run in read.runs if run.architecture == "unet"]
    history = unet.history.assign(val_iou=unet.history["val_iou"] + 0.1)
    second = replace(unet, seed=1, history=history, confusion=unet.confusion * 2)
    return replace(read, runs=[*read.runs, second])


def test_learning_curves_are_means_of_the_seeds_and_name_the_score(inputs: Inputs) -> None:
    table = plot_tables.learning_table(inputs)
    assert set(table["network"]) == {"U-Net", "Mask R-CNN (PQ)", "SOLOv2 (PQ)"}
    history = next(run.history for run in inputs.runs if run.architecture == "unet")
    unet = table[table["network"] == "U-Net"]
    assert list(unet["step"]) == list(history["step"])
    assert np.allclose(unet["score"], history["val_iou"] + 0.05)
    assert np.allclose(unet["training_loss"], history["train_loss"])


def test_shares_of_a_true_class_add_up_to_one_over_all_seeds(inputs: Inputs) -> None:
    table = plot_tables.confusion_table(inputs)
    assert np.allclose(table.groupby(["network", "truth"])["share"].sum(), 1)
    counts = next(run.confusion for run in inputs.runs if run.architecture == "unet")
    unet = table[table["network"] == "U-Net"].pivot(index="truth", columns="predicted", values="pixels")
    assert (
        unet.loc[list(counts.columns), list(counts.columns)].to_numpy().tolist()
        == (3 * counts).to_numpy().tolist()
    )


def test_a_class_without_a_pixel_has_shares_of_zero(inputs: Inputs) -> None:
    empty = [replace(run, confusion=run.confusion * 0) for run in inputs.runs]
    assert (plot_tables.confusion_table(replace(inputs, runs=empty))["share"] == 0).all()


def test_empty_bins_of_confidence_are_left_out(inputs: Inputs, tmp_path: Path) -> None:
    plot_tables.write_plot_tables(inputs, tmp_path / "plots")
    table = pd.read_csv(tmp_path / "plots/calibration.csv")
    measured = table[table["network"] != "perfect calibration"]
    assert (measured["pixels"] > 0).all()
    for architecture, run in inputs.first_runs.items():
        rows = measured[measured["network"] == inputs.titles[architecture]]
        assert rows["pixels"].sum() == sum(run.calibration["count"])
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "learning.csv",
        "confusion.csv",
        "calibration.csv",
    }
