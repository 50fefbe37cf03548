"""Scenes by instance networks: exactly the objects that the network has, and all outputs from one map of numbers."""

import csv
import os

import nibabel
import numpy as np
import pyogrio.raw
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from segcore.data.prepared import LabelledImage
from segcore.data.raster import Info
from segcore.errors import ParamsError
from segcore.evaluation.predicted import Predicted, by_objects
from segcore.inference.objects import predict_objects
from segcore.inference.tta import with_flips
from segcore.params import Evaluate, Predict
from segcore.prediction import instance_store, scene_windows
from segcore.prediction.predictor import Predictor
from segcore.prediction.scene_reader import opened
from tests.support.bundles import noise
from tests.support.instance_batches import case_id, cases
from tests.support.instance_bundle import Oracle, bundle_of, make_instance_bundle, score_of
from tests.support.object_maps import scene_of
from tests.support.tiny import write_tif
from tests.support.toy_instance import Toy
from tests.support.volumes import affine_for, write_nifti

OUTPUTS = ["classes", "probabilities", "polygons", "objects", "coco", "counts"]


def settings(**more) -> Predict:
    return Predict.model_validate({"tile": 48, "overlap": 16, "outputs": OUTPUTS, **more})


def drawn(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) numbers of objects, and the class of each, 1 or 2."""
    numbers, classes = scene_of("squares", height, width, seed)
    return numbers, np.minimum(classes, 2)


def pixels_of(numbers: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return np.stack([numbers, np.append(0, classes)[numbers]]).astype(np.uint16)


def read(path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read().squeeze()


def toy(threshold: float = 128.0) -> Toy:
    """Objects are components of pixels above a threshold, of scores between .5 and 1."""
    torch.manual_seed(0)
    model = Toy(num_classes=3, foreground=(1, 2))
    model.encoder.weight.data[:] = torch.tensor([0.01, 0.005, 0.0])[:, None, None]
    model.encoder.bias.data[:] = -0.015 * threshold
    return model.eval()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Outputs of a scene with nodata, of many windows in several panels; the true numbers and classes."""
    folder = tmp_path_factory.mktemp("made")
    numbers, classes = drawn(150, 233)
    pixels = pixels_of(numbers, classes) + np.uint16(1)
    pixels[:, 20:60, 100:120] = 0
    write_tif(folder / "scene.tif", pixels, nodata=0)
    oracle = Oracle()
    oracle.set_normalization([1.0, 1.0], [1.0, 1.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_windows, "_PANEL_BYTES", 80 * 48 * 36)
        patch.setattr(instance_store, "_BLOCK", (40, 50))
        made = Predictor(bundle_of(oracle), settings())
        info = Info(150, 233, 2, "uint16")
        assert len(made._grid(info, made._columns(info)).panels) > 2
        files = made.predict_file(folder / "scene.tif", folder / "out")
    assert files == [
        "scene.tif", "scene.qml", "scene_probabilities.tif", "scene_probabilities.qml", "scene.gpkg",
        "scene_objects.tif", "scene.json", "scene_counts.csv", "scene.stac.json",
    ]  # fmt: skip
    assert sorted(p.name for p in (folder / "out").iterdir()) == sorted(files), "nothing else is left"
    return folder / "out", np.where(pixels[0] == 0, 0, numbers), classes, pixels[0] > 0


def test_a_network_that_is_right_in_each_window_is_right_in_the_scene(made):
    out, truth, classes, valid = made
    numbers = read(out / "scene_objects.tif")
    # by first pixel, which nodata can move
    present, first = np.unique(truth, return_index=True)
    order = present[present > 0][np.argsort(first[present > 0])]
    new = np.zeros(truth.max() + 1, int)
    new[order] = np.arange(1, len(order) + 1)
    assert len(order) > 10 and np.array_equal(numbers, new[truth])
    expected = np.where(valid, np.append(0, classes)[truth], 255)
    assert np.array_equal(read(out / "scene.tif"), expected)


def test_probabilities_are_the_score_of_the_object_and_the_rest_of_the_background(made):
    out, truth, classes, valid = made
    found = read(out / "scene_probabilities.tif")
    score = np.where(truth > 0, score_of(truth), 0)
    of_class = np.append(0, classes)[truth]
    expected = np.stack([1 - score, score * (of_class == 1), score * (of_class == 2)])
    assert np.array_equal(found == 255, np.broadcast_to(~valid, found.shape))
    assert np.abs(found[:, valid] / 254 - expected[:, valid]).max() < 0.003


def test_all_outputs_have_the_same_objects(made):
    out, truth, classes, _ = made
    numbers, coco = read(out / "scene_objects.tif"), COCO(out / "scene.json")
    meta, _, _, values = pyogrio.raw.read(out / "scene.gpkg", layer="objects")
    fields = dict(zip(meta["fields"], values, strict=True))
    assert sorted(fields["id"]) == sorted(coco.getAnnIds()) == list(range(1, numbers.max() + 1))
    for place, number in enumerate(fields["id"]):
        mask = numbers == number
        (old,) = np.unique(truth[mask])
        annotation = coco.anns[number]
        assert np.array_equal(coco.annToMask(annotation) > 0, mask)
        assert fields["class"][place] == annotation["category_id"] == classes[old - 1]
        assert fields["area_px"][place] == annotation["area"] == mask.sum()
        assert np.isclose(fields["score"][place], score_of(old), atol=1e-4)
    rows = list(csv.DictReader((out / "scene_counts.csv").open()))
    assert int(rows[-1]["objects"]) == numbers.max()
    assert all(int(r["low"]) < int(r["objects"]) < int(r["high"]) for r in rows), "intervals of the network"


@examples(max_examples=40, deadline=None)
@given(
    st.sampled_from(["snake", "rings", "us", "squares"]),
    st.integers(8, 90),
    st.integers(8, 90),
    st.integers(32, 70),
    st.integers(0, 35),
    st.booleans(),
)
def test_an_array_has_exactly_the_true_objects(kind, height, width, tile, overlap, is_position_dependent):
    numbers, classes = scene_of(kind, height, width, height * width)
    classes = np.minimum(classes, 2)
    chosen = settings(tile=tile, overlap=min(overlap, tile // 2), outputs=["classes"])
    predictor = Predictor(bundle_of(Oracle(is_position_dependent), tile=32), chosen)
    found = predictor.predict(pixels_of(numbers, classes).transpose(1, 2, 0))
    assert np.array_equal(found.objects.numbers(), numbers)
    assert np.array_equal(found.classes, np.append(0, classes)[numbers])
    side = 32 if is_position_dependent else tile
    least = side if is_position_dependent else 0
    assert set(predictor.model.windows) == {(min(max(height, least), side), min(max(width, least), side))}


@pytest.mark.parametrize("columns", [1, 20_000_000])
@pytest.mark.parametrize("is_position_dependent", [False, True])
def test_a_scene_has_the_objects_of_the_evaluation(
    tmp_path, out, monkeypatch, columns, is_position_dependent
):
    monkeypatch.setattr(scene_windows, "_PANEL_BYTES", columns)
    pixels = noise(100, 150)
    pixels[:, 40:50, :70] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    network = toy()
    network.is_position_dependent = is_position_dependent
    predictor = Predictor(bundle_of(network, tile=40), settings())
    predictor.predict_file(tmp_path / "scene.tif", out)
    valid = pixels.any(0)
    patch = LabelledImage(pixels.transpose(1, 2, 0), np.zeros((100, 150), np.uint8), valid)
    tile, overlap = predictor.settings.tile, predictor.settings.overlap
    assert (tile, overlap) == ((40, 16) if is_position_dependent else (48, 16))
    expected = predict_objects(predictor.model, patch, tile, overlap)
    assert len(expected) > 10 and np.array_equal(read(out / "scene_objects.tif"), expected.numbers())
    whole = predictor.predict(tmp_path / "scene.tif")
    assert np.array_equal(whole.objects.numbers(), expected.numbers())
    assert np.array_equal(whole.objects.scores, expected.scores)
    assert np.array_equal(whole.classes, read(out / "scene.tif")) and np.array_equal(whole.valid, valid)
    assert np.allclose(whole.probabilities.sum(0), valid)


@pytest.mark.parametrize("case", cases()[:-1], ids=case_id)
def test_every_network_finds_in_a_scene_what_it_finds_in_a_patch(tmp_path, out, monkeypatch, case):
    bundle = make_instance_bundle(tmp_path / "bundle", case)
    pixels = noise(100, 150)
    pixels[:, 40:50, :70] = 0
    write_tif(tmp_path / "scene.tif", pixels, nodata=0)
    predictor = Predictor(bundle, settings(tile=96))
    patch = LabelledImage(pixels.transpose(1, 2, 0), np.zeros((100, 150), np.uint8), pixels.any(0))
    with torch.inference_mode():
        expected = predict_objects(predictor.model, patch, predictor.tile, predictor.settings.overlap)
    for columns in (1, 20_000_000):
        monkeypatch.setattr(scene_windows, "_PANEL_BYTES", columns)
        predictor.predict_file(tmp_path / "scene.tif", out)
        found = read(out / "scene_objects.tif")
        assert found.max() > 0 and np.array_equal(found, expected.numbers())


def test_objects_below_the_operating_score_or_the_least_area_are_in_no_output(tmp_path, out):
    numbers, classes = drawn(90, 120)
    write_tif(tmp_path / "scene.tif", pixels_of(numbers, classes))
    areas = np.bincount(numbers.ravel())
    for more, kept in (
        ({}, score_of(numbers) >= np.float32(0.6)),
        ({"score": 0.45}, score_of(numbers) >= 0.45),
        ({"min_area": 60}, (score_of(numbers) >= np.float32(0.6)) & (areas[numbers] >= 60)),
    ):
        predictor = Predictor(bundle_of(Oracle(), score=0.6), settings(**more))
        predictor.predict_file(tmp_path / "scene.tif", out)
        expected = np.where(kept, numbers, 0)
        found = read(out / "scene_objects.tif")
        assert np.array_equal(found > 0, expected > 0) and found.max() == len(np.unique(expected)) - 1
        assert np.array_equal(read(out / "scene.tif"), np.append(0, classes)[expected])
        rows = list(csv.DictReader((out / "scene_counts.csv").open()))
        assert int(rows[-1]["objects"]) == found.max() and (rows[-1]["low"] != "") == (not more)
        array = predictor.predict(tmp_path / "scene.tif")
        assert np.array_equal(array.objects.numbers(), found)


def test_windows_overlap_by_the_side_of_most_objects_or_a_warning_says_so():
    large = {"truth": "given", "touching": False, "classes": [1, 2], "side": 40.0}
    for tile, is_dependent, overlap, words in (
        (100, False, 40, None),
        (60, False, 30, "choose a larger predict.tile"),
        (60, True, 16, "train with a larger train.common.crop"),
    ):
        bundle = bundle_of(Oracle(is_dependent), tile=32)
        bundle.description["objects"] |= large
        made = Predictor(bundle, settings(tile=tile, outputs=["classes"]))
        assert made.settings.overlap == overlap and made.settings.tile == (32 if is_dependent else tile)
        assert made.warning is None if words is None else words in made.warning


def test_flips_are_refused():
    with pytest.raises(ParamsError, match=r"^predict\.flips .*cannot be averaged") as caught:
        Predictor(bundle_of(Oracle()), settings(flips=True))
    assert caught.value.remedy == "set predict.flips to false"
    with pytest.raises(ParamsError, match=r"^evaluate\.flips: .*cannot be averaged"):
        with_flips(Oracle(), True)


def test_a_tile_without_effect_is_not_compared_with_the_overlap():
    small = settings(tile=32, overlap=20)
    made = Predictor(bundle_of(Oracle(is_position_dependent=True), tile=64), small)
    assert (made.settings.tile, made.settings.overlap) == (64, 20)
    with pytest.raises(ParamsError, match=r"predict\.overlap 20 is more than half of the window, 32"):
        Predictor(bundle_of(Oracle(), tile=64), small)


def test_settings_of_components_change_nothing(tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    made = []
    for method in ("components", "watershed", None):
        files = Predictor(bundle_of(toy()), settings(objects=method)).predict_file(
            tmp_path / "scene.tif", out
        )
        made.append({f: (out / f).read_bytes() for f in files if not f.endswith((".gpkg", ".stac.json"))})
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("codes", ["RAS", "LPS"])
def test_planes_of_a_volume_are_linked(tmp_path, out, codes):
    values = np.random.default_rng(0).integers(0, 255, (10, 12, 5), dtype=np.uint8)
    values = values.repeat(4, 0).repeat(4, 1).repeat(2, 2)
    write_nifti(tmp_path / "v.nii.gz", values, affine_for(codes))
    network = Toy(in_channels=1, num_classes=3, foreground=(1, 2))
    network.encoder.weight.data[:], network.encoder.bias.data[:] = 0.01, -1.28
    predictor = Predictor(bundle_of(network), settings(outputs=["classes", "objects", "counts"]))
    files = predictor.predict_file(tmp_path / "v.nii.gz", out, "v")
    assert files == ["v.nii.gz", "v.ctbl", "v_objects.nii.gz", "v_counts.csv"]
    found, numbers = (np.asarray(nibabel.load(out / f"v{end}.nii.gz").dataobj) for end in ("", "_objects"))
    assert np.array_equal(found, values > 128) and np.array_equal(numbers > 0, values > 128)
    first = numbers == numbers[numbers > 0][0]
    assert len(np.unique(np.nonzero(first)[2])) > 1, "objects go through planes"
    array = predictor.predict(tmp_path / "v.nii.gz")
    assert len(array.objects) == 10 and array.classes.shape[0] == 10


@pytest.mark.parametrize("kind", ["nifti", "stack"])
@pytest.mark.parametrize("min_area", [0, 60])
def test_file_array_and_evaluation_of_a_volume_have_one_class_map(tmp_path, out, kind, min_area):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 200, (16, 20, 1)) + rng.integers(0, 55, (16, 20, 6))
    values = values.astype(np.uint8).repeat(4, 0).repeat(4, 1)
    if kind == "nifti":
        path, made = tmp_path / "v.nii.gz", out / "v.nii.gz"
        write_nifti(path, values, affine_for("LPS"))
    else:
        path, made = tmp_path / "v.tif", out / "v.tif"
        first, *others = (Image.fromarray(plane) for plane in np.moveaxis(values, 2, 0))
        first.save(path, save_all=True, append_images=others)
    network, score = Toy(in_channels=1, num_classes=3, foreground=(1, 2)), 0.6
    network.encoder.weight.data[:], network.encoder.bias.data[:] = 0.02, -3.2
    chosen = settings(outputs=["classes", "objects"], min_area=min_area)
    predictor = Predictor(bundle_of(network, score, input={"pages": "planes"}), chosen)
    predictor.predict_file(path, out, "v")
    whole = predictor.predict(path)
    with opened(path, predictor.data) as volume, opened(made, predictor.data) as classes:
        planes = [volume.read(None, z).pixels for z in range(6)]
        written = np.stack([classes.read(None, z).pixels[0] for z in range(6)])
    array = predictor.predict(np.stack(planes).transpose(0, 2, 3, 1))
    assert np.array_equal(whole.classes, written) and np.array_equal(array.classes, written)
    assert np.array_equal(whole.probabilities, array.probabilities)
    evaluated = [evaluation_of(predictor.model, pixels, score) for pixels in planes]
    assert all((one.objects.scores < score).any() and one.classes.any() for one in evaluated)
    classes = np.stack([one.classes for one in evaluated])
    assert np.array_equal(np.stack([found.numbers() for found in whole.objects]) > 0, written > 0)
    if min_area:
        assert not (written > classes).any() and 0 < written.sum() < classes.sum()
    else:
        assert np.array_equal(written, classes)


def evaluation_of(model, pixels: np.ndarray, score: float) -> Predicted:
    size = pixels.shape[1:]
    patch = LabelledImage(pixels.transpose(1, 2, 0), np.zeros(size, np.uint8), np.ones(size, bool))
    return by_objects(model, patch, Evaluate(tile=48, overlap=16), "fp32", score)


@pytest.mark.parametrize("metres", [0.25, 0.5, 1.0])
def test_a_resampled_scene_has_objects_on_its_own_grid(tmp_path, out, metres):
    rows, cols = np.mgrid[:120, :160]
    discs = np.zeros((120, 160), bool)
    for row, col in ((30, 30), (60, 100), (118, 20), (90, 158)):
        discs |= (rows - row) ** 2 + (cols - col) ** 2 < 15**2
    pixels = np.where(discs, 220, 40).astype(np.uint8)[None].repeat(3, 0)
    pixels[:, 55:65, :20] = pixels[:, 40:62, 99:101] = 255
    write_tif(
        tmp_path / "scene.tif", pixels, nodata=255, transform=rasterio.Affine(metres, 0, 0, 0, -metres, 0)
    )
    facts = {"training_images": {"resolution": {"unit": "metre", "low": 0.5, "high": 0.5}}}
    predictor = Predictor(bundle_of(toy(), **facts), settings(resample=True))
    notes = []
    predictor.predict_file(tmp_path / "scene.tif", out, notes=notes.extend)
    numbers, valid = read(out / "scene_objects.tif"), (pixels != 255).all(0)
    assert numbers.max() == 4 and np.array_equal(read(out / "scene.tif") == 255, ~valid)
    assert not numbers[~valid].any()
    assert np.mean((numbers > 0) == (discs & valid)) > 0.985
    assert np.array_equal(np.unique(numbers), np.arange(5))
    whole = predictor.predict(tmp_path / "scene.tif")
    assert np.array_equal(whole.objects.numbers(), numbers)


def test_a_stop_and_a_full_disk_leave_nothing_behind(tmp_path, out, monkeypatch):
    write_tif(tmp_path / "scene.tif", noise(150, 200))
    predictor, seen = Predictor(bundle_of(toy()), settings()), []

    def predict(limit: float) -> None:
        seen.clear()

        def progress(done: int, total: int) -> None:
            seen.append((done, total))
            if len(seen) > limit:
                raise KeyboardInterrupt

        predictor.predict_file(tmp_path / "scene.tif", out, progress=progress)

    predict(np.inf)
    windows = [done for done, _ in seen]
    assert windows == sorted(windows) and windows[0] > 0 and windows[-1] == seen[0][1] == 30
    for path in out.iterdir():
        path.unlink()
    for limit in range(1, len(seen), 9):
        with pytest.raises(KeyboardInterrupt):
            predict(limit)
        assert list(out.iterdir()) == []

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("segcore.data.scratch.os.posix_fallocate", full)
    with pytest.raises(Exception, match="disk is full") as caught:
        predictor.predict_file(tmp_path / "scene.tif", out)
    assert "free disk space" in caught.value.remedy and list(out.iterdir()) == []


def test_an_empty_scene_and_one_without_objects_have_all_outputs(tmp_path, out):
    write_tif(tmp_path / "scene.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    write_tif(tmp_path / "dark.tif", np.full((3, 40, 50), 9, np.uint8), nodata=0)
    for name, value in (("scene", 255), ("dark", 0)):
        Predictor(bundle_of(toy()), settings()).predict_file(tmp_path / f"{name}.tif", out)
        assert not read(out / f"{name}_objects.tif").any()
        assert (read(out / f"{name}.tif") == value).all()
        assert COCO(out / f"{name}.json").getAnnIds() == []
