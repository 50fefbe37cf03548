"""A scene in, files out: on the scene's grid, with its nodata, and as if predicted in one piece."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from segcore.bundle import save_bundle
from segcore.models import build_model
from segcore.prediction import Predictor, Settings
from tests.tiny import write_tif

FACTS = {
    "classes": ["background", "field", "water"],
    "colors": [[0, 0, 0], [255, 179, 0], [0, 0, 255]],
    "foreground": [1, 2],
    "parameters": {"precision": "fp32"},
}


def make_bundle(folder: Path, bands: int = 3, **facts) -> Path:
    """A U-Net of random weights."""
    torch.manual_seed(0)
    model = build_model("unet", bands, 3, encoder="plain", width=4)
    model.set_normalization([100.0] * bands, [50.0] * bands)
    folder.mkdir(parents=True)
    save_bundle(folder, model.eval(), "unet", {**FACTS, **facts})
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "unet-0")


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """(bands, H, W) uint8 of squares of 8 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 255, (bands, -(-height // 8), -(-width // 8)), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]


def test_41_crs_transform_size_and_nodata_are_the_inputs(bundle, tmp_path):
    pixels = noise(150, 333)
    pixels[:, 20:60, 100:200] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    out = tmp_path / "out"
    out.mkdir()
    outputs = ("classes", "probabilities", "polygons")
    files = Predictor(bundle, Settings(96, 32, outputs=outputs)).predict(tmp_path / "scene.tif", "scene", out)
    print(files)
    assert sorted(p.name for p in out.iterdir()) == sorted(files)
    for name in ("scene.tif", "scene_probabilities.tif"):
        with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(out / name) as made:
            assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
            assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert np.array_equal(made.read_masks(1) > 0, source.read_masks(1) > 0)
            assert made.nodata == 255
            print(made.profile, made.tags(), made.descriptions, made.scales, made.colorinterp)
