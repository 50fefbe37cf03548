"""Bundles: complete, verified, and without pickles."""

import json

import pytest
import torch

from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle, save_bundle
from segcore.models.base.factory import build_model
from tests.support.bundles import rewrite


@pytest.fixture
def bundle(tmp_path):
    torch.manual_seed(0)
    model = build_model("unet", 4, 3, encoder="plain", width=4)
    model.set_normalization([1, 2, 3, 4], [5, 6, 7, 8])
    save_bundle(tmp_path, model, "unet", {"classes": ["a", "b", "c"]})
    return tmp_path, model.eval()


def test_a_loaded_bundle_predicts_like_the_saved_model(bundle):
    folder, model = bundle
    image = torch.rand(2, 4, 37, 41) * 9
    assert torch.equal(load_bundle(folder).predict(image), model.predict(image))
    assert json.loads((folder / "model.json").read_text())["normalization"]["mean"] == [1, 2, 3, 4]


def test_a_bundle_with_the_former_name_of_the_imagenet_weights_loads(bundle):
    folder, model = bundle
    rewrite(folder, lambda d: d["settings"].update(weights="sample"))
    image = torch.rand(1, 4, 32, 32)
    assert torch.equal(load_bundle(folder).predict(image), model.predict(image))


def test_the_hash_is_verified_before_a_load(bundle):
    folder, _ = bundle
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not the file that model.json describes"):
        load_bundle(folder)


def test_missing_or_damaged_bundles_are_named(bundle, tmp_path):
    folder, _ = bundle
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        load_bundle(folder)
    with pytest.raises(ModelError, match=r"holds no model bundle"):
        load_bundle(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "entry", ["architecture", "in_channels", "num_classes", "settings", "weights_sha256"]
)
def test_an_incomplete_description_is_an_error(bundle, entry):
    folder, _ = bundle
    rewrite(folder, lambda d: d.pop(entry))
    with pytest.raises(ModelError, match=r"lacks |not the file that model.json describes"):
        load_bundle(folder)
    (folder / "model.json").write_text("[]")
    with pytest.raises(ModelError, match=r"model\.json: is not the description"):
        load_bundle(folder)


def test_a_file_instead_of_the_folder_is_an_error_with_the_remedy(bundle):
    folder, _ = bundle
    with pytest.raises(ModelError, match=r"holds no model bundle[\s\S]*folder of a bundle"):
        load_bundle(folder / "model.json")
