"""Scenes that do not fit the training images are refused with both values, accepted, or resampled."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from segcore.data.raster import Info
from segcore.data.resampling import filtered_window, needed_window
from segcore.data.resolution import ground_resolution
from segcore.data.value_facts import value_facts, value_ranges
from segcore.errors import DataError, ModelError
from segcore.io.bands import Declared
from segcore.io.images import open_source
from segcore.params import Data, Predict
from segcore.prediction.predictor import Predictor
from segcore.prediction.resampling import Resampled
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import write_nifti


def facts(bands: int = 3, factor: float = 1.0, **sizes: list[float]) -> dict[str, Any]:
    """Facts of four training images of `noise`."""
    images = [np.moveaxis(noise(64, 64, bands, seed), 0, -1).reshape(-1, bands) * factor for seed in range(4)]
    names = {name.replace("_", ": "): limits for name, limits in sizes.items()}
    return {"values": value_ranges([value_facts(v) for v in images]), "pixel_sizes": names}


def predicted(bundle: Path, scene: Path, out: Path, **settings: Any) -> tuple[np.ndarray, list[Any]]:
    notes: list[Any] = []
    predictor = Predictor(bundle, Predict(tile=64, overlap=16, **settings))
    name, *_ = predictor.predict_file(scene, out, notes=notes.extend)
    with rasterio.open(out / name) as made:
        return made.read(1), notes


def test_a_scene_in_other_units_is_refused_with_both_ranges_and_can_be_accepted(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", input={"dtype": "uint16"}, training_images=facts(factor=40.0))
    write_tif(tmp_path / "scene.tif", noise(90, 80, seed=9).astype(np.float32) * 40 / 10_000)
    message = r"scene\.tif: its values \(band 1: 0\.0\d+ to [\s\S]*training images \(band 1: 120 to 10160"
    with pytest.raises(DataError, match=message) as caught:
        predicted(bundle, tmp_path / "scene.tif", out)
    assert "predict.accept: [range]" in caught.value.remedy
    assert not any(out.iterdir())
    classes, notes = predicted(bundle, tmp_path / "scene.tif", out, accept=["range"])
    assert classes.shape == (90, 80)
    assert [kind for kind, _ in notes] == ["other-range"]


def test_the_data_type_alone_is_no_reason_to_refuse_a_scene(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", input={"dtype": "uint8"}, training_images=facts())
    pixels = noise(90, 80, seed=9)
    found = {}
    for dtype in ("uint8", "uint16", "float32"):
        write_tif(tmp_path / f"{dtype}.tif", pixels.astype(dtype))
        found[dtype], notes = predicted(bundle, tmp_path / f"{dtype}.tif", out)
        assert notes == []
    assert np.array_equal(found["uint8"], found["uint16"])
    assert np.array_equal(found["uint8"], found["float32"])


def test_models_that_scale_each_image_take_values_of_any_unit(tmp_path, out):
    facts_of = facts(factor=1 / 255)
    bundle = make_bundle(
        tmp_path / "bundle", input={"scale": "item", "dtype": "float32"}, training_images=facts_of
    )
    write_tif(tmp_path / "scene.tif", noise(64, 64).astype(np.float32) * 900)
    assert predicted(bundle, tmp_path / "scene.tif", out)[1] == []


def test_values_of_a_large_scene_are_sampled_in_all_its_parts(tmp_path, out):
    """A scene with a sound corner and other units elsewhere is refused, as is one with much nodata."""
    bundle = make_bundle(tmp_path / "bundle", input={"dtype": "float32"}, training_images=facts())
    pixels = noise(1500, 1500).astype(np.float32) / 255
    pixels[:, :100, :100] *= 255
    write_tif(tmp_path / "scene.tif", pixels, tiled=True, blockxsize=128, blockysize=128)
    with pytest.raises(DataError, match="units"):
        predicted(bundle, tmp_path / "scene.tif", out)
    pixels = noise(600, 600).astype(np.float32)
    pixels[:, 40:] = -9999
    write_tif(tmp_path / "nodata.tif", pixels, nodata=-9999)
    assert predicted(bundle, tmp_path / "nodata.tif", out)[1] == []


def test_a_description_of_values_of_other_bands_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", training_images=facts(bands=2))
    with pytest.raises(ModelError, match=r"in_channels does not fit training_images\.values"):
        Predictor(bundle)


@pytest.mark.parametrize(
    ("crs", "transform", "wanted"),
    [
        ("EPSG:32633", (10, 0, 5e5, 0, -10, 5e6), 10),
        ("EPSG:32633", (0, 10, 5e5, 10, 0, 5e6), 10),
        # stretched by 1 / cos(latitude), 60 degrees here
        ("EPSG:3857", (10, 0, 1e6, 0, -10, 8.4e6), 5),
        ("EPSG:4326", (1e-4, 0, 15, 0, -1e-4, 60), 11.12 * 0.5**0.5),
        ("EPSG:4326", (1e-4, 0, 179.999, 0, -1e-4, 0), 11.12),
        # feet
        ("EPSG:2263", (10, 0, 1e6, 0, -10, 2e5), 3.048),
    ],
)
def test_the_size_of_a_pixel_is_that_on_the_ground(crs, transform, wanted):
    found = ground_resolution(Info(64, 64, 1, "uint8", crs=crs, transform=transform))
    assert found == pytest.approx(wanted, rel=0.01)


def test_control_points_give_the_size_of_a_pixel():
    points = tuple(
        (row, col, 15 + col * 1e-4, 45 - row * 1e-4, 0.0) for row in (0.0, 32.0, 64.0) for col in (0.0, 64.0)
    )
    info = Info(64, 64, 1, "uint8", gcps=points, gcps_crs="EPSG:4326")
    assert ground_resolution(info) == pytest.approx(11.12 * 0.5**0.25, rel=0.01)
    assert ground_resolution(replace(info, gcps_crs=None)) is None


def test_pictures_without_a_position_have_no_size_on_the_ground():
    assert ground_resolution(Info(64, 64, 1, "uint8")) is None
    assert ground_resolution(Info(64, 64, 1, "uint8", transform=(1, 0, 0, 0, -1, 0))) is None


@pytest.mark.parametrize(
    ("metres", "is_refused"), [(0.2, True), (6.5, True), (6.8, False), (14, False), (18, True)]
)
def test_a_scene_of_another_resolution_is_refused_with_both_values(tmp_path, out, metres, is_refused):
    bundle = make_bundle(tmp_path / "bundle", training_images=facts(m=[10.0, 10.0, 11.0]))
    write_tif(tmp_path / "scene.tif", noise(64, 64), transform=from_origin(5e5, 5e6, metres, metres))
    if not is_refused:
        assert predicted(bundle, tmp_path / "scene.tif", out)[1] == []
        return
    with pytest.raises(DataError, match=rf"{metres:g} m, that of the training images 10 m") as caught:
        predicted(bundle, tmp_path / "scene.tif", out)
    for setting in ("predict.resample: true", "predict.accept: [resolution]"):
        assert setting in caught.value.remedy
    kinds = [kind for kind, _ in predicted(bundle, tmp_path / "scene.tif", out, accept=["resolution"])[1]]
    assert kinds == ["other-resolution"]


def test_nothing_is_compared_where_scene_or_training_images_have_no_resolution(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", training_images=facts(m=[10.0, 10.0, 10.0]))
    Image.fromarray(np.moveaxis(noise(64, 64), 0, -1)).save(tmp_path / "scene.png")
    assert predicted(bundle, tmp_path / "scene.png", out)[1] == []
    plain = make_bundle(tmp_path / "plain", training_images=facts())
    write_tif(tmp_path / "scene.tif", noise(64, 64))
    assert predicted(plain, tmp_path / "scene.tif", out)[1] == []


@pytest.mark.parametrize(
    ("spacing", "message"),
    [
        ((1, 1, 1), None),
        ((1, 1, 1.4), None),
        ((0.5, 0.5, 1), "distance of its rows is 0.5 mm, that of the training images 1 mm"),
        ((1, 1, 5), "distance of its planes is 5 mm, that of the training images 1 mm"),
    ],
)
def test_volumes_of_another_spacing_are_refused(tmp_path, out, spacing, message):
    one = [1.0, 1.0, 1.0]
    trained = {**facts(1), "pixel_sizes": {f"mm: {axis}": one for axis in ("planes", "rows", "columns")}}
    bundle = make_bundle(tmp_path / "bundle", bands=1, training_images=trained)
    values = np.moveaxis(np.stack([noise(24, 32, 1, seed)[0] for seed in range(6)]), 0, -1)
    write_nifti(tmp_path / "v.nii.gz", values, np.diag([*spacing, 1]))
    predictor = Predictor(bundle, Predict(tile=32, overlap=8))
    if message is None:
        assert predictor.predict_file(tmp_path / "v.nii.gz", out) == ["v.nii.gz", "v.ctbl"]
        return
    with pytest.raises(DataError, match=message):
        predictor.predict_file(tmp_path / "v.nii.gz", out)
    resampled = Predictor(bundle, Predict(tile=32, overlap=8, resample=True))
    assert resampled.predict_file(tmp_path / "v.nii.gz", out) == ["v.nii.gz", "v.ctbl"]
    assert np.array_equal(
        resampled.predict(tmp_path / "v.nii.gz").classes.shape, (6, 24, 32)[0:0] or (6, 32, 24)
    )


@pytest.mark.parametrize(
    ("old", "new"), [(100, 20), (100, 33), (40, 100), (37, 37), (5, 1), (1, 4), (700, 300), (90, 400)]
)
def test_the_filter_is_that_of_pillow(old, new):
    values = np.random.default_rng(0).random((old, old + 3), np.float32)
    steps, size = (old / new, (old + 3) / new), values.shape
    assert needed_window((0, 0, new, new), steps, size) == (0, 0, *size)
    found = filtered_window(values, (0, 0, new, new), steps, size)
    wanted = np.asarray(Image.fromarray(values).resize((new, new), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("step", [0.3, 2.6])
@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
def test_windows_of_a_resampled_scene_are_parts_of_the_whole(tmp_path, monkeypatch, step, profile):
    """In pieces of any size, and without influence of invalid pixels."""
    monkeypatch.setattr("segcore.prediction.resampling._PIECE", 300)
    pixels = noise(70, 90)
    write_tif(tmp_path / "scene.tif", pixels, **profile)
    pixels[:, 10:25, 30:60] = 0
    write_tif(tmp_path / "nodata.tif", pixels, nodata=0, **profile)
    data = Data(
        name="x",
        source="",
        classes=["a", "b"],
        colors=[(0, 0, 0), (1, 1, 1)],
        label_values={},
        background=None,
    )
    with open_source(tmp_path / "scene.tif") as plain, open_source(tmp_path / "nodata.tif") as holed:
        scene = Resampled(Declared(plain, data, "scene"), (1, step, step))
        height, width = scene.info.height, scene.info.width
        whole, valid = scene.read((0, 0, height, width))
        assert valid.all()
        for band, values in zip(noise(70, 90), whole, strict=True):
            image = Image.fromarray(band.astype(np.float32)).resize(
                (width, height), Image.Resampling.BILINEAR
            )
            np.testing.assert_allclose(values, np.asarray(image), atol=1e-3)
        part, _ = scene.read((5, 7, 11, 13))
        np.testing.assert_allclose(part, whole[:, 5:16, 7:20], atol=1e-3)
        other, valid = Resampled(Declared(holed, data, "nodata"), (1, step, step)).read((0, 0, height, width))
        inner = (
            slice(round(12 / step) + 1, round(23 / step) - 1),
            slice(round(32 / step) + 1, round(58 / step) - 1),
        )
        assert not valid[inner].any()
        assert valid.mean() > 0.8
        # means of valid pixels alone: never darker than the darkest of them
        assert other[:, valid].min() >= pixels[:, 30:].min() - 1e-3


@pytest.mark.parametrize(
    ("metres", "blend"), [(2.0, "probabilities"), (2.0, "logits"), (25.0, "probabilities")]
)
def test_a_resampled_scene_is_predicted_as_one_of_the_training_resolution(tmp_path, out, metres, blend):
    """At 2 m, squares of 5 x 5 pixels are the pixels of a scene of 10 m; at 25 m, a pixel is 2.5 x 2.5."""
    # on the ground: this projection shrinks lengths by 0.04 %
    trained = ground_resolution(Info(64, 64, 3, "uint8", "EPSG:32633", (10, 0, 5e5, 0, -10, 5e6)))
    bundle = make_bundle(tmp_path / "bundle", training_images=facts(m=[trained] * 3))
    step = 10 / metres
    coarse = noise(200, 150, seed=3)[:, ::2, ::2]
    pixels = coarse.repeat(5, axis=1).repeat(5, axis=2) if step > 1 else coarse
    pixels[:, :20, :30] = 0
    transform = from_origin(5e5, 5e6, metres, metres)
    write_tif(tmp_path / "scene.tif", pixels, transform=transform, nodata=0)
    found, notes = predicted(bundle, tmp_path / "scene.tif", out, resample=True, blend=blend)
    assert [kind for kind, _ in notes] == ["resampled"]
    assert found.shape == pixels.shape[1:]
    with rasterio.open(out / "scene.tif") as made:
        assert made.transform == transform
    assert np.array_equal(found == 255, (pixels == 0).all(axis=0))
    # the independent way: Pillow resamples the scene, and the predictor takes the array as it is
    size = (round(pixels.shape[2] / step), round(pixels.shape[1] / step))
    arrays = [
        Image.fromarray(band.astype(np.float32)).resize(size, Image.Resampling.BILINEAR) for band in pixels
    ]
    valid = Image.fromarray((pixels != 0).any(0).astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    share = np.maximum(np.asarray(valid), 1e-6)
    wanted = Predictor(bundle, Predict(tile=64, overlap=16, blend=blend)).predict(
        np.stack([np.asarray(a) / share for a in arrays], axis=-1), valid=np.asarray(valid) > 1e-5
    )
    back = [
        np.asarray(Image.fromarray(p).resize(found.shape[::-1], Image.Resampling.BILINEAR))
        for p in (np.log(wanted.probabilities + 1e-30) if blend == "logits" else wanted.probabilities)
    ]
    inside = (found != 255) & (np.indices(found.shape)[0] > 40)
    assert np.mean(found[inside] == np.argmax(back, axis=0)[inside]) > 0.999
    whole = Predictor(bundle, Predict(tile=64, overlap=16, blend=blend, resample=True)).predict(
        tmp_path / "scene.tif"
    )
    assert np.array_equal(whole.classes, found)
    np.testing.assert_allclose(whole.probabilities.sum(0)[whole.valid], 1, atol=1e-4)


def test_neighbouring_planes_are_taken_at_the_distance_of_the_training_volumes(tmp_path, out):
    """Trained at 2 mm with one neighbour on each side, a volume of 1 mm is predicted with every second plane."""
    sizes = {"mm: planes": [2.0, 2.0, 2.0], "mm: rows": [1.0] * 3, "mm: columns": [1.0] * 3}
    trained = {**facts(1), "pixel_sizes": sizes}
    bundle = make_bundle(
        tmp_path / "bundle", bands=3, input={"neighbours": 1, "slices": 2}, training_images=trained
    )
    values = np.moveaxis(np.stack([noise(32, 32, 1, seed)[0] for seed in range(9)]), 0, -1)
    write_nifti(tmp_path / "fine.nii.gz", values, np.eye(4))
    write_nifti(tmp_path / "coarse.nii.gz", values[..., ::2], np.diag([1.0, 1, 2, 1]))
    fine = Predictor(bundle, Predict(tile=32, overlap=8, resample=True)).predict(tmp_path / "fine.nii.gz")
    coarse = Predictor(bundle, Predict(tile=32, overlap=8)).predict(tmp_path / "coarse.nii.gz")
    np.testing.assert_allclose(fine.probabilities[:, 2:8:2], coarse.probabilities[:, 1:4], atol=1e-5)
