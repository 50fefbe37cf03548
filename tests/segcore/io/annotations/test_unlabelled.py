"""Pixels without a label have the class that data.unlabelled and data.background give them, in every format."""

import numpy as np
import pytest
import shapely
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.ingest import catalog
from segcore.io.annotations import open_labels
from segcore.io.images import open_source
from tests.support import coco, polygons
from tests.support.dicom import stack
from tests.support.tiny import make_pairs, params_for
from tests.support.volumes import write_seg, write_series

CLASSES = ["water", "forest", "urban"]


def settings(unlabelled=None, background=None, **over):
    values = {"classes": CLASSES, "colors": [[0, 0, 0]] * 3, "background": background}
    data = params_for(".", data={**values, "unlabelled": unlabelled}).data
    return data.model_copy(update={"label_values": {c: c for c in CLASSES}, **over})


def layer(tmp_path):
    path = polygons.save(tmp_path / "p.gpkg", [polygons.on_map(shapely.box(0, 0, 20, 10))], ["forest"])
    return (
        path,
        Info(60, 80, 3, "uint8", crs="EPSG:32633", transform=polygons.GRID),
        {"label_property": "use"},
    )


def annotations(tmp_path):
    objects = [coco.annotation(coco.square(0, 0, 20, 10))]
    path = coco.save(tmp_path / "c.json", objects, categories=[{"id": 3, "name": "forest"}])
    return path, coco.IMAGE, {}


def read(made, data):
    path, info, over = made
    with open_labels(path, path.with_name("a.png"), info, data.model_copy(update=over)) as source:
        for _ in range(2):
            found = source.read((0, 0, info.height, info.width))
        return found, source.notes


@pytest.mark.parametrize("make", [layer, annotations])
def test_without_background_pixels_without_label_need_the_setting(tmp_path, make):
    with pytest.raises(DataError) as caught:
        read(make(tmp_path), settings())
    error = caught.value
    assert error.kind == "no-unlabelled" and "a.png" in error.what
    assert {"data.background", "data.unlabelled"} <= {*error.what.split(), *error.remedy.split()}


@pytest.mark.parametrize("make", [layer, annotations])
@pytest.mark.parametrize(("unlabelled", "code"), [("ignore", IGNORE), ("water", 0), ("urban", 2)])
def test_pixels_without_label_become_what_the_setting_says_and_are_counted(tmp_path, make, unlabelled, code):
    made = make(tmp_path)
    found, notes = read(made, settings(unlabelled))
    inside = np.zeros((made[1].height, made[1].width), bool)
    inside[:10, :20] = True
    np.testing.assert_array_equal(found.classes, np.where(inside, 1, code))
    np.testing.assert_array_equal(found.instances, inside)
    became = "ignored" if code == IGNORE else f"of class {unlabelled!r}"
    text = f"{(~inside).sum()} pixels without a label are {became} (data.unlabelled)"
    assert notes == [("unlabelled", text)]


def test_the_first_class_is_an_object_where_it_is_not_the_background(tmp_path):
    objects = [coco.annotation(coco.square(0, 0, 20, 10))]
    path = coco.save(tmp_path / "c.json", objects, categories=[{"id": 3, "name": "water"}])
    found, _ = read((path, coco.IMAGE, {}), settings("ignore"))
    assert (found.classes == 0).sum() == found.instances.sum() == 200


def test_with_a_background_pixels_without_label_are_background_without_a_note(tmp_path):
    found, notes = read(annotations(tmp_path), settings(background="urban"))
    assert notes == [] and (found.classes == 2).sum() == 40 * 50 - 200
    found, notes = read(annotations(tmp_path), settings("ignore", background="urban"))
    assert (found.classes == IGNORE).sum() == 40 * 50 - 200 and notes[0][0] == "unlabelled"


def test_annotations_of_every_pixel_need_no_setting(tmp_path):
    path = coco.save(
        tmp_path / "c.json",
        [coco.annotation(coco.square(0, 0, 50, 40))],
        categories=[{"id": 3, "name": "water"}],
    )
    found, notes = read((path, coco.IMAGE, {}), settings())
    assert not found.classes.any() and notes == []


