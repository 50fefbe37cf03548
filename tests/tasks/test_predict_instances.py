"""The command `predict` with an instance network."""

import csv
from pathlib import Path

import numpy as np
import pytest
import rasterio

from segcore.errors import ParamsError
from segcore.params import Params
from tasks.predict import Batch, run_prediction
from tests.support.bundles import make_project
from tests.support.instance_bundle import make_instance_bundle
from tests.support.tiny import values_for

SCENES = ["scenes"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, a bundle of an instance network, and two scenes."""
    folder = make_project(tmp_path, 2, monkeypatch)
    make_instance_bundle(folder / "network")
    return folder


def with_outputs(*outputs: str, evaluate: dict[str, object] | None = None, **more: object) -> Params:
    values = {"overlap": 16, "outputs": list(outputs), **more}
    return Params.model_validate(
        values_for("x", predict=values, **({"evaluate": evaluate} if evaluate else {}))
    )


def predict(p: Params) -> dict[str, int]:
    return run_prediction(p, SCENES, "network", Path("out"))


def test_scenes_are_predicted_counted_and_not_repeated(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    p = with_outputs("classes", "probabilities", "polygons", "objects", "coco", "counts")
    assert predict(p) == {"predicted": 2, "done before": 0}
    printed = capsys.readouterr().out
    assert "2 scenes: " in printed and "objects in all" in printed
    ends = (".tif", "_probabilities.tif", ".gpkg", "_objects.tif", ".json", "_counts.csv", ".qml")
    ends += ("_probabilities.qml", ".stac.json")
    made = {path.name for path in Path("out").iterdir()} - {".lock"}
    assert made == {f"s{n}{end}" for n in range(2) for end in ends} | {"counts.csv", "predictions.json"}
    total = 0
    for n in range(2):
        with rasterio.open(f"out/s{n}.tif") as classes, rasterio.open(f"out/s{n}_objects.tif") as objects:
            numbers = objects.read(1)
            assert np.array_equal(numbers > 0, np.isin(classes.read(1), [1, 2])) and numbers.max() > 0
            total += int(numbers.max())
    rows = list(csv.DictReader(Path("out/counts.csv").read_text().splitlines()))
    assert int(rows[-1]["objects"]) == total
    assert predict(p) == {"predicted": 0, "done before": 2}
    assert predict(with_outputs("classes", score=0.9))["predicted"] == 2
    with rasterio.open("out/s0.tif") as classes, rasterio.open("out/s0_objects.tif") as objects:
        assert (classes.read(1) > 0).sum() < (objects.read(1) > 0).sum(), "fewer objects reach the score"


@pytest.mark.parametrize("output", ["classes", "probabilities", "polygons", "objects"])
def test_whatever_the_outputs_scenes_are_predicted_again_where_their_objects_change(
    project: Path, output: str
) -> None:
    for more in ({}, {"score": 0.9}, {"score": 0.9, "min_area": 40}, {"min_area": 40}):
        assert predict(with_outputs(output, **more))["predicted"] == 2
        assert predict(with_outputs(output, **more))["predicted"] == 0


def test_settings_of_semantic_networks_repeat_nothing(project: Path) -> None:
    outputs = ("classes", "objects", "counts")
    assert predict(with_outputs(*outputs))["predicted"] == 2
    for more in ({"objects": "watershed"}, {"blend": "logits"}):
        assert predict(with_outputs(*outputs, **more))["predicted"] == 0
        assert predict(with_outputs("classes", **more))["predicted"] == 0


def test_windows_that_were_not_evaluated_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_instance_bundle(project / "free", ("mask_rcnn", {}))
    for model, tile, is_other in (
        ("free", 96, True), ("free", None, False), ("free", 64, False), ("network", 96, False), ("bundle", 96, False),
    ):  # fmt: skip
        with Batch(with_outputs("classes", tile=tile), SCENES, model, Path("out")):
            pass
        words = "predict.tile is 96, the validation had windows of 64 pixels and the evaluation of 64"
        assert (words in capsys.readouterr().out) == is_other


def test_flips_of_the_evaluation_are_refused_with_a_remedy_that_works(project: Path) -> None:
    with pytest.raises(ParamsError, match="cannot be averaged") as caught:
        predict(with_outputs("classes", evaluate={"flips": True}))
    assert "predict.flips to false" in caught.value.remedy
    assert predict(with_outputs("classes", evaluate={"flips": True}, flips=False))["predicted"] == 2
