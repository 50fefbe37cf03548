"""Masks in files of their own, for each class or each object, are read as one."""

import json

import numpy as np
import pytest
from nibabel import Nifti1Image
from PIL import Image, ImageFilter

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import _parts
from segcore.io.annotations._parts import open_parts
from tests.support.tiny import params_for, write_tif

SIZE = (20, 30)
IMAGE = Info(*SIZE, 3, "uint8")


def data_for(**data):
    values = {"classes": ["background", "road", "tree"], "colors": [[0, 0, 0]] * 3}
    return params_for(".", data={**values, **data}).data


def area(*box):
    mask = np.zeros(SIZE, bool)
    mask[box[0] : box[1], box[2] : box[3]] = True
    return mask


ROAD, TREE = area(2, 9, 3, 20), area(6, 15, 10, 28)


def save(path, mask, value=255):
    array = mask.astype(np.uint8) * value
    if path.suffix == ".tif":
        write_tif(path, array[None])
    else:
        Image.fromarray(array).save(path)
    return path


def read(parts, data=None, image=IMAGE, plane=0):
    with open_parts(parts, parts[0][1].with_name("image.png"), image, data or data_for()) as source:
        labels = source.read((0, 0, image.height, image.width), plane)
        return labels, dict(source.notes), source.found


def test_the_later_class_counts_where_masks_overlap_and_the_overlap_is_noted(tmp_path):
    road, tree = save(tmp_path / "road.png", ROAD), save(tmp_path / "tree.tif", TREE, 1)
    labels, notes, found = read([("road", road), ("tree", tree)])
    assert np.array_equal(labels.classes, np.where(TREE, 2, np.where(ROAD, 1, 0)))
    both = int((ROAD & TREE).sum())
    assert notes == {"overlapping-masks": f"{both} pixels belong to several files; the last of them counts"}
    assert found == {"road": int(ROAD.sum()), "tree": int(TREE.sum())} and labels.instances is None
    labels, _, _ = read([("tree", tree), ("road", road)])
    assert np.array_equal(labels.classes, np.where(ROAD, 1, np.where(TREE, 2, 0)))


def test_several_files_of_one_class_are_joined(tmp_path):
    one, two = save(tmp_path / "1.png", ROAD), save(tmp_path / "2.png", TREE)
    labels, notes, _ = read([("road", one), ("road", two)])
    assert np.array_equal(labels.classes, (ROAD | TREE).astype(np.uint8)) and not notes


def test_pixels_of_a_mask_of_ignore_are_ignored(tmp_path):
    parts = [("road", save(tmp_path / "r.png", ROAD)), ("ignore", save(tmp_path / "i.png", TREE))]
    assert np.array_equal(read(parts)[0].classes, np.where(TREE, IGNORE, ROAD.astype(np.uint8)))


def test_transparent_and_coloured_drawings_are_masks(tmp_path):
    drawing = np.zeros((*SIZE, 4), np.uint8)
    drawing[ROAD] = 200, 0, 30, 255
    Image.fromarray(drawing).save(tmp_path / "r.png")
    assert np.array_equal(read([("road", tmp_path / "r.png")])[0].classes, ROAD.astype(np.uint8))


@pytest.mark.parametrize(
    ("dtype", "outside"),
    [("float32", np.nan), ("uint8", 255), ("int16", -9999), ("int16", -1), ("float32", -1e38), ("uint8", 0)],
)
@pytest.mark.parametrize("unlabelled", [None, "ignore", "tree"])
def test_a_pixel_without_data_is_not_of_the_class_of_its_file(tmp_path, dtype, outside, unlabelled):
    for name, mask in (("r.tif", ROAD), ("t.tif", TREE)):
        write_tif(tmp_path / name, np.where(mask, 1, outside).astype(dtype)[None], nodata=outside)
    rest = {None: 0, "ignore": IGNORE, "tree": 2}[unlabelled]
    parts = [("road", tmp_path / "r.tif"), ("tree", tmp_path / "t.tif")]
    labels, notes, found = read(parts, data_for(unlabelled=unlabelled))
    assert np.array_equal(labels.classes, np.where(TREE, 2, np.where(ROAD, 1, rest)))
    if outside != 0:
        assert notes["transparent"] == f"t.tif: {(~TREE).sum()} pixels without data are not of the class"
    assert ("unlabelled" in notes) == (unlabelled is not None)
    assert found == {"road": int(ROAD.sum()), "tree": int(TREE.sum())}


