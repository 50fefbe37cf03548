"""Networks with an output for pixels near two objects: no class of a result, whatever predicts and stores them."""

import json

import numpy as np
import pytest
import rasterio
import torch
from rasterio import Affine

from segcore.data.prepared import LabelledImage, PreparedData
from segcore.data.raster import Info
from segcore.data.resolution import ground_resolution
from segcore.errors import ModelError
from segcore.evaluation.complexity import complexity
from segcore.inference.tiling import predict_patch, predict_with_touching
from segcore.inference.tta import with_flips
from segcore.models.base.bundle import load_bundle, load_description, save_bundle
from segcore.models.base.factory import build_model
from segcore.objects.find import FindSettings
from segcore.params import Predict
from segcore.prediction import mosaic
from segcore.prediction.fuse_batchnorm import fused
from segcore.prediction.grid import Grid
from segcore.prediction.predictor import Predictor
from segcore.prediction.strips import strips
from segcore.training.build import class_weights, new_model
from segcore.training.validate import validate
from tests.support.bundles import FACTS, make_bundle, noise, rewrite
from tests.support.tiny import write_tif
from tests.support.trainings import small

SMALL = {"unet": {"encoder": "plain", "width": 4}, "fcn": {}, "deeplab": {"aspp_channels": 8}}


def network(architecture="unet"):
    """Random weights, whose logits differ enough for every output to be the highest somewhere."""
    torch.manual_seed(0)
    keywords = {"weights": "none"} | SMALL[architecture]
    model = build_model(architecture, 3, 3, touching=True, **keywords)
    model.set_normalization([100.0] * 3, [50.0] * 3)
    if architecture == "unet":
        with torch.no_grad():
            logits = model.eval()(image()[None])
            model.score.bias -= logits.mean((0, 2, 3))
            factor = 3 / logits.std((0, 2, 3))
            model.score.weight *= factor[:, None, None, None]
            model.score.bias *= factor
    return model.eval()


def image(height=96, width=96):
    return torch.from_numpy(noise(height, width).astype(np.float32))


def patch(pixels):
    """A patch of (bands, H, W) pixels."""
    size = pixels.shape[1:]
    return LabelledImage(np.moveaxis(pixels, 0, -1), np.zeros(size, np.uint8), np.ones(size, bool))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "bundle"
    made.mkdir()
    save_bundle(made, network(), "unet", {**FACTS, "objects": {"touching": True}})
    return made


@pytest.mark.parametrize("architecture", SMALL)
def test_every_architecture_has_one_more_output_than_classes(architecture):
    model = network(architecture)
    assert (model.outputs, model.num_classes, model.touching) == (4, 3, True)
    assert model(image(64, 64)[None]).shape == (1, 4, 64, 64)
    plain = build_model(architecture, 3, 3, weights="none", **SMALL[architecture])
    assert (plain.outputs, plain.num_classes, plain.touching) == (3, 3, False)
    assert "touching" not in plain.settings


def test_the_loss_has_the_extra_class():
    label = torch.full((1, 64, 64), 3)
    assert torch.isfinite(network().loss({"image": image(64, 64)[None], "label": label})["loss"])


def test_class_probabilities_sum_to_one_and_keep_the_order_of_the_classes():
    model, pixels = network(), noise(96, 96)
    outputs = model.predict(torch.from_numpy(pixels.astype(np.float32))[None])[0].numpy()
    assert (outputs.argmax(0) == 3).any()
    probabilities, touching = predict_with_touching(model, patch(pixels), 96, 32)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5) and probabilities.shape == (3, 96, 96)
    assert (probabilities.argmax(0) == outputs[:3].argmax(0)).all()
    assert np.allclose(touching, outputs[3], atol=1e-6)
    assert np.allclose(probabilities * (1 - touching), outputs[:3], atol=1e-5)
    assert (predict_patch(model, patch(pixels), 96, 32) == probabilities).all()


def test_a_certain_touching_pixel_still_has_class_probabilities():
    model = network()
    with torch.no_grad():
        model.score.weight.zero_()
        model.score.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 1000.0]))
    probabilities, touching = predict_with_touching(model, patch(noise(64, 64)), 64, 16)
    assert np.allclose(probabilities, 1 / 3) and (touching == 1).all()


