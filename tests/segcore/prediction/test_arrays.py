"""Arrays are predicted like files of the same pixels."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import segcore
from segcore.errors import DataError, ParamsError
from segcore.io.images import open_source
from segcore.models.base.bundle import load_bundle, save_bundle
from segcore.prediction.arrays import Prediction
from segcore.prediction.predictor import load
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import affine_for, write_nifti


def array_of(pixels: np.ndarray) -> np.ndarray:
    """(C, H, W) to (H, W, C)."""
    return np.moveaxis(pixels, 0, -1)


def same(one: Prediction, two: Prediction) -> None:
    for name in ("classes", "probabilities", "valid"):
        a, b = getattr(one, name), getattr(two, name)
        assert a.dtype == b.dtype and np.array_equal(a, b), name


@pytest.mark.parametrize("settings", [{}, {"tile": 96, "overlap": 32, "blend": "logits", "flips": True}])
def test_an_array_and_a_geotiff_of_the_same_pixels_give_the_same(bundle, tmp_path, settings):
    pixels = noise(150, 233)
    pixels[:, 20:130, 100:200] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    predictor = load(bundle, **settings)
    result = predictor.predict(array_of(pixels), (pixels != 0).any(axis=0))
    same(result, predictor.predict(tmp_path / "scene.tif"))
    assert result.classes.shape == result.valid.shape == (150, 233)
    assert result.probabilities.shape == (3, 150, 233)
    assert (result.classes.dtype, result.probabilities.dtype) == (np.uint8, np.float32)
    assert not result.valid[20:130, 100:200].any() and result.valid.mean() > 0.5
    assert (result.classes[~result.valid] == 255).all() and (
        result.probabilities[:, ~result.valid] == 0
    ).all()
    assert np.allclose(result.probabilities[:, result.valid].sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(axis=0)[result.valid], result.classes[result.valid])


def test_an_array_gives_the_classes_that_are_written_to_a_file(bundle, tmp_path):
    pixels = noise(150, 233)
    write_tif(tmp_path / "scene.tif", pixels)
    predictor = load(bundle)
    assert predictor.predict_file(tmp_path / "scene.tif", tmp_path / "out")[0] == "scene.tif"
    with rasterio.open(tmp_path / "out/scene.tif") as written:
        assert np.array_equal(written.read(1), predictor.predict(array_of(pixels)).classes)


def test_a_picture_gives_the_same_as_its_array(bundle, tmp_path):
    image = array_of(noise(50, 70))
    Image.fromarray(image).save(tmp_path / "p.png")
    predictor = load(bundle)
    same(predictor.predict(image), predictor.predict(str(tmp_path / "p.png")))


def test_bands_nodata_and_grey_images_are_processed_as_in_training(tmp_path):
    facts = {"bands": [5, 1, 3], "nodata": 7, "dtype": "uint8"}
    predictor = load(make_bundle(tmp_path / "bands", input=facts))
    pixels = noise(70, 60, bands=5)
    pixels[:, :10] = 7
    write_tif(tmp_path / "scene.tif", pixels)
    result = predictor.predict(array_of(pixels))
    same(result, predictor.predict(tmp_path / "scene.tif"))
    assert not result.valid[:10].any()
    grey = load(make_bundle(tmp_path / "grey", input={"grey_to_rgb": True, "dtype": "uint8"}))
    one = noise(40, 50, bands=1)[0]
    same(grey.predict(one), grey.predict(np.repeat(one[..., None], 3, axis=2)))


def test_non_finite_values_are_invalid_and_change_nothing_else(tmp_path):
    facts = {"scale": "item", "percentiles": [0.5, 99.5], "dtype": "float32"}
    predictor = load(make_bundle(tmp_path / "bundle", input=facts))
    pixels = noise(64, 80).astype(np.float32) * 900
    pixels[0, 5, 6], pixels[1, 7, 8] = np.nan, np.inf
    write_tif(tmp_path / "scene.tif", pixels)
    result = predictor.predict(array_of(pixels))
    same(result, predictor.predict(tmp_path / "scene.tif"))
    assert np.argwhere(~result.valid).tolist() == [[5, 6], [7, 8]] and np.isfinite(result.probabilities).all()


def test_magnified_models_give_the_original_size(tmp_path):
    torch.manual_seed(0)
    model = segcore.build_model("unet", 3, 2, encoder="plain", width=4, magnify=2)
    (tmp_path / "bundle").mkdir()
    facts = {"classes": ["a", "b"], "colors": [[0, 0, 0], [9, 9, 9]], "foreground": [1], "tile": 64}
    save_bundle(tmp_path / "bundle", model, "unet", {**facts, "parameters": {"precision": "fp32"}})
    pixels = noise(40, 50)
    result = load(tmp_path / "bundle").predict(array_of(pixels))
    expected = load_bundle(tmp_path / "bundle").predict(torch.from_numpy(pixels).float()[None])[0].numpy()
    assert np.abs(result.probabilities - expected).max() < 1e-5


@pytest.mark.parametrize("layout", ["reversed", "big-endian", "read-only", "int64"])
def test_the_memory_layout_of_an_array_does_not_matter(tmp_path, layout):
    predictor = load(make_bundle(tmp_path / "bundle", input={"dtype": "int16"}))
    image = array_of(noise(40, 50)).astype(np.int16)
    other = image.copy()
    if layout == "reversed":
        other = np.ascontiguousarray(image[::-1, :, ::-1])[::-1, :, ::-1]
    elif layout == "read-only":
        other.flags.writeable = False
    else:
        other = image.astype(">i2" if layout == "big-endian" else np.int64)
    same(predictor.predict(other), predictor.predict(image))


def test_volumes_are_predicted_plane_by_plane_with_their_neighbours(tmp_path):
    facts = {"neighbours": 1, "dtype": "int16", "slices": 2}
    predictor = load(make_bundle(tmp_path / "bundle", bands=3, input=facts))
    planes = noise(24, 20, bands=5).astype(np.int16)
    result = predictor.predict(planes[..., None])
    assert result.classes.shape == (5, 24, 20) and result.probabilities.shape == (3, 5, 24, 20)
    alone = predictor.predict(planes[1:4, ..., None])
    assert np.array_equal(alone.classes[1], result.classes[2])
    write_nifti(tmp_path / "v.nii.gz", planes.transpose(2, 1, 0), affine_for("RAS"))
    with open_source(tmp_path / "v.nii.gz", 2) as source:
        read = np.stack([source.read(None, plane).pixels for plane in range(source.info.depth)])
    assert read.shape == (5, 1, 24, 20)
    same(predictor.predict(tmp_path / "v.nii.gz"), predictor.predict(np.moveaxis(read, 1, -1)))


WRONG = {
    "empty": (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\) is not that of an image"),
    "one axis": (np.zeros(5, np.uint8), r"shape \(5,\) is not that of an image"),
    "bands": (np.zeros((9, 9, 5), np.uint8), "has 5 bands, the model takes 3"),
    "bands first": (np.zeros((3, 9, 8), np.uint8), r"has 8 bands[\s\S]*arrays as \(H, W, C\)"),
    "dtype": (np.zeros((9, 9, 3), np.float32), "has float32 values, the training images have uint8"),
    "words": (np.full((9, 9, 3), "x"), "has <U1 values"),
    "complex": (np.zeros((9, 9, 3), complex), "has complex128 values"),
    "masked": (np.ma.zeros((9, 9, 3)), "is a masked array"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit_are_refused_with_a_remedy(tmp_path, name):
    predictor = load(make_bundle(tmp_path / "bundle", input={"dtype": "uint8"}))
    image, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        predictor.predict(image)
    assert caught.value.remedy


def test_a_mask_of_another_size_and_a_mask_for_a_file_are_refused(bundle, tmp_path):
    predictor = load(bundle)
    with pytest.raises(DataError, match=r"valid has shape \(9, 8\), the image \(9, 9\)"):
        predictor.predict(np.zeros((9, 9, 3), np.uint8), np.ones((9, 8), bool))
    with pytest.raises(DataError, match=r"p\.tif: a mask is given for a file"):
        predictor.predict(tmp_path / "p.tif", np.ones((9, 9), bool))


def test_tile_and_overlap_come_from_the_bundle_and_unknown_settings_are_named(bundle, tmp_path):
    assert (load(bundle).settings.tile, load(bundle).settings.overlap) == (64, 32)
    assert load(make_bundle(tmp_path / "big", tile=512)).settings.overlap == 64
    assert load(bundle, tile=96).settings.overlap == 48
    assert load(bundle, tile=96, overlap=64).settings.overlap == 48, "the default, which params.yaml writes"
    with pytest.raises(ParamsError, match=r"overlap 60 is more than half"):
        load(bundle, tile=96, overlap=60)
    with pytest.raises(
        ParamsError,
        match=r"tiel[\s\S]*known settings: accept, blend, count_by, flips, min_area, objects, outputs",
    ):
        load(bundle, tiel=96)


def test_the_names_of_the_package_are_those_of_its_modules():
    assert segcore.load is load and segcore.load_bundle is load_bundle
    assert set(segcore.__all__) <= set(dir(segcore))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        segcore.nothing  # noqa: B018
    assert Path(segcore.__file__).with_name("py.typed").is_file()
