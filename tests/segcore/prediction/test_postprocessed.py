"""Predictions after the post-processing of model.json, as arrays and files of any size."""

from pathlib import Path

import nibabel
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.inference.postprocess import Postprocess
from segcore.models.base.bundle import read_bundle
from segcore.objects import canvas
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import make_bundle, noise
from tests.support.tiny import write_tif
from tests.support.volumes import write_nifti

ENTRY = {
    "background": 0,
    "steps": [
        {"operation": "min_area", "class_index": 1, "area": 60},
        {"operation": "holes", "class_index": 2, "area": 0},
    ],
}
STEPS = Postprocess.of({"postprocess": ENTRY})


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> tuple[Path, Path]:
    """A bundle without post-processing, and the same one with it."""
    root = tmp_path_factory.mktemp("bundles")
    return make_bundle(root / "plain"), make_bundle(root / "changed", postprocess=ENTRY)


def test_files_and_arrays_have_the_steps_applied_to_the_whole_picture(bundles, tmp_path, out, monkeypatch):
    # bands of few rows, as in a scene that is larger than memory
    monkeypatch.setattr(canvas, "_PIXELS", 333 * 7)
    pixels = noise(150, 333)
    pixels[:, 20:60, 100:200] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    settings = Predict(tile=96, overlap=32, outputs=("classes", "probabilities", "polygons"))
    made = {}
    for bundle in bundles:
        predictor = Predictor(bundle, settings)
        assert predictor.predict_file(tmp_path / "scene.tif", out, bundle.name)[0] == f"{bundle.name}.tif"
        for kind in ("", "_probabilities"):
            with rasterio.open(out / f"{bundle.name}{kind}.tif") as source:
                made[bundle.name + kind] = source.read()
        array = predictor.predict(tmp_path / "scene.tif")
        np.testing.assert_array_equal(array.classes, made[bundle.name][0])
    plain, changed = made["plain"][0], made["changed"][0]
    expected = STEPS.applied(plain, plain != IGNORE)
    assert (plain != expected).sum() > 100 and (plain == IGNORE).sum() == 4000
    np.testing.assert_array_equal(changed, expected)
    np.testing.assert_array_equal(made["plain_probabilities"], made["changed_probabilities"])
    assert not [path for path in out.iterdir() if path.suffix == ".part"]
    # polygons are those of the class map
    _, _, shapes, (values, _) = pyogrio.raw.read(out / "changed.gpkg", layer="classes")
    areas = shapely.area(shapely.from_wkb(shapes))
    with rasterio.open(out / "changed.tif") as source:
        pixel = abs(source.transform.determinant)
    for index in (1, 2):
        assert areas[values == index].sum() / pixel == pytest.approx((changed == index).sum())


def test_planes_of_a_volume_are_processed_one_by_one(tmp_path, out):
    plain_one = make_bundle(tmp_path / "plain", bands=1)
    folders = plain_one, make_bundle(tmp_path / "new", bands=1, postprocess=ENTRY)
    settings = Predict(tile=48, overlap=8)
    write_nifti(tmp_path / "v.nii.gz", noise(40, 48, 5).transpose(1, 2, 0))
    plain, changed = (Predictor(f, settings).predict(tmp_path / "v.nii.gz").classes for f in folders)
    expected = np.stack([STEPS.applied(plane, plane != IGNORE) for plane in plain])
    np.testing.assert_array_equal(changed, expected)
    assert (plain != changed).any(axis=(1, 2)).all()
    volumes = []
    for folder in folders:
        Predictor(folder, settings).predict_file(tmp_path / "v.nii.gz", out, folder.name)
        volumes.append(np.asarray(nibabel.load(out / f"{folder.name}.nii.gz").dataobj))
    assert (volumes[0] != volumes[1]).sum() == (plain != changed).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background": 3}, "there is no class 3"),
        ({"steps": [{"operation": "holes", "class_index": 7}]}, "there is no class 7"),
        ({"steps": [{"operation": "erode", "class_index": 1}]}, "postprocess.steps.0.operation"),
    ],
)
def test_an_impossible_entry_is_refused(tmp_path, change, message):
    folder = make_bundle(tmp_path / "b", postprocess=ENTRY | change)
    with pytest.raises(ModelError, match=message):
        read_bundle(folder)