def test_flips_and_fused_batch_norm_keep_the_output():
    model, pixels = network(), noise(96, 96)
    flipped = with_flips(model, True)
    assert (flipped.outputs, flipped.num_classes, flipped.touching) == (4, 3, True)
    mean = np.mean(
        [
            model.predict(image().flip(axes)[None])[0].flip(axes).numpy()
            for axes in ((), (-1,), (-2,), (-2, -1))
        ],
        axis=0,
    )
    _, touching = predict_with_touching(flipped, patch(pixels), 96, 32)
    assert np.allclose(touching, mean[3], atol=1e-5)
    one, other = (predict_with_touching(m, patch(pixels), 96, 32) for m in (model, fused(model)))
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(one, other, strict=True))


def test_complexity_is_measured():
    assert (
        complexity(network(), 64).macs
        > complexity(build_model("unet", 3, 3, weights="none", **SMALL["unet"]).eval(), 64).macs
    )


def test_a_bundle_is_loaded_with_the_output_and_names_only_the_classes(folder):
    description = json.loads((folder / "model.json").read_text())
    assert description["num_classes"] == 3 and description["objects"]["touching"] is True
    model = load_bundle(folder)
    assert (model.outputs, model.touching) == (4, True)
    assert torch.equal(model.predict(image()[None]), network().predict(image()[None]))


@pytest.mark.parametrize("told", [False, None])
def test_a_bundle_whose_entries_disagree_is_refused(folder, told):
    rewrite(folder, lambda d: d["objects"].update(touching=told))
    with pytest.raises(ModelError, match="objects"):
        load_bundle(folder)


def test_an_entry_as_a_training_writes_it_is_read(folder):
    method = {"score": 0.5, "f1": 1.0, "precision": 1, "recall": 0, "count_bias": -1.0}
    method["counts"] = {"field": [[1, 2], [0, 3]], "water": []}
    entry = {"truth": "given", "touching": True, "classes": [1, 2], "side": 30.5, "components": method}
    rewrite(
        folder,
        lambda d: d.update(objects={**entry, "watershed": {**method, "seeds": "distance", "depth": 2}}),
    )
    assert FindSettings.of(load_description(folder), "watershed") == FindSettings(
        "watershed", 0.5, "distance", 2
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"components": {"score": 1.5}},
        {"components": {}},
        {"watershed": {"score": 0.5, "seeds": "color", "depth": 1.0}},
        {"watershed": {"score": 0.5, "seeds": "distance", "depth": 0}},
        {"components": {"score": 0.5, "counts": {"field": [[1]]}}},
        [],
    ],
)
def test_odd_entries_of_objects_are_refused(folder, entry):
    rewrite(folder, lambda d: d.update(objects={"touching": True, **entry} if entry else entry))
    with pytest.raises(ModelError, match=r"model\.json: objects"):
        load_bundle(folder)


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
@pytest.mark.parametrize("flips", [False, True])
def test_predictions_have_the_classes_only_and_touching_beside_them(folder, blend, flips):
    pixels = np.moveaxis(noise(80, 120), 0, -1)
    valid = np.ones((80, 120), bool)
    valid[:10] = False
    made = Predictor(folder, Predict(tile=64, overlap=16, blend=blend, flips=flips)).predict(pixels, valid)
    assert made.probabilities.shape == (3, 80, 120) and set(np.unique(made.classes)) <= {0, 1, 2, 255}
    assert np.allclose(made.probabilities[:, valid].sum(0), 1, atol=1e-5)
    assert (made.probabilities.argmax(0)[valid] == made.classes[valid]).all()
    assert made.touching.shape == (80, 120) and 0 < made.touching.max() <= 1
    assert (made.touching[~valid] == 0).all()
    if blend == "probabilities":
        image = LabelledImage(pixels, np.zeros(valid.shape, np.uint8), valid)
        model = with_flips(load_bundle(folder), flips)
        probabilities, touching = predict_with_touching(model, image, 64, 16)
        assert np.allclose(made.touching[valid], touching[valid], atol=1e-3)
        assert np.allclose(made.probabilities[:, valid], probabilities[:, valid], atol=1e-3)


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_several_panels_give_what_one_gives(blend, tmp_path):
    model, pixels = network(), noise(100, 230).astype(np.float32)
    valid = np.ones(pixels.shape[1:], bool)

    def read(window):
        row, col, tall, wide = window
        area = (slice(row, row + tall), slice(col, col + wide))
        return pixels[:, *area], valid[area]

    def predicted(columns):
        grid, found = Grid(100, 230, 64, 16, columns), np.full((4, 100, 230), np.nan, np.float32)
        for block in mosaic.Mosaic(model, grid, blend, "fp32", tmp_path).blocks(strips(grid, read)):
            height, width = block.touching.shape
            part = (slice(block.row, block.row + height), slice(block.col, block.col + width))
            found[:3, *part], found[3, *part] = block.scores, block.touching
        return len(grid.panels), found

    (several, one), (single, other) = predicted(1), predicted(10_000)
    assert several > 2 and single == 1
    assert np.allclose(one, other, atol=5e-5)


