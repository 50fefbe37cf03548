"""A training on data with objects stores how they are found, and logs the scores on the validation split."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.evaluation.evaluate import evaluate
from segcore.models.base.bundle import load_bundle, load_description, read_bundle
from segcore.objects.find import FindSettings
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.training import object_settings, postprocess_settings
from tasks import initial_weights, training_notes
from tasks import train as training
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.tracking.tracker import Tracker
from tests.support.discs import VALUES, make_discs
from tests.support.tiny import values_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch, request):
    """A folder with params.yaml, ingested and prepared, as the current one; a parameter is merged into `data`."""
    values = values_for(make_discs(tmp_path / "source"))
    values["data"] |= VALUES | getattr(request, "param", {})
    # enough to find some discs
    values["train"]["common"] |= {"steps": 30, "validate_every": 15, "learning_rate": 0.01}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    p = params.load(tmp_path / "params.yaml")
    ingest(p.data)
    prepare(p)
    return p


def entry_of(folder):
    return json.loads((Path(folder) / "model.json").read_text())["objects"]


def test_the_settings_are_those_of_the_trained_network_and_are_printed_and_logged(project, capsys):
    bundle = training.train(project, "unet", 0)
    entry, data = entry_of(bundle), PreparedData("data/prepared")
    precision = load_description(bundle)["training"]["precision"]
    assert entry["components"]["f1"] > 0
    assert "postprocess" not in load_description(bundle)
    assert entry == object_settings.choose_objects(load_bundle(bundle), data, 64, precision)
    assert FindSettings.of({"objects": entry}, "watershed").method == "watershed"
    # a flow shows the standard error of its stages
    line = next(line for line in capsys.readouterr().err.splitlines() if "objects: " in line)
    assert line == f"train unet-0: {object_settings.text(entry)}"
    (run,) = Tracker.open(project).find("tags.kind = 'training'")
    logged = run.data.metrics
    for name in ("f1", "precision", "recall", "count_bias"):
        assert logged[f"val/object_{name}"] == entry["components"][name]
        assert logged[f"val/object_{name}_watershed"] == entry["watershed"][name]


def test_post_processing_is_chosen_if_asked_for_and_printed(project, capsys):
    common = {**project.train["common"], "postprocess": "auto"}
    asked = project.model_copy(update={"train": {**project.train, "common": common}})
    bundle = training.train(asked, "unet", 0)
    description, data = load_description(bundle), PreparedData("data/prepared")
    precision = description["training"]["precision"]
    entry = description["postprocess"]
    assert entry == postprocess_settings.choose_postprocess(load_bundle(bundle), data, 64, precision)
    line = postprocess_settings.text(entry, data.foreground)
    assert f"train unet-0: {line}" in capsys.readouterr().err.splitlines()


class Killed(BaseException):
    """Stands for kill -9."""


def test_a_training_killed_while_settings_are_chosen_ends_as_an_undisturbed_one(project, monkeypatch):
    undisturbed = training.train(project, "unet", 0)
    content = (undisturbed / "model.json").read_text()
    undisturbed.rename("undisturbed")

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(object_settings, "choose_objects", killed)
        with pytest.raises(Killed):
            training.train(project, "unet", 0)
    assert not undisturbed.exists()
    assert (training.train(project, "unet", 0) / "model.json").read_text() == content


@pytest.mark.slow
def test_two_processes_choose_once(project):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEGFLOW_PROCESSES": "2"}
    command = [sys.executable, "-m", "tasks", "train", "unet", "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("objects: ") == 1
    assert entry_of("models/unet-0")["truth"] == "given"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["unet", "solo"])
def test_an_error_of_several_processes_is_not_hidden_by_those_of_their_launcher(project, architecture):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["train"] |= {"unet": {"model": {"wide": 3}}, "solo": {"model": {"cells": [5]}}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SEGFLOW_PROCESSES": "2"}
    command = [sys.executable, "-m", "tasks", "train", architecture, "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    wrong = {"unet": "Error: architecture unet has no keyword 'wide'", "solo": "Error: solo: cells [5]"}
    assert wrong[architecture] in done.stderr and "Remedy" in done.stderr
    assert "Traceback" not in done.stderr and "FAILED" not in done.stderr


@pytest.mark.parametrize("project", [{"touching": True}], indirect=True)
def test_pixels_near_two_objects_are_an_output_but_no_class(project):
    bundle = training.train(project, "unet", 0)
    description = json.loads((bundle / "model.json").read_text())
    assert description["num_classes"] == 2 and description["settings"]["touching"] is True
    assert description["objects"]["touching"] is True
    model = load_bundle(bundle)
    assert (model.outputs, model.num_classes) == (3, 2)
    data = PreparedData("data/prepared")
    image = data.read_input(data.regions["id"][0])
    made = Predictor(bundle, Predict(tile=64, overlap=16)).predict(image.image)
    assert set(np.unique(made.classes)) <= {0, 1} and np.allclose(made.probabilities.sum(0), 1, atol=1e-5)
    assert made.touching.std() > 0
    found = FindSettings.of(description, "watershed")
    evaluated = evaluate(model, data, project.evaluate, "fp32", objects=found)
    assert evaluated.confusion.shape == (2, 2) and 0 <= evaluated.calibration["ece"] <= 1
    assert set(evaluated.objects["kind"]) >= {"image", "truth", "prediction"}


def test_an_instance_network_is_trained_into_a_bundle_of_its_kind(project, capsys):
    values = project.train["common"] | {"steps": 2, "validate_every": 1}
    p = project.model_copy(
        update={"train": {"common": values, "solo": {"model": {"width": 8, "cells": [16, 32]}}}}
    )
    bundle = training.train(p, "solo", 0)
    description, printed = load_description(bundle), capsys.readouterr().err
    assert description["kind"] == "instance" and description["title"] == "SOLOv2"
    # its results depend on the place in the window
    assert description["tile"] == 32 and description["settings"]["foreground"] == [1]
    entry = description["objects"]
    assert set(entry) == {"truth", "touching", "classes", "side", "network"}
    data, precision = PreparedData("data/prepared"), description["training"]["precision"]
    assert entry == object_settings.choose_objects(load_bundle(bundle), data, 32, precision)
    (line,) = [line for line in printed.splitlines() if "fitted to the training objects" in line]
    chosen = description["settings"]
    assert line.startswith("train: SOLOv2, fitted to the training objects: ")
    assert line.endswith("; set in params.yaml: cells [16, 32]")
    for name in ("ranges", "window", "candidates", "convs"):
        assert f"{name} {chosen[name]}" in line
    assert object_settings.text(entry) in printed
    (left,) = [line for line in printed.splitlines() if "are no targets" in line]
    assert "in the first 4 crops" in left and "train.solo in params.yaml" in left
    assert "smaller model.cells or a larger magnify " in left
    history = (bundle / "history.csv").read_text().splitlines()[0]
    assert history == "step,train_loss,learning_rate,val_loss,val_pq,best"
    (run,) = Tracker.open(p).find("tags.kind = 'training'")
    assert "val/pq" in run.data.metrics and "val/iou" not in run.data.metrics
    assert run.data.metrics["val/object_f1"] == entry["network"]["f1"]


@pytest.mark.parametrize("project", [{"touching": True}], indirect=True)
def test_settings_without_effect_on_an_instance_network_are_named(project, capsys):
    data = PreparedData("data/prepared")

    def noted(architectures, common, **own):
        train = {"common": project.train["common"] | common, "solo": {"model": {"width": 8}, **own}}
        p = project.model_copy(update={"architectures": architectures, "train": train})
        capsys.readouterr()
        for name in architectures:
            model = initial_weights.new_model(p, name, data, 0)
            settings = p.for_architecture(name)
            training_notes.print_notes(p, name, model, data, settings, 0, continued=False)
        return [line for line in capsys.readouterr().err.splitlines() if "no effect" in line]

    (line,) = noted(["unet", "solo"], {"loss": "dice"}, loss="focal", class_weights="balanced")
    unused = "train.solo.loss, train.solo.class_weights, data.touching"
    assert line == f"train: SOLOv2: no effect of {unused} in params.yaml, for semantic networks only"
    # a setting of all architectures has no effect where all are instance networks
    (line,) = noted(["solo"], {"loss": "dice"}, loss=None)
    assert "no effect of train.common.loss, data.touching in" in line
    assert not noted(["unet"], {"loss": "dice"})


def test_a_semantic_network_on_data_with_objects_keeps_its_entries(project, capsys):
    description = load_description(training.train(project, "unet", 0))
    assert "fitted to the training objects" not in capsys.readouterr().err
    assert "kind" not in description and description["tile"] == 64
    assert {"components", "watershed"} <= set(description["objects"]) and "network" not in description[
        "objects"
    ]


@pytest.mark.slow
def test_a_warm_start_keeps_the_grid_of_the_champion_and_a_transfer_does_not(project, capsys):
    values = project.train["common"] | {"steps": 1, "validate_every": 1}

    def asked(**model):
        return project.model_copy(
            update={"train": {"common": values, "solo": {"model": {"width": 8, **model}}}}
        )

    # of objects of other sizes than those of the data
    champion = training.train(asked(cells=[32], ranges=[[1, 4096]], candidates=77), "solo", 0)
    grid = load_description(champion)["settings"]
    champion.rename("champion")
    initial_weights.place(Path("champion"))
    # nothing was left to fit but the window and the branches
    (line,) = [line for line in "".join(capsys.readouterr()).splitlines() if "fitted to" in line]
    by_hand = "cells [32], ranges [[1, 4096]], candidates 77"
    assert (
        line
        == f"train: SOLOv2, fitted to the training objects: convs 2, window 32; set in params.yaml: {by_hand}"
    )
    settings = load_description(training.train(asked(), "solo", 0))["settings"]
    printed = "".join(capsys.readouterr())
    assert settings == grid and "starts from the weights" in printed and "fitted to" not in printed
    chosen = ("convs", "cells", "ranges", "window", "candidates")
    described = ", ".join(f"{name} {grid[name]}" for name in chosen)
    assert f"train: SOLOv2, as the champion: {described}\n" in printed
    initial_weights.place(None)
    training.train(asked(**{name: grid[name] for name in chosen}), "solo", 1)
    printed = "".join(capsys.readouterr())
    assert "fitted to" not in printed and "as the champion" not in printed
    initial_weights.place(Path("champion"))
    # another keyword of the user's: the weights do not fit, so that everything is fitted to the data
    model = initial_weights.new_model(asked(threshold=0.3), "solo", PreparedData("data/prepared"), 0)
    assert model.settings["cells"] != [32] and model.settings["candidates"] != 77
    initial_weights.place(None)
    initial_weights.place_transfer(read_bundle("champion"))
    model = initial_weights.new_model(asked(), "solo", PreparedData("data/prepared"), 0)
    assert model.settings["cells"] != [32]