def test_without_background_and_property_the_class_of_polygons_must_be_declared(tmp_path):
    path, info, _ = layer(tmp_path)
    with pytest.raises(DataError) as caught:
        read((path, info, {}), settings("ignore"))
    assert caught.value.kind == "no-object-class" and "1: water" in caught.value.remedy
    declared = {"label_values": {1: "urban"}}
    assert (read((path, info, declared), settings("ignore"))[0].classes == 2).sum() == 200
    two = {"classes": ["land", "water"], "label_values": {0: 0}, "unlabelled": "land"}
    assert (read((path, info, two), settings())[0].classes == 1).sum() == 200


def test_planes_and_pixels_in_no_segment_become_what_the_setting_says(tmp_path):
    folder = write_series(tmp_path / "ct", stack())
    drawn = np.zeros((4, 6, 5), np.uint8)
    drawn[0, :2] = 1
    seg = write_seg(tmp_path / "seg.dcm", folder, drawn, ["forest", "urban"])

    def found(data):
        with open_source(folder) as image, open_labels(seg, folder, image.info, data) as source:
            size = (0, 0, image.info.height, image.info.width)
            return np.stack([source.read(size, k).classes for k in range(4)]), source

    with pytest.raises(DataError) as caught:
        found(settings())
    assert caught.value.kind == "no-unlabelled"
    classes, source = found(settings("ignore"))
    assert (classes == IGNORE).sum() == 110 and (classes == 1).sum() == 10
    assert source.notes == [("unlabelled", "110 pixels without a label are ignored (data.unlabelled)")]
    assert source.found == {"1 forest": 10}
    assert (found(settings("water"))[0] == 0).sum() == 110
    keyed = settings().model_copy(update={"label_values": {0: "water", "forest": 1, "urban": 2}})
    assert (found(keyed)[0] == 0).sum() == 110


def mask(tmp_path):
    values = np.zeros((20, 30, 2), np.uint8)
    values[..., 0], values[5:, :, 1] = 1, 255
    Image.fromarray(values, "LA").save(tmp_path / "m.png")
    return tmp_path / "m.png", Info(20, 30, 3, "uint8"), {"label_values": {1: "forest"}}


def test_transparent_pixels_of_a_mask_are_ignored_and_noted_unless_the_setting_says_their_class(tmp_path):
    found, notes = read(mask(tmp_path), settings())
    assert (found.classes[:5] == IGNORE).all() and (found.classes[5:] == 1).all()
    text = "150 pixels of the mask are transparent or without data, and are ignored"
    assert notes == [("transparent", text)]
    found, notes = read(mask(tmp_path), settings("urban"))
    assert (found.classes[:5] == 2).all()
    assert notes == [("unlabelled", "150 pixels without a label are of class 'urban' (data.unlabelled)")]


def test_a_zero_without_key_is_no_label_where_the_setting_says_what_such_pixels_are(tmp_path):
    Image.fromarray(np.array([[0, 1, 2, 0]], np.uint8)).save(tmp_path / "m.png")
    made = tmp_path / "m.png", Info(1, 4, 3, "uint8"), {"label_values": {1: "forest", 2: "urban"}}
    with pytest.raises(DataError, match=r"outside the declared classes: 0 \(2\)"):
        read(made, settings())
    found, notes = read(made, settings("ignore"))
    assert found.classes.tolist() == [[IGNORE, 1, 2, IGNORE]] and notes[0][1].startswith("2 pixels")


def test_the_ingest_fails_once_where_the_setting_is_missing(tmp_path):
    make_pairs(tmp_path / "s", 30)
    entries = [{"id": i, "file_name": f"a{i}.png", "height": 48, "width": 56} for i in range(30)]
    objects = [coco.annotation(coco.square(0, 0, 20, 10), image_id=i) for i in range(30)]
    coco.save(tmp_path / "s/c.json", objects, entries, categories=[{"id": 3, "name": "forest"}])
    data = settings().model_copy(update={"images": "images/*.png", "masks": "c.json"})
    with pytest.raises(DataError) as caught:
        catalog.build(data, tmp_path / "s", tmp_path / "work")
    assert caught.value.kind == "no-unlabelled" and "leaves pixels of a" in caught.value.what
    table = catalog.build(data.model_copy(update={"unlabelled": "ignore"}), tmp_path / "s", tmp_path / "work")
    assert (table["status"] == "accepted").all() and (table["ignored_pixels"] == 2488).all()
