"""Prediction of scenes to files: on the grid of the scene, with its nodata, complete or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
import torch
from PIL import Image, ImageOps
from rasterio.features import rasterize, shapes

from segcore.errors import ParamsError
from segcore.inference.tta import with_flips
from segcore.models.base.bundle import load_bundle
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.prediction.writers.cog import PROBABILITY_STEPS
from segcore.prediction.writers.polygons import polygons
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import affine_for, write_nifti, write_series

ALL = ("classes", "probabilities", "polygons")
ROOT = Path(__file__).parents[3]


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read()


def whole(bundle: Path, pixels: np.ndarray) -> np.ndarray:
    """(K, H, W) probabilities of a scene predicted in one piece."""
    return load_bundle(bundle).predict(torch.from_numpy(pixels.astype(np.float32))[None])[0].numpy()


def test_flips_are_those_of_the_evaluation_and_refused_for_a_model_trained_without(bundle, tmp_path, out):
    pixels = noise(64, 96)
    write_tif(tmp_path / "scene.tif", pixels)
    settings = Predict(tile=96, overlap=32, outputs=("probabilities",), flips=True)
    Predictor(bundle, settings).predict_file(tmp_path / "scene.tif", out, "scene")
    flipped = with_flips(load_bundle(bundle), True)
    expected = flipped.predict(torch.from_numpy(pixels.astype(np.float32))[None])[0].numpy()
    assert np.abs(read(out / "scene_probabilities.tif") / PROBABILITY_STEPS - expected).max() < 0.01
    assert np.abs(expected - whole(bundle, pixels)).max() > 0.01
    unflipped = make_bundle(tmp_path / "unet-0", parameters={"precision": "fp32", "augment": {"flip": False}})
    with pytest.raises(ParamsError, match=r"^predict\.flips .*trained without flips") as caught:
        Predictor(unflipped, settings)
    assert caught.value.remedy == "set predict.flips to false"


def test_crs_transform_size_and_nodata_are_those_of_the_input(bundle, tmp_path, out):
    pixels = noise(150, 333)
    pixels[:, 20:60, 100:200] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    files = Predictor(bundle, Predict(tile=96, overlap=32, outputs=ALL)).predict_file(
        tmp_path / "scene.tif", out, "scene"
    )
    rasters = ["scene.tif", "scene_probabilities.tif"]
    assert files == [
        "scene.tif", "scene.qml", "scene_probabilities.tif", "scene_probabilities.qml", "scene.gpkg", "scene.stac.json",
    ]  # fmt: skip
    assert sorted(p.name for p in out.iterdir()) == sorted(files), "nothing else is left"
    for name in rasters:
        with rasterio.open(tmp_path / "scene.tif") as source, rasterio.open(out / name) as made:
            assert (made.crs, made.transform, made.shape) == (source.crs, source.transform, source.shape)
            assert (made.nodata, made.dtypes[0]) == (255, "uint8")
            assert np.array_equal(made.read_masks(1) > 0, source.read_masks(1) > 0)
    assert (read(out / "scene.tif")[0, 20:60, 100:200] == 255).all()


def test_outputs_of_a_scene_without_georeference_have_none(bundle, tmp_path, out):
    Image.fromarray(np.moveaxis(noise(50, 70), 0, -1)).save(tmp_path / "p.png")
    Predictor(bundle, Predict(tile=64, overlap=16, outputs=ALL)).predict_file(tmp_path / "p.png", out, "p")
    with rasterio.open(out / "p.tif") as made:
        assert made.crs is None and made.transform.is_identity and made.shape == (50, 70)


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("tag", [2, 3, 6, 8])
def test_a_picture_with_an_orientation_tag_is_predicted_as_viewers_show_it(
    bundle, tmp_path, out, extension, tag
):
    pixels = np.moveaxis(noise(50, 70), 0, -1)
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(tmp_path / "tagged.png", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(tmp_path / "tagged.png"))
    shown.save(tmp_path / "shown.png")
    if extension == ".tif":
        Image.fromarray(pixels).save(tmp_path / "tagged.tif", tiffinfo={0x0112: tag})
    predictor = Predictor(bundle, Predict(tile=64, overlap=16))
    notes = []
    predictor.predict_file(tmp_path / f"tagged{extension}", out, "tagged", notes=notes.extend)
    assert [(kind, text) for kind, text in notes if kind == "orientation-tag"] == [
        ("orientation-tag", f"pixels are turned as viewers show them (orientation {tag})")
    ]
    predictor.predict_file(tmp_path / "shown.png", out, "shown")
    made = read(out / "tagged.tif")
    assert made.shape[1:] == (shown.height, shown.width)
    assert np.array_equal(made, read(out / "shown.tif"))


def test_the_georeference_of_files_beside_a_picture_is_that_of_its_prediction(bundle, tmp_path, out):
    Image.fromarray(np.moveaxis(noise(50, 70), 0, -1)).save(tmp_path / "p.jpg")
    (tmp_path / "p.jgw").write_text("0.5\n0\n0\n-0.5\n400000.25\n4999999.75\n")
    (tmp_path / "p.jpg.aux.xml").write_text("<PAMDataset><SRS>EPSG:32633</SRS></PAMDataset>")
    Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / "p.jpg", out, "p")
    with rasterio.open(out / "p.tif") as made:
        assert made.crs.to_epsg() == 32633
        assert made.transform == rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)


def test_outputs_are_cogs_with_colours_names_and_overviews(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(1100, 700))
    Predictor(bundle, Predict(tile=256, overlap=32, outputs=ALL)).predict_file(
        tmp_path / "scene.tif", out, "scene"
    )
    for name in ("scene.tif", "scene_probabilities.tif"):
        with rasterio.open(out / name) as made:
            assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert made.overviews(1) and made.profile["tiled"] and made.compression.name == "deflate"
            assert len(made.tags()["MODEL_SHA256"]) == 64
    with rasterio.open(out / "scene.tif") as made:
        assert made.colormap(1)[1] == (255, 179, 0, 255) and made.colormap(1)[255][3] == 0
        assert made.tags()["CLASS_2"] == "water"
    with rasterio.open(out / "scene_probabilities.tif") as made:
        assert made.descriptions == ("background", "field", "water")
        assert np.allclose(made.scales, 1 / 254)
    with rasterio.open(out / "scene.tif", overview_level=0) as made:
        assert set(np.unique(made.read())) <= {0, 1, 2}, "labels are never interpolated"


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_classes_and_probabilities_are_those_of_the_model(bundle, tmp_path, out, blend):
    pixels = noise(90, 80)
    write_tif(tmp_path / "scene.tif", pixels)
    settings = Predict(tile=128, overlap=32, blend=blend, outputs=("classes", "probabilities"))
    Predictor(bundle, settings).predict_file(tmp_path / "scene.tif", out, "scene")
    wanted = whole(bundle, pixels)
    assert set(np.unique(wanted.argmax(0))) == {0, 1, 2}, "the test has all classes"
    assert np.mean(read(out / "scene.tif")[0] == wanted.argmax(0)) > 0.9999
    assert np.abs(read(out / "scene_probabilities.tif") / 254 - wanted).max() < 0.003


@pytest.mark.parametrize("side", [16, 50, 4096])
def test_polygons_do_not_depend_on_the_blocks(bundle, tmp_path, side):
    classes = (np.random.default_rng(0).random((90, 130)) > 0.45).astype(np.uint8)
    classes[30:60, 20:110] = 2
    classes[5:80, 70:74] = 2
    classes[:9, :9] = 255
    write_tif(tmp_path / "c.tif", classes[None])
    found = [
        (p, int(v))
        for ps, vs in polygons(tmp_path / "c.tif", [1, 2], side)
        for p, v in zip(ps, vs, strict=True)
    ]
    wanted = [(shapely.geometry.shape(g), int(v)) for g, v in shapes(classes, np.isin(classes, [1, 2]), 4)]
    assert len(found) == len(wanted)
    key = lambda pair: (pair[1], *pair[0].bounds, pair[0].area)  # noqa: E731
    for (a, i), (b, j) in zip(sorted(found, key=key), sorted(wanted, key=key), strict=True):
        assert i == j and a.equals(b)


def test_a_geopackage_has_the_foreground_in_map_coordinates(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    Predictor(bundle, Predict(tile=64, overlap=16, outputs=ALL)).predict_file(
        tmp_path / "scene.tif", out, "scene"
    )
    meta, _, blobs, (values, names) = pyogrio.raw.read(out / "scene.gpkg", layer="classes")
    assert meta["crs"] == "EPSG:32633" and set(zip(values, names, strict=True)) == {
        (1, "field"),
        (2, "water"),
    }
    with rasterio.open(out / "scene.tif") as made:
        burned = rasterize(
            zip(shapely.from_wkb(blobs), values, strict=True), made.shape, transform=made.transform
        )
        assert np.array_equal(burned, made.read(1))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR"])
def test_volumes_keep_affine_and_orientation(tmp_path, out, codes):
    bundle = make_bundle(tmp_path / "bundle", bands=1)
    values = np.random.default_rng(0).integers(0, 255, (20, 24, 9), dtype=np.uint8)
    write_nifti(tmp_path / "v.nii.gz", values, affine_for(codes))
    assert Predictor(bundle, Predict(tile=32, overlap=8)).predict_file(tmp_path / "v.nii.gz", out, "v") == [
        "v.nii.gz",
        "v.ctbl",
    ]
    source, made = nibabel.load(tmp_path / "v.nii.gz"), nibabel.load(out / "v.nii.gz")
    assert np.array_equal(made.affine, source.affine) and made.shape == source.shape
    assert set(np.unique(made.dataobj)) <= {0, 1, 2}


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (1, 20, 3)])
@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_planes_of_one_pixel_are_predicted(shape, codes, tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", bands=1)
    values = np.random.default_rng(0).integers(1, 255, shape, dtype=np.uint8)
    write_nifti(tmp_path / "v.nii.gz", values, affine_for(codes))
    Predictor(bundle, Predict(tile=32, overlap=8)).predict_file(tmp_path / "v.nii.gz", out, "v")
    assert nibabel.load(out / "v.nii.gz").shape == shape


def test_a_dicom_series_becomes_nifti(tmp_path, out):
    bundle = make_bundle(tmp_path / "bundle", bands=1)
    values = np.random.default_rng(0).integers(0, 255, (3, 24, 20), dtype=np.uint16)
    write_series(tmp_path / "series", values, Rows=24, Columns=20)
    assert Predictor(bundle, Predict(tile=32, overlap=8)).predict_file(
        tmp_path / "series", out, "series"
    ) == ["series.nii.gz", "series.ctbl"]
    assert nibabel.load(out / "series.nii.gz").shape == (20, 24, 3)


def test_pixels_are_read_as_for_training(tmp_path, out):
    bundle = make_bundle(
        tmp_path / "bundle", input={"bands": [5, 1, 3], "nodata": 7, "scale": "auto", "dtype": "uint8"}
    )
    pixels = noise(70, 60, bands=5)
    pixels[:, :10] = 7
    write_tif(tmp_path / "scene.tif", pixels)
    Predictor(bundle, Predict(tile=128, overlap=16)).predict_file(tmp_path / "scene.tif", out, "scene")
    found = read(out / "scene.tif")[0]
    assert (found[:10] == 255).all() and (found[10:] < 3).all()
    chosen = torch.from_numpy(pixels[[4, 0, 2]].astype(np.float32))[None]
    valid = torch.from_numpy((pixels != 7).any(0))[None]
    wanted = load_bundle(bundle).predict(chosen, valid)[0].numpy().argmax(0)
    assert np.mean(found[10:] == wanted[10:]) > 0.999


def test_each_image_is_scaled_separately_if_the_training_images_were(tmp_path, out):
    facts = {"scale": "item", "percentiles": [0.5, 99.5], "dtype": "float32"}
    bundle = make_bundle(tmp_path / "bundle", input=facts)
    pixels = noise(64, 64).astype(np.float32)
    for name, factor in (("a", 1.0), ("b", 900.0)):
        write_tif(tmp_path / f"{name}.tif", pixels * factor)
        Predictor(bundle, Predict(tile=64, overlap=16)).predict_file(tmp_path / f"{name}.tif", out, name)
    assert np.array_equal(read(out / "a.tif"), read(out / "b.tif"))


PEAK = """\
import resource, sys
from pathlib import Path
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
bundle, scene, out = map(Path, sys.argv[1:])
predictor = Predictor(bundle, Predict(tile=128, overlap=32, outputs=("classes", "probabilities")))
predictor.predict_file(scene, out, "scene")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_peak_memory_does_not_grow_with_the_scene(bundle, tmp_path, out, monkeypatch):
    peaks = []
    for side in (1500, 3000):
        pixels = np.zeros((3, side, side), np.uint8)
        # windows without data take no time
        pixels[:, :200, :200] = pixels[:, -200:, -200:] = 90
        write_tif(tmp_path / "scene.tif", pixels, nodata=0, tiled=True, compress="deflate")
        del pixels
        command = [sys.executable, "-c", PEAK, str(bundle), str(tmp_path / "scene.tif"), str(out)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        peaks.append(float(done.stdout))
    # the larger scene has 27 MB, as float32 108 MB, and its probabilities another 108 MB
    assert peaks[1] < 1.1 * peaks[0], peaks
