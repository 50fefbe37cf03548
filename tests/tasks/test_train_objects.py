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
from segcore.models.base.bundle import load_bundle, load_description
from segcore.objects.find import FindSettings
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.training import object_settings
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
    assert entry == object_settings.choose_objects(load_bundle(bundle), data, 64, precision)
    assert FindSettings.of({"objects": entry}, "watershed").method == "watershed"
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("objects: "))
    assert line == object_settings.text(entry)
    (run,) = Tracker.open(project).find("tags.kind = 'training'")
    logged = run.data.metrics
    for name in ("f1", "precision", "recall", "count_bias"):
        assert logged[f"val/object_{name}"] == entry["components"][name]
        assert logged[f"val/object_{name}_watershed"] == entry["watershed"][name]


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
    assert done.stdout.count("objects: ") == 1
    assert entry_of("models/unet-0")["truth"] == "given"


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
