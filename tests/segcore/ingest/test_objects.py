"""Objects of an item: components, numbers from a raster of their own, and pixels near two objects."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from nibabel import Nifti1Image
from PIL import Image
from scipy.spatial.distance import cdist

from segcore.constants import IGNORE
from segcore.data.packed import Packed
from segcore.errors import DataError
from segcore.ingest import catalog, item_objects
from segcore.ingest.cache import settings_fingerprint
from segcore.ingest.inspection import inspect
from segcore.ingest.source_files import files_of_row, more_files
from segcore.io import layouts
from segcore.objects.components import components
from segcore.params.data import Data
from tests.support.tiny import params_for, write_tif

rng = np.random.default_rng(0)
CLASSES = {"classes": ["background", "cell", "nucleus"], "colors": [[0, 0, 0]] * 3}
BASE = {**CLASSES, "label_values": {0: 0, 1: 1, 2: 2, 9: "ignore"}, "images": "images/*.tif"}
NUMBERED = {**BASE, "masks": "masks/{stem}.tif", "objects": "numbers/{stem}.tif"}


@pytest.fixture(autouse=True)
def bands_of_few_rows(monkeypatch):
    monkeypatch.setattr(item_objects, "_PIXELS", 300)


def data_for(**data) -> Data:
    return params_for("s", data={"masks": "masks/{stem}.tif", **BASE, **data}).data


def write(folder, classes, numbers=None, **profile):
    """An item, a.tif, without a position."""
    options = {"crs": None, "transform": None, **profile}
    image = rng.integers(0, 255, (3, *classes.shape), np.uint8)
    write_tif(folder / "s/images/a.tif", image, **options)
    write_tif(folder / "s/masks/a.tif", classes[None].astype(np.uint8), **options)
    if numbers is not None:
        write_tif(folder / "s/numbers/a.tif", numbers[None], **options)


def ingested(folder: Path, data: Data):
    """Row of the only item, and its packed tensors."""
    (item,) = layouts.find(data, folder / "s")
    if item.problem:
        raise item.problem
    target = folder / "items"
    target.mkdir(exist_ok=True)
    row = inspect(item, folder / "s", data, target, settings_fingerprint(data))
    return row, Packed(target / row["packed"])


def notes(row) -> dict[str, str]:
    return {kind: text for kind, text in row["notes"] if kind not in ("empty-mask", "one-class")}


def noise(height=40, width=50, seed=0):
    """Blobs of two classes and ignored pixels."""
    coarse = np.random.default_rng(seed).choice([0, 0, 1, 2, 9], (height // 4 + 1, width // 3 + 1))
    return np.kron(coarse, np.ones((4, 3), int))[:height, :width].astype(np.uint8)


def test_components_of_the_packed_classes_are_the_objects(tmp_path):
    write(tmp_path, noise(), tiled=True, blockxsize=16, blockysize=16)
    data = data_for(instances="components")
    row, packed = ingested(tmp_path, data)
    classes = packed.array("labels")[0]
    assert (classes == IGNORE).any()
    expected = components(classes, [1, 2])
    np.testing.assert_array_equal(packed.array("instances")[0], expected)
    assert row["objects"] == expected.max() > 20 and not notes(row)
    assert packed.shapes["instances"][0] == np.uint32 and "touching" not in packed.shapes


def test_invalid_pixels_divide_components(tmp_path):
    classes = np.ones((6, 9), np.uint8)
    write(tmp_path, classes)
    (tmp_path / "s/valid").mkdir()
    field = np.ones((6, 9), np.uint8)
    field[:, 4] = 0
    Image.fromarray(field).save(tmp_path / "s/valid/a.png")
    row, packed = ingested(tmp_path, data_for(instances="components", valid="valid/{stem}.png"))
    assert row["objects"] == 2
    assert np.unique(packed.array("instances")[0, :, 4]).tolist() == [0]


def test_each_plane_of_a_volume_has_components_of_its_own(tmp_path):
    planes = np.stack([noise(12, 15, seed) for seed in range(3)])
    for name, values in (("images", rng.integers(0, 99, planes.shape)), ("masks", planes)):
        (tmp_path / f"s/{name}").mkdir(parents=True)
        stored = np.moveaxis(values, 0, -1).astype(np.int16)
        Nifti1Image(stored, np.diag([1, 1, 5, 1])).to_filename(tmp_path / f"s/{name}/a.nii.gz")
    data = data_for(instances="components", images="images/*.nii.gz", masks="masks/{stem}.nii.gz")
    row, packed = ingested(tmp_path, data)
    expected = [components(plane, [1, 2]) for plane in packed.array("labels")]
    np.testing.assert_array_equal(packed.array("instances"), expected)
    assert row["objects"] == sum(int(plane.max()) for plane in expected)


def test_polygons_and_masks_of_one_class_have_components_as_well(tmp_path):
    write(tmp_path, (noise() == 1).astype(np.uint8))
    masks = {"cell": "masks/{stem}.tif"}
    values = {key: value for key, value in BASE.items() if key != "label_values"}
    data = params_for("s", data={**values, "masks": masks, "instances": "components"}).data
    row, packed = ingested(tmp_path, data)
    np.testing.assert_array_equal(packed.array("instances")[0], components(packed.array("labels")[0], [1]))
    assert row["objects"] > 5


def test_numbers_of_their_own_raster_are_kept_with_their_gaps(tmp_path):
    classes = np.zeros((8, 20), np.uint8)
    numbers = np.zeros((8, 20), np.uint32)
    # an object of two parts, one of a single pixel, and one that touches it
    for rows, cols, number, index in (
        ((1, 3), (1, 4), 70_000, 1),
        ((5, 7), (1, 4), 70_000, 1),
        ((4, 5), (9, 10), 4_000_000_000, 2),
        ((5, 8), (9, 12), 7, 1),
    ):
        part = slice(*rows), slice(*cols)
        classes[part], numbers[part] = index, number
    write(tmp_path, classes, numbers)
    row, packed = ingested(tmp_path, data_for(**NUMBERED))
    np.testing.assert_array_equal(packed.array("instances")[0], numbers)
    np.testing.assert_array_equal(packed.array("labels")[0], classes)
    assert row["objects"] == 3 and not notes(row)


def test_numbers_on_background_and_pixels_without_a_number_are_no_objects_and_noted(tmp_path):
    classes = np.zeros((10, 20), np.uint8)
    classes[2:6, 2:6], classes[2:6, 10:14], classes[8:, :] = 1, 2, 9
    numbers = np.zeros((10, 20), np.uint16)
    # 3 reaches beyond its mask, 5 is on background alone, 8 is ignored
    numbers[2:6, 1:6], numbers[7, 15:18], numbers[8:, :5] = 3, 5, 8
    write(tmp_path, classes, numbers)
    row, packed = ingested(tmp_path, data_for(**NUMBERED))
    np.testing.assert_array_equal(packed.array("instances")[0], np.where(classes == 1, 3, 0))
    assert row["objects"] == 1
    assert notes(row) == {
        "numbers-beside": "a.tif: 7 pixels with an object number are of no foreground class and in no object; "
        "1 objects have no other pixel: 5",
        "numbers-missing": "a.tif: 16 pixels of foreground classes have no object number and are in no object",
    }


def test_an_object_of_several_classes_is_of_that_of_most_of_its_pixels(tmp_path):
    classes, numbers = np.zeros((30, 20), np.uint8), np.zeros((30, 20), np.int32)
    classes[2:22, 2:12], classes[8:10, 4:8], numbers[2:22, 2:12] = 1, 2, 5
    classes[24:28, 2:6], classes[24, 2], numbers[24:28, 2:6] = 2, 1, 4
    classes[24:28, 12:16], numbers[24:28, 12:16] = 2, 9
    write(tmp_path, classes, numbers)
    row, packed = ingested(tmp_path, data_for(**NUMBERED))
    expected = numbers.copy()
    expected[8:10, 4:8], expected[24, 2] = 0, 0
    np.testing.assert_array_equal(packed.array("instances")[0], expected)
    np.testing.assert_array_equal(packed.array("labels")[0], classes)
    text = "a.tif: 2 objects have pixels of several classes: 4, 5; each is of the class of most of its pixels, and its "
    assert notes(row) == {"mixed-objects": text + "other pixels, 9 in total, are in no object"}
    assert row["objects"] == 3


@pytest.mark.parametrize(
    ("numbers", "kind", "text"),
    [
        (np.full((8, 9), -3, np.int16), "object-numbers", "a.tif: object numbers range from -3 to -3"),
        (np.full((8, 9), 2.0**33), "object-numbers", "range from 8589934592 to 8589934592"),
        (
            np.full((8, 9), 1.5, np.float32),
            "label-fractions",
            "a.tif: holds fractions (float32), such as 1.5",
        ),
        (
            np.ones((8, 8), np.uint8),
            "size-mismatch",
            "sizes differ in height x width, image 8 x 9, mask 8 x 8",
        ),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(tmp_path, numbers, kind, text):
    write(tmp_path, np.ones((8, 9), np.uint8))
    write_tif(tmp_path / "s/numbers/a.tif", numbers[None], crs=None, transform=None)
    table = catalog.build(data_for(**NUMBERED), tmp_path / "s", tmp_path / "work")
    (row,) = table.to_dict("records")
    assert (row["status"], row["kind"]) == ("quarantined", kind)
    assert text in row["reason"] and row["remedy"]


def test_whole_floats_and_nodata_are_read_as_numbers(tmp_path):
    numbers = np.array([[1, 2], [-1, 0]], np.float32).repeat(4, 0).repeat(4, 1)
    write(tmp_path, np.ones((8, 8), np.uint8))
    write_tif(tmp_path / "s/numbers/a.tif", numbers[None], crs=None, transform=None, nodata=-1)
    row, packed = ingested(tmp_path, data_for(**NUMBERED))
    np.testing.assert_array_equal(packed.array("instances")[0], np.maximum(numbers, 0))
    assert row["objects"] == 2 and set(notes(row)) == {"numbers-missing"}


def test_the_raster_of_numbers_counts_as_a_file_of_its_item(tmp_path):
    write(tmp_path, np.ones((8, 9), np.uint8), np.ones((8, 9), np.uint8))
    data = data_for(**NUMBERED)
    before = catalog.build(data, tmp_path / "s", tmp_path / "work")
    (row,) = before.to_dict("records")
    assert row["numbers"] == "numbers/a.tif" and "numbers/a.tif" in more_files(row)
    assert {path.name for path in files_of_row(row, tmp_path / "s")} == {"a.tif"}
    assert len(files_of_row(row, tmp_path / "s")) == 3
    write_tif(tmp_path / "s/numbers/a.tif", np.full((1, 8, 9), 2, np.uint8), crs=None, transform=None)
    (after,) = catalog.build(data, tmp_path / "s", tmp_path / "work").to_dict("records")
    assert after["packed"] != row["packed"] and after["status"] == "accepted"
    (tmp_path / "s/numbers/a.tif").unlink()
    (gone,) = catalog.build(data, tmp_path / "s", tmp_path / "work").to_dict("records")
    assert gone["kind"] == "missing-mask"
    assert gone["reason"].startswith("a.tif: has no raster of object numbers, numbers/a.tif is missing")


def test_an_image_as_its_own_raster_of_numbers_is_refused(tmp_path):
    write(tmp_path, np.ones((8, 9), np.uint8), np.ones((8, 9), np.uint8))
    (tmp_path / "s/numbers/a.tif").write_bytes((tmp_path / "s/images/a.tif").read_bytes())
    (row,) = catalog.build(data_for(**NUMBERED), tmp_path / "s", tmp_path / "work").to_dict("records")
    assert row["kind"] == "same-file" and "correct data.objects" in row["remedy"]
    data = data_for(**{**NUMBERED, "objects": "images/{stem}.tif"})
    with pytest.raises(DataError, match=r"or data.objects 'images/\{stem\}.tif'"):
        catalog.build(data, tmp_path / "s", tmp_path / "work")


def test_without_numbers_the_catalogue_has_no_column_of_them(tmp_path):
    write(tmp_path, np.ones((8, 9), np.uint8))
    table = catalog.build(data_for(), tmp_path / "s", tmp_path / "work")
    assert list(table.columns) == catalog.COLUMNS and table["objects"].isna().all()


@pytest.mark.parametrize("settings", [{"instances": "components"}, NUMBERED])
def test_pixels_within_two_pixels_of_two_objects_are_marked(tmp_path, settings):
    classes = (rng.random((31, 29)) > 0.7).astype(np.uint8)
    numbers = components(classes, [1])
    write(tmp_path, classes, numbers)
    _, packed = ingested(tmp_path, data_for(**settings, touching=True))
    instances = packed.array("instances")[0]
    places = np.argwhere(instances >= 0)
    found = [len(set(instances.ravel()[near].tolist()) - {0}) > 1 for near in cdist(places, places) <= 2]
    dtype, shape = packed.shapes["touching"]
    assert dtype == np.uint8 and shape == (1, 31, 29) and 0.1 < np.mean(found) < 0.9
    np.testing.assert_array_equal(packed.array("touching")[0].ravel(), found)


def test_seventy_thousand_objects_of_an_image_are_kept_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(item_objects, "_PIXELS", 2**21)
    classes = np.zeros((750, 750), np.uint8)
    classes[::2, ::2], classes[::4, ::4] = 1, 2
    classes[600:] = 0
    numbers = np.cumsum(classes.ravel() > 0, dtype=np.uint32).reshape(classes.shape) * (classes > 0)
    numbers[numbers > 0] += 65_000
    assert (classes > 0).sum() > 70_000
    write(tmp_path, classes, numbers.astype(np.uint32))
    start = time.process_time()
    row, packed = ingested(tmp_path, data_for(**NUMBERED, touching=True))
    again, components_packed = ingested(tmp_path, data_for(instances="components"))
    assert time.process_time() - start < 10
    assert row["objects"] == again["objects"] == (classes > 0).sum() and not notes(row)
    np.testing.assert_array_equal(packed.array("instances")[0], numbers)
    assert components_packed.array("instances").max() == (classes > 0).sum()


def test_what_polygons_lose_is_noted_only_where_they_are_the_objects(tmp_path):
    write(tmp_path, np.ones((20, 20), np.uint8))
    shapes = [{"label": "cell", "points": [[a, a], [a + 9, a], [a + 9, 15], [a, 15]]} for a in (2, 5)]
    content = {"shapes": shapes, "imageHeight": 20, "imageWidth": 20, "imagePath": "a.tif"}
    (tmp_path / "s/masks/a.json").write_text(json.dumps(content))
    masks = {"masks": "masks/{stem}.json", "label_values": {"cell": 1}}
    row, _ = ingested(tmp_path, data_for(**masks))
    assert notes(row) == {} and row["objects"] == 2
    row, _ = ingested(tmp_path, data_for(**masks, instances=True))
    text = "a.json: shapes that lose pixels to others drawn over them: 1 (1), 60 pixels in total"
    assert notes(row) == {"objects-overlap": text} and row["objects"] == 2
    row, _ = ingested(tmp_path, data_for(**masks, instances="components"))
    assert notes(row) == {} and row["objects"] == 1