def test_a_file_has_the_classes_only_and_a_resampled_scene_is_the_same(folder, tmp_path):
    write_tif(tmp_path / "scene.tif", noise(90, 80), transform=Affine(10, 0, 5e5, 0, -10, 5e6))
    trained = ground_resolution(Info(64, 64, 3, "uint8", "EPSG:32633", (20, 0, 5e5, 0, -20, 5e6)))
    rewrite(folder, lambda d: d.update(training_images={"pixel_sizes": {"m": [trained] * 3}}))
    for resample in (False, True):
        settings = Predict(tile=64, overlap=16, resample=resample, outputs=["probabilities"])
        accept = settings.model_copy(update={"accept": ["resolution"]})
        predictor = Predictor(folder, settings if resample else accept)
        assert predictor.predict_file(tmp_path / "scene.tif", tmp_path)[0] == "scene_probabilities.tif"
        with rasterio.open(tmp_path / "scene_probabilities.tif") as made:
            steps = made.read().astype(int)
        assert steps.shape == (3, 90, 80) and np.abs(steps.sum(0) - 254).max() <= 2
        array = predictor.predict(tmp_path / "scene.tif")
        assert array.touching.shape == (90, 80) and array.touching.std() > 0.01
        assert np.abs(array.probabilities - steps / 254).max() < 0.01


def test_a_network_without_the_output_has_no_touching(tmp_path):
    made = Predictor(make_bundle(tmp_path / "b"), Predict(tile=64, overlap=16)).predict(
        np.moveaxis(noise(70, 70), 0, -1)
    )
    assert made.touching is None


@pytest.fixture
def near(prepared_scene, monkeypatch):
    """Prepared data in which every fourth pixel of a row is near two objects."""
    _, data = prepared_scene
    plane = PreparedData._plane

    def with_touching(self, item, kind, *rest):
        if kind != "touching":
            return plane(self, item, kind, *rest)
        rows = np.zeros(plane(self, item, "labels").shape, np.uint8)
        rows[:, ::4] = 1
        return rows

    monkeypatch.setattr(PreparedData, "_plane", with_touching)
    monkeypatch.setattr(data, "touching", True)
    return data


def test_a_network_for_such_data_weighs_the_output_as_the_rarest_class(near):
    settings = small(loss="cross_entropy", class_weights="balanced")
    model, weights = new_model("unet", settings, near, 0), class_weights(settings, near)
    assert (model.outputs, model.num_classes) == (3, 2) and len(weights) == 2
    logits, label = torch.zeros(1, 3, 1, 2), torch.tensor([[[2, 0]]])
    logits[0, 2, 0, 0] = 1
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")[0, 0]
    by_class = torch.tensor([max(weights), weights[0]])
    expected = (losses * by_class).sum() / by_class.sum()
    assert torch.isclose(model.criterion(logits, label)["loss"], expected)


def test_validation_has_the_loss_of_all_outputs_and_the_iou_of_the_classes(near):
    model = new_model("unet", small(loss="cross_entropy"), near, 0)
    with torch.no_grad():
        model.score.weight.zero_()
        model.score.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    loss, iou = validate(model, near, small(), "fp32")
    log_probabilities = model.score.bias.detach().log_softmax(0)
    regions = near.regions.loc[near.regions["split"] == "validation", "id"]
    label = np.concatenate([near.read_input(r, touching=True).label.ravel() for r in regions])
    label = label[label != 255]
    assert (label == 2).any() and loss == pytest.approx(
        -float(log_probabilities[label.astype(int)].mean()), rel=1e-4
    )
    truth = np.concatenate([near.read_input(r).label.ravel() for r in regions])
    assert iou == pytest.approx((truth[truth != 255] == 1).mean())
