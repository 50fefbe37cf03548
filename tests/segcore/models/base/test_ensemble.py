"""An ensemble is the mean of its networks' probabilities, and one bundle like any other."""

from pathlib import Path
from typing import Any

import pytest
import torch

from segcore.errors import ModelError
from segcore.evaluation.complexity import complexity
from segcore.inference.tta import FlipAveraged
from segcore.models.base.bundle import load_bundle, load_description, save_bundle
from segcore.models.base.factory import build_model, ensemble
from segcore.models.base.model import SegmentationModel
from tests.support.bundles import FACTS, make_bundle, noise, rewrite
from tests.support.instance_batches import network

TEMPERATURES = (1.0, 2.0)


def members() -> list[SegmentationModel]:
    """Two networks that share no way of reading pixels."""
    models = []
    for seed, (magnify, mean) in enumerate(((1, 100.0), (2, 140.0))):
        torch.manual_seed(seed)
        model = build_model("unet", 3, 3, magnify=magnify, encoder="plain", width=4).eval()
        model.set_normalization([mean] * 3, [50.0] * 3)
        models.append(model)
    return models


def mean_of(models: list[SegmentationModel]) -> Any:
    facts = [
        {"architecture": "unet", "settings": model.settings, "temperature": t, "run": f"unet-{seed}"}
        for seed, (model, t) in enumerate(zip(models, TEMPERATURES, strict=True))
    ]
    return ensemble("ensemble-unet", models, facts).eval()


def image() -> torch.Tensor:
    return torch.from_numpy(noise(50, 70).astype("float32"))[None]


def test_it_is_the_mean_of_the_probabilities_after_each_network_s_own_normalisation_and_temperature() -> None:
    models, pixels = members(), image()
    valid = torch.rand(1, 50, 70) > 0.2
    with torch.no_grad():
        expected = (
            sum((m(pixels, valid) / t).softmax(1) for m, t in zip(models, TEMPERATURES, strict=True)) / 2
        )
    torch.testing.assert_close(mean_of(models).predict(pixels, valid), expected)
    assert not torch.allclose(models[0].predict(pixels), models[1].predict(pixels), atol=0.05)


def test_flips_of_the_mean_are_the_mean_of_flips() -> None:
    models, pixels = members(), image()
    facts = [{"architecture": "unet", "settings": m.settings, "temperature": 1} for m in models]
    plain = ensemble("ensemble", models, facts).eval()
    with torch.no_grad():
        flipped = FlipAveraged(plain).predict(pixels)
        expected = sum(FlipAveraged(m).eval().predict(pixels) for m in models) / 2  # type: ignore[arg-type]
    torch.testing.assert_close(flipped, expected)


def test_its_bundle_gives_the_same_numbers_and_costs_what_all_networks_cost(tmp_path: Path) -> None:
    models = members()
    whole = mean_of(models)
    save_bundle(tmp_path, whole, "ensemble-unet", FACTS)
    assert {path.name for path in tmp_path.iterdir()} == {"model.json", "model.safetensors"}
    loaded = load_bundle(tmp_path)
    assert torch.equal(loaded.predict(image()), whole.predict(image()))
    assert (loaded.title, loaded.kind) == ("U-Net ensemble", "semantic")
    costs, own = complexity(loaded), [complexity(model) for model in models]
    assert costs.macs == sum(one.macs for one in own)
    assert costs.parameters == sum(one.parameters for one in own)
    assert costs.receptive_field == max(one.receptive_field for one in own)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"magnify": 900}, "magnify is 900"),
        ({"width": 8}, "does not describe the network of its weights"),
    ],
)
def test_members_that_are_not_those_of_the_weights_are_refused(
    tmp_path: Path, change: dict[str, int], expected: str
) -> None:
    save_bundle(tmp_path, mean_of(members()), "ensemble-unet", FACTS)
    rewrite(tmp_path, lambda d: d["settings"]["members"][1]["settings"].update(change))
    with pytest.raises(ModelError, match=expected):
        load_bundle(tmp_path)


def test_an_ensemble_in_an_ensemble_is_refused(tmp_path: Path) -> None:
    save_bundle(tmp_path, mean_of(members()), "ensemble-unet", FACTS)
    inner = load_description(tmp_path)["settings"]
    one = {"architecture": "ensemble-unet", "settings": inner}
    rewrite(tmp_path, lambda d: d["settings"]["members"][1].update(one))
    with pytest.raises(ModelError, match="ensemble-unet"):
        load_bundle(tmp_path)


def test_networks_without_a_common_mean_are_refused(tmp_path: Path) -> None:
    facts = [{"architecture": "unet", "settings": {}, "temperature": 1, "run": f"r{i}"} for i in range(2)]
    other = load_bundle(make_bundle(tmp_path / "four", bands=4))
    with pytest.raises(ModelError, match="r1 has other bands or outputs than r0"):
        ensemble("ensemble", [members()[0], other], facts)
    with pytest.raises(ModelError, match="r1: Mask R-CNN finds objects"):
        ensemble("ensemble", [members()[0], network(("mask_rcnn", {}), 0, 3)], facts)
