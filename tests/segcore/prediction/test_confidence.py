"""The output `confidence`, and the colour table of 3D Slicer beside volumes."""

import nibabel
import numpy as np
import pytest
import rasterio

from segcore.data.volumes import from_planes
from segcore.errors import ModelError
from segcore.io.images import open_source
from segcore.params import Predict
from segcore.prediction.predictor import Predictor, load
from segcore.prediction.writers.cog import PROBABILITY_STEPS
from tests.support.bundles import FACTS, make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import write_nifti

T = 2.5


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A bundle with a temperature; its weights are those of the fixture `bundle`."""
    return make_bundle(tmp_path_factory.mktemp("calibrated") / "unet-0", calibration={"temperature": T})


def scaled(probabilities: np.ndarray) -> np.ndarray:
    """Highest probability after temperature scaling, by its definition."""
    powers = probabilities.astype(np.float64) ** (1 / T)
    return powers.max(0) / np.maximum(powers.sum(0), 1e-9)


@pytest.mark.parametrize("settings", [{}, {"blend": "logits"}, {"flips": True}])
def test_confidence_is_the_highest_probability_after_temperature_scaling(calibrated, tmp_path, out, settings):
    write_tif(tmp_path / "s.tif", noise(70, 90), nodata=0)
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.write(np.zeros((3, 20, 30), np.uint8), window=rasterio.windows.Window(0, 0, 30, 20))
    predictor = load(calibrated, tile=32, overlap=8, outputs=["confidence"], **settings)
    files = predictor.predict_file(tmp_path / "s.tif", out)
    assert [file for file in files if file.endswith(".tif")] == ["s_confidence.tif"]
    made = predictor.predict(tmp_path / "s.tif")
    expected = np.where(made.valid, scaled(made.probabilities), 0)
    assert np.allclose(made.confidence, expected, atol=1e-5) and not made.valid.all()
    with rasterio.open(out / "s_confidence.tif") as file:
        values = file.read(1)
        assert (file.count, file.nodata, file.dtypes) == (1, 255, ("uint8",))
        assert file.scales == (1 / PROBABILITY_STEPS,) and file.descriptions == ("confidence",)
        assert file.tags()["TEMPERATURE"] == str(T)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert np.array_equal(values == 255, ~made.valid)
    assert np.abs(values - expected * PROBABILITY_STEPS)[made.valid].max() < 0.51


def test_confidence_of_a_network_with_touching_objects_is_of_the_classes(tmp_path, out):
    folder = make_bundle(tmp_path / "b", touching=True, calibration={"temperature": T})
    write_tif(tmp_path / "s.tif", noise(70, 90))
    predictor = load(folder, tile=32, overlap=8, outputs=["confidence"])
    predictor.predict_file(tmp_path / "s.tif", out)
    made = predictor.predict(tmp_path / "s.tif")
    with rasterio.open(out / "s_confidence.tif") as file:
        assert np.abs(file.read(1) - scaled(made.probabilities) * PROBABILITY_STEPS).max() < 0.51


def test_a_temperature_changes_neither_classes_nor_probabilities(bundle, calibrated, tmp_path, out):
    write_tif(tmp_path / "s.tif", noise(70, 90))
    outputs = ["classes", "probabilities"]
    load(bundle, tile=32, overlap=8, outputs=outputs).predict_file(tmp_path / "s.tif", out, "plain")
    files = load(calibrated, tile=32, overlap=8, outputs=[*outputs, "confidence"]).predict_file(
        tmp_path / "s.tif", out, "s"
    )
    rasters = [file for file in files if file.endswith(".tif")]
    assert rasters == ["s.tif", "s_confidence.tif", "s_probabilities.tif"]
    for suffix in (".tif", "_probabilities.tif"):
        with rasterio.open(out / f"plain{suffix}") as plain, rasterio.open(out / f"s{suffix}") as other:
            assert np.array_equal(plain.read(), other.read())


def test_confidence_of_a_volume_is_scaled_nifti_on_its_grid(tmp_path, out):
    folder = make_bundle(tmp_path / "b", bands=1, calibration={"temperature": T})
    write_nifti(tmp_path / "v.nii.gz", noise(40, 33, 5, seed=1).transpose(1, 2, 0))
    predictor = load(folder, tile=32, overlap=8, outputs=["classes", "confidence"])
    files = predictor.predict_file(tmp_path / "v.nii.gz", out)
    assert files == ["v.nii.gz", "v.ctbl", "v_confidence.nii.gz"]
    source, made = nibabel.load(tmp_path / "v.nii.gz"), nibabel.load(out / "v_confidence.nii.gz")
    assert made.shape == source.shape and np.array_equal(made.affine, source.affine)
    assert made.header.get_data_dtype() == np.uint8
    with open_source(tmp_path / "v.nii.gz") as volume:
        expected = from_planes(predictor.predict(tmp_path / "v.nii.gz").confidence, volume.info)
    assert np.abs(made.get_fdata() - expected).max() < 0.51 / PROBABILITY_STEPS


@pytest.mark.parametrize(
    ("facts", "words"),
    [({}, "older version"), ({"architecture": "solo"}, "instance network")],
)
def test_a_bundle_without_a_temperature_has_no_confidence(tmp_path, facts, words):
    folder = make_bundle(tmp_path / "b", **facts)
    with pytest.raises(ModelError, match=words) as caught:
        load(folder, outputs=["confidence"])
    assert "choose other predict.outputs" in caught.value.remedy
    assert load(folder).temperature is None


def test_a_volume_has_a_colour_table_that_slicer_reads(tmp_path, out):
    names = ["back ground", "left  ventricle", "blut\u00e4hnlich"]
    folder = make_bundle(tmp_path / "b", bands=1, classes=names)
    write_nifti(tmp_path / "v.nii.gz", noise(40, 33, 5).transpose(1, 2, 0))
    files = Predictor(folder, Predict(tile=32, overlap=8)).predict_file(tmp_path / "v.nii.gz", out)
    assert files == ["v.nii.gz", "v.ctbl"]
    lines = [x for x in (out / "v.ctbl").read_text("utf-8").splitlines() if not x.startswith("#")]
    rows = [line.split() for line in lines]
    assert [len(row) for row in rows] == [6] * 4
    shown = [row[1].replace("_", " ") for row in rows]
    assert shown == ["back ground", "left ventricle", "blut\u00e4hnlich", "no data"]
    assert [[int(v) for v in row[2:]] for row in rows] == [
        *([*color, 255 * (i > 0)] for i, color in enumerate(FACTS["colors"])),
        [0, 0, 0, 0],
    ]
    assert [row[0] for row in rows] == ["0", "1", "2", "255"]