def test_windows_give_one_note_for_each_file(tmp_path, monkeypatch):
    write_tif(tmp_path / "r.tif", np.where(ROAD, 1, 255).astype(np.uint8)[None], nodata=255)
    for most in (64, 0):
        monkeypatch.setattr(_parts, "_MOST_OPEN", most)
        with open_parts([("road", tmp_path / "r.tif")], tmp_path / "image.png", IMAGE, data_for()) as source:
            for row in range(0, 20, 5):
                source.read((row, 0, 5, 30))
            text = f"r.tif: {(~ROAD).sum()} pixels without data are not of the class"
            assert source.notes == [("transparent", text)]


def test_negative_values_that_are_not_declared_as_nodata_are_refused(tmp_path):
    write_tif(tmp_path / "r.tif", np.where(ROAD, 1, -9999).astype(np.int16)[None])
    with pytest.raises(DataError) as caught:
        read([("road", tmp_path / "r.tif")])
    assert caught.value.kind == "label-values" and "-9999" in caught.value.what


@pytest.mark.parametrize("hidden", [255, 0])
def test_black_pixels_on_a_transparent_layer_are_the_class(tmp_path, hidden):
    drawing = np.full((*SIZE, 4), hidden, np.uint8)
    drawing[..., 3] = 0
    drawing[ROAD] = 0, 0, 0, 255
    Image.fromarray(drawing).save(tmp_path / "r.png")
    labels, notes, _ = read([("road", tmp_path / "r.png")])
    assert np.array_equal(labels.classes, ROAD.astype(np.uint8))
    assert notes == {"transparent": "r.png: all its opaque pixels are black, and they are the class"}


def test_an_empty_mask_with_a_transparent_margin_on_the_map_has_no_class(tmp_path):
    drawing = np.zeros((4, *SIZE), np.uint8)
    drawing[3, 5:] = 255
    write_tif(tmp_path / "r.tif", drawing, photometric="RGB", alpha="YES")
    image = images.info(tmp_path / "r.tif")
    assert not read([("road", tmp_path / "r.tif")], image=image)[0].classes.any()


def shape():
    mask = np.zeros((120, 150), np.uint8)
    mask[20:70, 30:100] = 255
    return mask


@pytest.mark.parametrize("how", ["jpeg", "blur", "16 bits", "0 to 1", "rgb"])
def test_a_smoothed_mask_of_a_class_is_cut_at_half_of_its_highest_value(tmp_path, how):
    mask = shape()
    path = tmp_path / "r.png"
    picture = Image.fromarray(mask)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(2)))
    if how == "jpeg":
        picture.save(tmp_path / "r.jpg", quality=75)
        Image.open(tmp_path / "r.jpg").save(path)
    elif how == "0 to 1":
        path = path.with_suffix(".tif")
        write_tif(path, (blurred / np.float32(255))[None])
    else:
        turned = {"16 bits": blurred.astype(np.uint16) * 257, "rgb": np.stack([blurred] * 3, -1)}
        Image.fromarray(turned.get(how, blurred)).save(path)
    image = Info(120, 150, 3, "uint8")
    labels, notes, _ = read([("road", path)], image=image)
    # Blurring rounds corners.
    assert np.count_nonzero((labels.classes == 1) != (mask > 0)) <= 12
    assert "lower pixels that are not 0 are not" in notes["smoothed"]


def test_many_numbers_of_objects_are_all_the_class_of_their_file(tmp_path):
    numbers = np.zeros(SIZE, np.uint8)
    numbers[:, 3:28] = np.arange(25 * 20).reshape(20, 25) // 2 % 250 + 1
    Image.fromarray(numbers).save(tmp_path / "r.png")
    labels, notes, _ = read([("road", tmp_path / "r.png")])
    assert np.array_equal(labels.classes, (numbers > 0).astype(np.uint8))
    assert notes == {"others-class": "r.png: has many values up to 250, and all but 0 are the class"}


