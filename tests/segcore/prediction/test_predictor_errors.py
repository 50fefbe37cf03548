"""Scenes, bundles and settings that cannot be used are refused, and no output is written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio

from segcore.errors import DataError, ModelError, ParamsError, StageError
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import write_tif

ALL = ("classes", "probabilities", "polygons")


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip(path: Path) -> None:
    """Damage the middle of a sound-looking file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("bands", "profile", "damage", "message"),
    [
        (5, {}, None, "has 5 bands, the model takes 3"),
        (3, {}, _cut, "truncated"),
        (3, {"compress": "deflate"}, _flip, "cannot be read"),
        (3, {}, lambda path: path.write_bytes(b""), "is empty"),
        (3, {}, lambda path: path.write_bytes(b"no image"), "cannot be read"),
    ],
)
def test_unusable_scenes_are_named_and_outputs_are_unchanged(
    bundle, tmp_path, out, bands, profile, damage, message
):
    write_tif(tmp_path / "scene.tif", noise(200, 150, bands), **profile)
    if damage:
        damage(tmp_path / "scene.tif")
    (out / "scene.tif").write_text("earlier output")
    with pytest.raises(DataError, match=message) as caught:
        Predictor(bundle, Predict(tile=64, overlap=16, outputs=ALL)).predict_file(
            tmp_path / "scene.tif", out, "scene"
        )
    assert "scene.tif" in caught.value.what and caught.value.remedy and "pair" not in caught.value.remedy
    assert [p.name for p in out.iterdir()] == ["scene.tif"]
    assert (out / "scene.tif").read_text() == "earlier output"


def test_a_huge_size_is_refused_before_memory_is_allocated(bundle, tmp_path, out):
    profile = {
        "driver": "GTiff",
        "count": 3,
        "height": 10**6,
        "width": 10**6,
        "dtype": "uint8",
        "tiled": True,
    }
    with rasterio.open(tmp_path / "huge.tif", "w", sparse_ok=True, bigtiff=True, **profile):
        pass
    with pytest.raises(DataError, match="1000000 x 1000000"):
        Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / "huge.tif", out, "huge")


def test_values_of_another_dtype_are_refused(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", input={"dtype": "uint8", "scale": "auto"})
    write_tif(tmp_path / "scene.tif", noise(64, 64).astype(np.uint16))
    with pytest.raises(DataError, match=r"has uint16 values, the training images have uint8"):
        Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / "scene.tif", out, "scene")


@pytest.mark.parametrize(
    ("free", "kind", "message"),
    [
        (10, StageError, "because the disk is full"),
        (2**21, DataError, r"0\.0045 GB may be needed .* 0\.0021 GB"),
    ],
)
def test_a_full_disk_is_an_error_before_the_prediction(
    bundle, tmp_path, out, monkeypatch, free, kind, message
):
    write_tif(tmp_path / "scene.tif", noise(1500, 1500))
    monkeypatch.setattr(
        "segcore.prediction.writers.cog.shutil.disk_usage", lambda path: SimpleNamespace(free=free)
    )
    with pytest.raises(kind, match=message):
        Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / "scene.tif", out, "scene")
    assert not any(out.iterdir())


def test_the_hash_is_verified_before_a_load(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not the file that model.json describes"):
        Predictor(bundle, Predict(tile=64, overlap=16))


def test_an_overlap_of_more_than_half_a_window_is_refused(bundle):
    with pytest.raises(ParamsError, match=r"predict.overlap 40"):
        Predictor(bundle, Predict(tile=64, overlap=40))
