"""The temperature is fitted on what the validation predicts, and changes confidence alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.inference.calibration import confidence
from segcore.models.base.description import parse, serialized
from segcore.models.base.factory import build_model
from segcore.training import temperature
from segcore.training.build import new_model
from segcore.training.temperature import fit_temperature, fitted, nll
from segcore.training.validate import tile_side, validate
from tests.support.toy_instance import Toy
from tests.support.trainings import small


def overconfident(by: float, pixels: int = 200_000, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn by probabilities, and probabilities of logits that are `by` times as large."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(classes, pixels, generator=random) * 1.5
    labels = torch.multinomial(logits.softmax(0).T, 1, generator=random)[:, 0]
    return (logits * by).softmax(0).numpy(), labels.numpy().astype(np.uint8)


@pytest.mark.parametrize("by", [0.5, 1.0, 2.5, 15.0])
def test_the_temperature_of_an_overconfident_network_is_found(by):
    probabilities, labels = overconfident(by)
    found = fitted(probabilities, labels)
    assert found == pytest.approx(by, rel=0.02)
    # no temperature beside it is better
    best = nll(probabilities, labels, found)
    assert all(best <= nll(probabilities, labels, found * factor) for factor in (0.97, 0.99, 1.01, 1.03))


@pytest.mark.parametrize(
    ("probabilities", "right", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3], 1, 1.0),
        ([0.0, 1.0, 0.0], 1, 1.0),
        ([0.1, 0.8, 0.1], 1, temperature.LOWEST),
        ([0.1, 0.8, 0.1], 0, temperature.HIGHEST),
    ],
)
def test_a_temperature_is_at_its_limit_or_1_where_none_is_best(probabilities, right, expected):
    values = np.repeat(np.array(probabilities, np.float32)[:, None], 500, axis=1)
    found = fitted(values, np.full(500, right, np.uint8))
    assert found == expected
    line = temperature.text({"temperature": found, "ece_before": 0.2, "ece_after": 0.1})
    assert ("that is allowed" in line) == (expected != 1)


def test_likelihood_and_error_are_those_of_torch_and_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, labels = overconfident(3.0, 20_000)
    logits, target = torch.from_numpy(probabilities).log().T, torch.from_numpy(labels).long()
    for value in (1.0, 2.2):
        expected = F.cross_entropy(logits / value, target)
        assert nll(probabilities, labels, value) == pytest.approx(expected.item(), rel=1e-5)
        error = multiclass_calibration_error((logits / value).softmax(1), target, 3, n_bins=15)
        assert temperature._ece(probabilities, labels, value) == pytest.approx(error.item(), abs=1e-5)


@pytest.mark.parametrize("classes", [2, 5])
def test_confidence_is_the_softmax_of_scaled_logits(classes):
    logits = torch.randn(classes, 40, 30, generator=torch.Generator().manual_seed(1)) * 4
    probabilities = logits.softmax(0)
    for value in (0.5, 1.0, 3.0):
        expected = (logits / value).softmax(0).amax(0)
        assert torch.allclose(confidence(probabilities, value), expected, atol=1e-5)
    assert confidence(torch.tensor([1.0, 0.0]), 2.0).isfinite()
    # also of a network that is very sure
    far = torch.zeros(classes, 1)
    far[0] = 80
    assert torch.allclose(confidence(far.softmax(0), 40.0), (far / 40).softmax(0).amax(0), atol=1e-5)


@pytest.mark.parametrize("touching", [False, True])
def test_it_is_fitted_on_what_the_validation_predicts(prepared_scene, touching):
    _, data = prepared_scene
    settings = small()
    torch.manual_seed(0)
    classes = len(data.classes)
    model = build_model("unet", 3, classes, touching=touching, encoder="plain", width=4).eval()
    tile = tile_side(model, settings.crop)
    entry = fit_temperature(model, data, tile, "fp32")
    regions = data.regions[data.regions["split"] == "validation"]
    labels = np.concatenate([data.read_input(region).label.ravel() for region in regions["id"]])
    assert entry["pixels"] == (labels != IGNORE).sum()
    assert entry["nll_after"] <= entry["nll_before"]
    if not touching:
        # the loss of the validation is the cross-entropy
        assert entry["nll_before"] == pytest.approx(validate(model, data, settings, "fp32")[0], rel=1e-3)
    assert entry == fit_temperature(model, data, tile, "fp32")
    assert parse(serialized({"weights_sha256": "0" * 64, "calibration": entry}), "model.json")


def test_of_many_pixels_a_sample_of_every_region_is_kept(prepared_scene, monkeypatch):
    _, data = prepared_scene
    model = new_model("unet", small(), data, 0).eval()
    full = fit_temperature(model, data, 64, "fp32")
    monkeypatch.setattr(temperature, "_MOST", len(data.classes) * full["pixels"] // 4)
    entry = fit_temperature(model, data, 64, "fp32")
    regions = data.regions[data.regions["split"] == "validation"]
    assert full["pixels"] // 5 < entry["pixels"] <= full["pixels"] // 4 and len(regions) > 1
    assert entry["temperature"] == pytest.approx(full["temperature"], rel=0.2)
    assert entry == fit_temperature(model, data, 64, "fp32")


def test_an_instance_network_and_data_without_labels_have_none(prepared_scene, monkeypatch):
    _, data = prepared_scene
    assert fit_temperature(Toy(), data, 64, "fp32") is None
    model = new_model("unet", small(), data, 0).eval()
    monkeypatch.setattr(data, "regions", data.regions[data.regions["split"] == "none"])
    assert fit_temperature(model, data, 64, "fp32") is None


@pytest.mark.parametrize("entry", [{}, {"temperature": 0.0}, {"temperature": "1"}])
def test_an_entry_without_a_positive_temperature_is_refused(entry):
    with pytest.raises(ModelError, match="calibration"):
        parse(serialized({"weights_sha256": "0" * 64, "calibration": entry}), "model.json")
