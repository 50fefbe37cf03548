"""Volumes of several spacings: networks see one, and predictions are on the volumes' own grids."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from segcore import params
from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage, PreparedData
from segcore.data.resampling import resized_labels, resized_pixels
from segcore.data.training_images import facts_of_training
from segcore.errors import DataError, ParamsError
from segcore.inference.tiling import predict_patch
from segcore.models.base.bundle import save_bundle
from segcore.models.base.factory import build_model
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.splits.spacing import training_items
from segcore.training.sampler import Sampler
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import values_for
from tests.support.volumes import write_nifti

# of the rows and columns of every third volume, in mm; their median is that of the first
SPACINGS = ((1.0, 1.0), (0.5, 0.5), (1.0, 2.0))


def write_volumes(source: Path) -> None:
    """Twelve scans of 48 mm x 64 mm x 4 planes, with a bright square of 24 mm."""
    for number in range(12):
        rows, columns = SPACINGS[number % 3]
        mask = np.zeros((round(48 / rows), round(64 / columns), 4), np.uint8)
        low = 8 + number % 4
        mask[
            round(low / rows) : round((low + 24) / rows), round(low / columns) : round((low + 24) / columns)
        ] = 1
        image = np.random.default_rng(number).normal(40, 3, mask.shape) + 80 * mask
        # planes of (k, j, i): rows lie along the second axis
        affine = np.diag([columns, rows, 3.0, 1.0])
        for name, values in (("images", image.astype(np.int16)), ("masks", mask)):
            write_nifti(source / name / f"p{number}.nii.gz", values.swapaxes(0, 1), affine)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spacings")
    write_volumes(root / "source")
    data = {"images": "images/*.nii.gz", "masks": "masks/{stem}.nii.gz", "label_values": {0: 0, 1: 1}}
    values = values_for("source", data=data, split={"links": []})
    values["prepare"]["spacing"] = [1.0, 1.0]
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        p = params.load()
        ingest(p.data)
        prepare(p, registry=Path("splits/tiny.csv"), work=Path("work"))
    return root


@pytest.fixture
def data(project: Path) -> PreparedData:
    return PreparedData(project / "data/prepared")


def test_training_windows_are_of_one_spacing(project: Path, data: PreparedData) -> None:
    trained = data.for_training()
    shapes = {trained.whole(item).label.shape for item in data.windows["item"].unique()}
    assert shapes == {(48, 64)}
    sides = {
        int((trained.whole(item).label == 1).any(axis=1).sum()) for item in data.windows["item"].unique()
    }
    assert sides <= {23, 24, 25}
    p = params.load(project / "params.yaml")
    batch = Sampler(data, p.for_architecture("unet"), p.prepare.window, 0).batch(0)
    assert torch.isfinite(batch["image"]).all() and set(batch["label"].unique().tolist()) <= {0, 1, IGNORE}
    assert facts_of_training(data)["spacing"] == [1.0, 1.0]


def test_copies_are_of_training_volumes_of_another_spacing_only(data: PreparedData) -> None:
    in_training = set(data.regions.loc[data.regions["split"] == "train", "item"])
    other = data.items[data.items["spacing"] != "[3.0, 1.0, 1.0]"]
    expected = set(other.loc[other["item"].isin(in_training), "packed"])
    assert expected and {path.name for path in (data.folder / "resampled").iterdir()} == expected


def test_regions_are_on_their_own_grid_and_say_what_the_network_sees(data: PreparedData) -> None:
    found = {}
    for region in data.regions.itertuples():
        patch = data.read_input(region.id)
        own = tuple(data.volume_of(region.id)[2].spacing[1:])
        assert patch.label.shape == (round(48 / own[0]), round(64 / own[1]))
        found[own] = patch.steps
    assert found == {(rows, columns): (1 / rows, 1 / columns) for rows, columns in SPACINGS}


def test_a_prediction_on_the_own_grid_is_that_of_the_predictor(
    project: Path, data: PreparedData, tmp_path: Path
) -> None:
    """The network sees the rows of a volume of .5 mm in 1 mm, and so does one that predicts a file."""
    torch.manual_seed(0)
    model = build_model("unet", 1, 2, encoder="plain", width=4).eval()
    model.set_normalization([60.0], [30.0])
    facts = {"classes": data.classes, "colors": data.colors, "foreground": [1], "tile": 64}
    described = {**facts, "parameters": {"precision": "fp32"}, "training_images": facts_of_training(data)}
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    save_bundle(bundle, model, "unet", described)
    predictor = Predictor(bundle, Predict(tile=64, overlap=16, accept=["range"]))
    for name in ("p1", "p2"):
        found = predictor.predict(project / f"source/images/{name}.nii.gz").classes
        for plane in range(4):
            patch = data.read_input(f"{name}_z{plane:03}")
            probabilities = predict_patch(model, patch, 64, 16)
            assert probabilities.shape[1:] == patch.label.shape
            assert (probabilities.argmax(0) == found[plane]).mean() > 0.999


def test_a_patch_of_other_steps_is_predicted_as_its_resampled_one() -> None:
    torch.manual_seed(1)
    model = build_model("unet", 1, 2, encoder="plain", width=4).eval()
    image = np.random.default_rng(0).normal(size=(40, 64, 1)).astype(np.float32)
    valid, label = np.ones((40, 64), bool), np.zeros((40, 64), np.uint8)
    seen, there = resized_pixels(image, valid, (20, 32))
    wanted = predict_patch(model, LabelledImage(seen, label[:20, :32], there), 32, 0)
    found = predict_patch(model, LabelledImage(image, label, valid, steps=(2.0, 2.0)), 32, 0)
    # in the middle of two pixels of twice the size there is no pixel of the network: compare means of two
    means = found.reshape(2, 20, 2, 32, 2).mean((2, 4))
    assert found.shape == (2, 40, 64) and np.abs(means - wanted)[:, 2:-2, 2:-2].mean() < 0.05
    assert np.allclose(found.sum(0), 1, atol=1e-5)


def test_labels_are_of_the_class_with_the_largest_share() -> None:
    label = np.array([[0, 0, 1, 1], [0, 2, 1, 1], [5, 5, IGNORE, IGNORE], [5, 5, IGNORE, IGNORE]], np.uint8)
    large = np.repeat(np.repeat(label, 3, 0), 3, 1)
    assert np.array_equal(resized_labels(large, (4, 4)), label)
    assert np.array_equal(resized_labels(np.full((6, 6), 3, np.uint8), (2, 9)), np.full((2, 9), 3))


def test_no_spacing_with_blocks(project: Path) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["split"]["block"] = 32
    path = project / "blocks.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError, match=r"prepare\.spacing is not possible with split\.block"):
        params.load(path)


def table(*spacings: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Items of 40 x 36 pixels, of which the first is of the training split."""
    names = [f"v{number}" for number in range(len(spacings))]
    items = pd.DataFrame({"id": names, "packed": names, "height": 40, "width": 36, "spacing": spacings})
    return items, pd.DataFrame({"item": names, "split": ["train", *["test"] * (len(names) - 1)]})


def test_volumes_that_have_the_spacing_are_not_copied(tmp_path: Path) -> None:
    """Also where the only one of another spacing is no training volume."""
    items, regions = table("[3, 1, 1]", "[3, 0.5, 0.5]")
    found = training_items(items, regions, (1.0, 1.0), tmp_path, tmp_path, map)
    assert found.equals(items) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spacing", "of", "text"),
    [
        ((100.0, 100.0), "[3, 1, 1]", "v0: planes of 40 x 36 pixels would become 1 x 1"),
        ((1.0, 3.0), "[3, 1, 1]", "v0: planes of 40 x 36 pixels would become 40 x 12"),
        ((0.01, 0.01), "[3, 1, 1]", "4000 x 3600"),
        ((2.0, 2.0), "null", "no image has a spacing in mm"),
    ],
)
def test_a_spacing_that_cannot_be_meant_is_refused(
    spacing: tuple[float, float], of: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"prepare\.spacing") as caught:
        training_items(*table(of), spacing, tmp_path, tmp_path, map)
    assert text in caught.value.what and "params.yaml" in caught.value.remedy
