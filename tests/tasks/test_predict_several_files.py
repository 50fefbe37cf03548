"""Scenes whose bands are in files of their own are predicted as the images of the training were read."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import rasterio
import yaml
from PIL import Image

from segcore.errors import ParamsError, StageError
from segcore.io.layouts._scenes import scenes_of
from segcore.params import load
from segcore.prediction.predictor import Predictor
from tasks.predict import run_prediction
from tasks.train import _files_of
from tests.support.bundles import make_bundle, noise, rewrite
from tests.support.tiny import params_for, values_for, write_tif

PATTERNS = [f"images/{{tile}}_B0{i}.tif" for i in range(3)]


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in sorted(names)]


def scenes(paths, **data):
    found = scenes_of(paths, params_for(".", data=data).data)
    return {path.name: [channel.name for channel in files] for path, files in found.items()}


def test_files_are_grouped_by_the_last_folders_of_the_patterns(tmp_path):
    names = [f"T{t}_B0{i}.tif" for t in range(2) for i in range(3)]
    expected = {f"T{t}_B00.tif": [f"T{t}_B01.tif", f"T{t}_B02.tif"] for t in range(2)}
    for folder in ("flat", "deep/images"):
        paths = touch(tmp_path, *(f"{folder}/{name}" for name in names))
        assert scenes(paths, images=PATTERNS) == expected
        assert scenes(paths[:1], images=PATTERNS) == {"T0_B00.tif": expected["T0_B00.tif"]}


def test_bands_may_be_in_folders_of_their_own_or_in_one(tmp_path):
    patterns = ["R10m/{t}_B02_10m.jp2", "R20m/{t}_B05_*.jp2"]
    for first, second in (("new/R10m", "new/R20m"), ("all", "all")):
        paths = touch(tmp_path, f"{first}/X_B02_10m.jp2", f"{second}/X_B05_20m.jp2")
        assert scenes(paths, images=patterns) == {"X_B02_10m.jp2": ["X_B05_20m.jp2"]}


def test_a_stack_of_all_bands_is_a_scene_and_ordinary_models_take_single_files(tmp_path):
    paths = touch(tmp_path, "stack.tif", "a/T0_B00.tif", "a/T0_B01.tif", "a/T0_B02.tif")
    assert scenes(paths, images=PATTERNS) == {"stack.tif": [], "T0_B00.tif": ["T0_B01.tif", "T0_B02.tif"]}
    assert scenes(paths, images="images/*.tif") == {path.name: [] for path in paths}
    paths = touch(tmp_path / "b", "x.tif")
    assert scenes(paths, images=["rgb/*.tif", "nir/*.tif"]) == {"x.tif": []}


def test_channels_of_nnunet_are_numbered(tmp_path):
    paths = touch(tmp_path, "c1_0000.nii.gz", "c1_0001.nii.gz", "c2_0000.nii.gz", "c3.nii.gz")
    expected = {"c1_0000.nii.gz": ["c1_0001.nii.gz"], "c2_0000.nii.gz": [], "c3.nii.gz": []}
    assert scenes(paths, layout="nnunet") == expected


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, a bundle for three bands, and a scene as one file and as a file for each band."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values_for("source")))
    make_bundle(tmp_path / "bundle", input={"images": PATTERNS, "dtype": "uint8"})
    pixels = noise(70, 90)
    write_tif(tmp_path / "stack/T0.tif", pixels)
    for i, band in enumerate(pixels):
        write_tif(tmp_path / f"scenes/T0_B0{i}.tif", band[None])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_scene_in_several_files_is_predicted_as_one_file_is(project):
    assert run_prediction(load(), ["stack", "scenes"], "bundle", Path("out"))["predicted"] == 2
    with rasterio.open("out/T0.tif") as one, rasterio.open("out/T0_B00.tif") as several:
        assert np.array_equal(one.read(), several.read()) and one.transform == several.transform
        assert len(np.unique(one.read())) > 1
    assert sorted(p.name for p in Path("out").glob("*.tif")) == ["T0.tif", "T0_B00.tif"]
    assert run_prediction(load(), ["scenes"], "bundle", Path("out")) == {"predicted": 0, "done before": 1}


def test_a_scene_is_predicted_again_when_a_further_band_changes(project):
    run_prediction(load(), ["scenes"], "bundle", Path("out"))
    write_tif(Path("scenes/T0_B02.tif"), noise(70, 90, seed=8)[:1])
    assert run_prediction(load(), ["scenes/*.tif"], "bundle", Path("out"))["predicted"] == 1


def test_no_band_of_a_scene_is_overwritten(project):
    Path("bands").mkdir()
    Image.fromarray(noise(70, 90)[0]).save("bands/T0.png")
    for i in (1, 2):
        Path(f"scenes/T0_B0{i}.tif").rename(f"bands/{('T0', 'T0_x')[i - 1]}.tif")
    rewrite(Path("bundle"), lambda d: d["input"].update(images=["{t}.png", "{t}.tif", "{t}_x.tif"]))
    with pytest.raises(ParamsError, match=r"the prediction of T0.png would overwrite a scene"):
        run_prediction(load(), ["bands/T0.png"], "bundle", Path("bands"))


def test_a_missing_band_is_the_error_of_its_scene(project):
    Path("scenes/T0_B01.tif").unlink()
    with pytest.raises(StageError, match=r"(?s)1 of 1 scenes failed.*T0_B01.tif"):
        run_prediction(load(), ["scenes/T0_B00.tif"], "bundle", Path("out"))
    record = json.loads(Path("out/predictions.json").read_text())["scenes"]
    assert [Path(scene).name for scene in record] == ["T0_B00.tif"]


def test_volumes_in_several_files_are_predicted_as_one(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", bands=2, input={"layout": "nnunet"})
    values = noise(40, 50, 6).reshape(3, 2, 40, 50).astype(np.int16).T
    affine = np.diag([1.0, 1, 3, 1])
    nibabel.Nifti1Image(np.moveaxis(values, 2, 3), affine).to_filename(tmp_path / "both.nii.gz")
    for i in range(2):
        nibabel.Nifti1Image(values[:, :, i], affine).to_filename(tmp_path / f"c_000{i}.nii.gz")
    predictor = Predictor(bundle)
    several = predictor.predict(tmp_path / "c_0000.nii.gz", channels=[tmp_path / "c_0001.nii.gz"])
    assert np.array_equal(several.classes, predictor.predict(tmp_path / "both.nii.gz").classes)


@pytest.mark.parametrize(
    ("data", "stored"),
    [({}, set()), ({"images": PATTERNS}, {"images"}), ({"layout": "nnunet"}, {"layout"})],
)
def test_a_bundle_has_the_patterns_of_its_images_only_where_they_are_several(data, stored):
    assert _files_of(params_for(".", data=data)) == stored
