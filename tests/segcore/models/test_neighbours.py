"""Neighbouring planes as extra channels (2.5D), the same in training, evaluation and prediction."""

import nibabel
import numpy as np
import pytest
import torch

from segcore.data.prepared import PreparedData, neighbouring_planes
from segcore.errors import DataError
from segcore.inference.tiling import predict_patch
from segcore.models.base.bundle import save_bundle
from segcore.params import Params, Predict
from segcore.prediction.predictor import Predictor
from segcore.training.build import new_model
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import values_for
from tests.support.volumes import affine_for, write_nifti

DATA = {"images": "images/*.nii.gz", "masks": "masks/{name}", "neighbours": 1, "label_values": {0: 0, 1: 1}}


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """Parameters and prepared data of eight volumes of seven planes."""
    root = tmp_path_factory.mktemp("volumes")
    for seed in range(8):
        values = np.random.default_rng(seed).integers(0, 255, (40, 36, 7)).astype(np.int16)
        write_nifti(root / f"source/images/v{seed}.nii.gz", values, affine_for("RAS"))
        write_nifti(root / f"source/masks/v{seed}.nii.gz", (values > 128).astype(np.uint8), affine_for("RAS"))
    p = Params.model_validate(values_for(root / "source", data=DATA))
    ingest(p.data, root / "ingested")
    return p, PreparedData(prepare(p, root / "ingested", root / "prepared"))


def test_the_end_planes_of_a_volume_are_repeated_beyond_it():
    assert (
        neighbouring_planes(0, 1, 5) == [0, 0, 1]
        and neighbouring_planes(4, 2, 5) == [2, 3, 4, 4, 4]
        and neighbouring_planes(0, 1, 1) == [0, 0, 0]
    )


def test_inputs_contain_neighbouring_planes_and_pictures_do_not(volumes):
    _, data = volumes
    planes = data.items[data.items["volume"] == data.items["volume"].iloc[0]].sort_values("plane")
    inputs = [data.read_input(item) for item in planes["item"]]
    pictures = [data.read(item) for item in planes["item"]]
    assert data.bands == 1 and data.channels == 3 and len(planes) == 7
    for plane in range(7):
        assert pictures[plane].image.shape[-1] == 1
        assert np.array_equal(inputs[plane].label, pictures[plane].label)
        for channel, index in enumerate(neighbouring_planes(plane, 1, 7)):
            assert np.array_equal(inputs[plane].image[..., channel], pictures[index].image[..., 0])


def test_prediction_and_evaluation_get_the_same_input(volumes, tmp_path):
    p, data = volumes
    model = new_model("unet", p.for_architecture("unet"), data, 0).eval()
    assert model.in_channels == 3 and len(model.low) == 3
    torch.nn.init.normal_(model.score.weight, std=30)
    facts = {
        "classes": data.classes,
        "colors": data.colors,
        "foreground": [1],
        "parameters": {"precision": "fp32"},
    }
    facts["input"] = {"neighbours": 1, "dtype": "int16"}
    (tmp_path / "bundle").mkdir()
    save_bundle(tmp_path / "bundle", model, "unet", facts)
    volume = data.items["volume"].iloc[0]
    scene = data.folder.parent / "source" / "images" / f"{volume}.nii.gz"
    Predictor(tmp_path / "bundle", Predict(tile=64, overlap=8)).predict_file(scene, tmp_path, "v")
    written = np.asarray(nibabel.load(tmp_path / "v.nii.gz").dataobj)
    planes = data.items[data.items["volume"] == volume].sort_values("plane")
    read = [predict_patch(model, data.read_input(item), 64, 8).argmax(0) for item in planes["item"]]
    assert sorted(np.stack(read).ravel()) == sorted(written.ravel()) and 0 < written.mean() < 1
    agree = max(
        np.mean(np.stack([p.T[::a, ::b] for p in read], -1) == written) for a in (1, -1) for b in (1, -1)
    )
    # for either orientation of the planes
    assert agree == 1


def test_a_scene_of_other_bands_is_named(volumes, tmp_path):
    p, data = volumes
    model = new_model("unet", p.for_architecture("unet"), data, 0)
    facts = {"classes": data.classes, "colors": data.colors, "foreground": [1], "input": {"neighbours": 1}}
    (tmp_path / "bundle").mkdir()
    save_bundle(tmp_path / "bundle", model, "unet", facts)
    four = np.zeros((20, 20, 5, 3), np.float32)
    write_nifti(tmp_path / "four.nii.gz", four)
    with pytest.raises(DataError, match="has 3 bands, the model takes 1"):
        Predictor(tmp_path / "bundle", Predict(tile=64, overlap=8)).predict_file(
            tmp_path / "four.nii.gz", tmp_path, "v"
        )