def test_each_file_is_an_object_with_instances(tmp_path):
    data = data_for(instances=True)
    parts = [("road", save(tmp_path / "1.png", ROAD)), ("road", save(tmp_path / "2.png", TREE))]
    labels, notes, _ = read(parts, data)
    assert np.array_equal(labels.instances, np.where(TREE, 2, ROAD)) and set(np.unique(labels.classes)) == {
        0,
        1,
    }
    assert "overlapping-masks" in notes


@pytest.mark.parametrize("label_values", [{0: 0, 255: 1}, {"0": 0, "others": 1}])
def test_the_values_of_object_files_say_their_class(tmp_path, label_values):
    data = data_for(instances=True).model_copy(update={"label_values": label_values})
    parts = [("", save(tmp_path / "1.png", ROAD)), ("", save(tmp_path / "2.png", TREE))]
    labels, _, found = read(parts, data)
    assert np.array_equal(labels.instances, np.where(TREE, 2, ROAD))
    assert np.array_equal(labels.classes, (ROAD | TREE).astype(np.uint8))
    inside = int(ROAD.sum() + TREE.sum())
    assert found == {"0": 2 * ROAD.size - inside, "255": inside}


def test_hundreds_of_object_files_are_not_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(_parts, "_MOST_OPEN", 3)
    data = data_for(instances=True).model_copy(update={"label_values": {0: 0, 255: 1}})
    masks = [area(i, i + 2, 0, 30) for i in range(0, 20, 2)]
    parts = [("", save(tmp_path / f"{i}.png", mask)) for i, mask in enumerate(masks)]
    labels, _, found = read(parts, data)
    assert found == {"0": 10 * 600 - 600, "255": 600}
    assert np.array_equal(labels.instances, np.repeat(np.arange(1, 11), 2)[:, None] * np.ones((1, 30), int))


def test_segments_of_volumes_are_read_in_the_orientation_of_the_image(tmp_path):
    values = np.zeros((6, 5, 4), np.uint8)
    values[1:3, 2, 1] = 1
    flipped = np.diag([-1.0, 1, 3, 1])
    flipped[0, 3] = 5
    image = tmp_path / "image.nii.gz"
    Nifti1Image(values.astype(np.int16) + 7, np.diag([1.0, 1, 3, 1])).to_filename(image)
    Nifti1Image(values[::-1], flipped).to_filename(tmp_path / "liver.nii.gz")
    info = images.info(image)
    for plane in range(4):
        labels, _, _ = read([("tree", tmp_path / "liver.nii.gz")], image=info, plane=plane)
        assert np.array_equal(labels.classes == 2, images.read(image, plane=plane).pixels[0] == 8)


def test_polygons_may_be_a_file_for_each_class(tmp_path):
    ring = [[500002, 4999998], [500008, 4999998], [500008, 4999992], [500002, 4999992], [500002, 4999998]]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
    content = {"type": "FeatureCollection", "crs": crs, "features": [feature]}
    (tmp_path / "trees.geojson").write_text(json.dumps(content))
    road = save(tmp_path / "road.tif", ROAD)
    image = Info(*SIZE, 3, "uint8", crs="EPSG:32633", transform=(0.5, 0, 500000, 0, -0.5, 5000000))
    labels, _, _ = read([("road", road), ("tree", tmp_path / "trees.geojson")], image=image)
    square = area(4, 16, 4, 16)
    assert np.array_equal(labels.classes, np.where(square, 2, ROAD.astype(np.uint8)))


def test_a_mask_of_another_size_and_a_jpeg_are_refused(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "small.png")
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "r.jpg")
    for name, kind in (("small.png", "size-mismatch"), ("r.jpg", "jpeg-mask")):
        with pytest.raises(DataError) as caught:
            read([("road", tmp_path / name)])
        assert caught.value.kind == kind and name in caught.value.what
