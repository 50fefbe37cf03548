"""The object table of an evaluation, from an oracle in place of a network."""

import copy
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.data.prepared import test_regions as regions_of_test
from segcore.errors import DataError
from segcore.evaluation.evaluate import evaluate
from segcore.evaluation.objects import ObjectCounts, find_settings, save_objects
from segcore.objects.components import components
from segcore.objects.find import FindSettings
from segcore.params import Params
from segcore.tables.slices import slices_of
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.object_scene import Oracle, object_scene
from tests.support.object_tables import Mask, as_objects, image, masks, table
from tests.support.tiny import params_for
from tests.support.volumes import write_nifti

ALL = FindSettings()
# ground area of a pixel of 0.5 m
AREA = 0.25


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, PreparedData, np.ndarray]:
    return object_scene(tmp_path_factory.mktemp("objects"))


def _expected(data: PreparedData, region: pd.Series, predicted: np.ndarray) -> pd.DataFrame:
    """Rows of a region by literal loops over masks."""
    part = np.s_[region.row : region.row + region.height, region.col : region.col + region.width]
    whole, patch = data._plane(region["item"], "instances"), data.read(region["id"])
    full = {int(i): int((whole == i).sum()) for i in np.unique(whole)}
    numbers = data.read_instances(region["id"])
    true = [Mask(m.pixels, area_full=full[int(numbers[m.pixels][0])]) for m in masks(numbers)]
    found = components(np.where(patch.valid, predicted[part] > 100, IGNORE).astype(np.uint8), [1])
    scores = {int(i): float(predicted[part][found == i].mean() / 200) for i in np.unique(found) if i}
    scored = patch.label != IGNORE
    return image(
        true,
        masks(found, scores=scores),
        scored.shape,
        region["id"],
        region["cluster"],
        scored,
        pixel_area=AREA,
    )


def test_the_table_has_the_objects_of_each_region_and_their_overlaps(scene):
    p, data, predicted = scene
    evaluated = evaluate(Oracle(), data, p.evaluate, "fp32", objects=ALL)
    expected = table(*(_expected(data, region, predicted) for _, region in regions_of_test(data).iterrows()))
    assert set(expected["kind"]) == {"image", "truth", "prediction", "pair"}
    truths = expected[expected["kind"] == "truth"]
    assert truths["out"].any() and truths["cut"].any() and not truths["cut"].all()
    rounded = ["score", "pixel_area"]
    pd.testing.assert_frame_equal(evaluated.objects.drop(columns=rounded), expected.drop(columns=rounded))
    assert np.allclose(evaluated.objects["score"], expected["score"], atol=1e-6, equal_nan=True)
    # metres of the projection are not exactly metres on the ground
    assert np.allclose(evaluated.objects["pixel_area"], expected["pixel_area"], rtol=0.01, equal_nan=True)


def test_without_a_way_to_find_objects_there_is_no_object_table(scene):
    p, data, _ = scene
    plain, found = (evaluate(Oracle(), data, p.evaluate, "fp32", objects=o) for o in (None, ALL))
    assert plain.objects is None
    pd.testing.assert_frame_equal(plain.counts, found.counts)


def test_objects_of_every_score_are_in_the_table(scene):
    p, data, _ = scene
    strict = FindSettings(score=0.9)
    tables = [evaluate(Oracle(), data, p.evaluate, "fp32", objects=o).objects for o in (ALL, strict)]
    pd.testing.assert_frame_equal(*tables)


def test_the_object_table_has_a_column_per_word_of_the_data_patterns(scene):
    p, data, _ = scene
    worded = copy.copy(data)
    worded.items = data.items.assign(words=json.dumps({"site": "oslo"}))
    found = evaluate(Oracle(), worded, p.evaluate, "fp32", objects=ALL).objects
    assert slices_of(found)["site"] == dict.fromkeys(regions_of_test(data)["id"], "oslo")


def test_a_region_that_was_not_evaluated_is_an_error(scene):
    _, data, _ = scene
    with pytest.raises(DataError, match="missing from the object table"):
        ObjectCounts(data, 2).table(regions_of_test(data))


@pytest.mark.parametrize(
    ("profile", "area"),
    [
        # a thousandth of a degree of latitude is 111.2 m; at 60 degrees, one of longitude is half of that
        ({"crs": "EPSG:4326", "transform": rasterio.Affine(0.001, 0, 10, 0, -0.001, 60)}, 111.195**2 / 2),
        ({"crs": None}, np.nan),
    ],
)
def test_the_area_of_a_pixel_is_on_the_ground(scene, profile, area):
    p, data, _ = scene
    place = {"transform": json.dumps(list(profile.get("transform", (1, 0, 0, 0, 1, 0)))[:6])}
    moved = copy.copy(data)
    moved.items = data.items.assign(crs=profile["crs"], **place)
    found = evaluate(Oracle(), moved, p.evaluate, "fp32", objects=ALL).objects
    areas = found.loc[found["kind"] == "image", "pixel_area"]
    assert np.allclose(areas, area, rtol=0.01, equal_nan=True)
    assert areas.isna().all() or areas.nunique() > 1


def test_a_bundle_without_an_entry_for_objects_has_the_default_score(scene):
    _, data, _ = scene
    entry = {"objects": {"components": {"score": 0.35}}}
    assert find_settings(entry, "components", data) == FindSettings("components", 0.35)
    assert find_settings({}, "components", data) == FindSettings("components", 0.5)
    assert find_settings(entry, "none", data) is None
    without = copy.copy(data)
    without.instances = False
    assert find_settings(entry, "components", without) is None


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_picture_of_objects_has_their_numbers_from_the_operating_score_on(tmp_path):
    predicted = [np.zeros((4, 6), bool) for _ in range(3)]
    predicted[0][0, :2] = predicted[1][1:3, :4] = predicted[2][2:, 2:] = True
    objects = [Mask(m, score=score) for m, score in zip(predicted, (0.3, 0.5, 0.7), strict=True)]
    save_objects(tmp_path / "a.tif", as_objects(objects, (4, 6)), 0.5)
    with rasterio.open(tmp_path / "a.tif") as file:
        assert (file.dtypes, file.profile["compress"]) == (("uint32",), "deflate")
        numbers = file.read(1)
    expected = [[0] * 6, [2, 2, 2, 2, 0, 0], [2, 2, 3, 3, 3, 3], [0, 0, 3, 3, 3, 3]]
    assert numbers.tolist() == expected


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Params, PreparedData]:
    """Test images of 2,048 x 2,048 pixels with 30 and 3,000 objects of 400 pixels."""
    folder = tmp_path_factory.mktemp("memory")
    rng = np.random.default_rng(1)
    for name, side, count in (("a", 64, 4), ("b", 64, 4), ("few", 2048, 30), ("many", 2048, 3000)):
        numbers = np.zeros((side, side), np.uint16)
        corners = np.stack(np.meshgrid(*[np.arange(4, side - 24, 32)] * 2), -1).reshape(-1, 2)
        for number, (r, c) in enumerate(rng.permutation(corners)[:count], 1):
            numbers[r : r + 20, c : c + 20] = number
        (folder / "images").mkdir(exist_ok=True)
        (folder / "masks").mkdir(exist_ok=True)
        picture = np.where(numbers > 0, 190, 10) + rng.integers(0, 5, (side, side))
        Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(numbers).save(folder / "masks" / f"{name}.png")
    p = params_for(
        folder,
        data={"instances": True, "label_values": {0: 0, "others": 1}},
        split={"given": {"train": ["a"], "validation": ["b"], "test": ["few", "many"]}, "links": []},
        evaluate={"tile": 256, "overlap": 16},
    )
    ingest(p.data, folder / "ingested")
    return p, PreparedData(prepare(p, folder / "ingested", folder / "prepared"))


def test_memory_hardly_depends_on_the_number_of_objects(few_and_many):
    p, data = few_and_many
    peaks, objects = {}, {}
    for item in ("few", "many"):
        part = copy.copy(data)
        part.regions = data.regions[data.regions["item"] == item]
        tracemalloc.start()
        found = evaluate(Oracle(), part, p.evaluate, "fp32", objects=ALL).objects
        peaks[item] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        objects[item] = found["kind"].value_counts()
    assert objects["few"]["pair"] == 30
    assert objects["many"]["pair"] == 3000
    # one byte per object and pixel would be 12 GiB
    assert peaks["many"] < 1.5 * peaks["few"]


def test_each_plane_of_a_volume_is_a_region_of_its_own(tmp_path):
    numbers = np.zeros((40, 40, 3), np.int16)
    # one object in planes 0 and 1, another one in plane 1; plane 2 has none
    numbers[2:10, 3:12, :2], numbers[20:30, 20:31, 1] = 1, 2
    for name in "abcdef":
        noise = np.random.default_rng(ord(name)).integers(0, 5, numbers.shape)
        write_nifti(
            tmp_path / f"images/{name}.nii.gz", np.where(numbers > 0, 190, 10 + noise).astype(np.int16)
        )
        write_nifti(tmp_path / f"masks/{name}.nii.gz", numbers)
    p = params_for(
        tmp_path,
        data={
            "images": "images/*.nii.gz",
            "masks": "masks/{stem}.nii.gz",
            "instances": True,
            "label_values": {0: 0, "others": 1},
        },
        split={"links": []},
    )
    ingest(p.data, tmp_path / "ingested")
    data = PreparedData(prepare(p, tmp_path / "ingested", tmp_path / "prepared"))
    found = evaluate(Oracle(), data, p.evaluate, "fp32", objects=ALL).objects
    volumes = regions_of_test(data)["id"].nunique() // 3
    assert found["kind"].value_counts().to_dict() == {
        "image": 3 * volumes,
        **dict.fromkeys(("truth", "prediction", "pair"), 3 * volumes),
    }
    truths = found[found["kind"] == "truth"]
    assert (truths["area"] == truths["area_full"]).all() and not truths["out"].any()
    assert found.loc[found["kind"] == "image", "pixel_area"].isna().all()
