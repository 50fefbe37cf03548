"""Masks of any format become class indices on their image's grid, or fail with a remedy."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io import annotations, images
from segcore.io.annotations import open_labels, read_labels
from tests.support.tiny import params_for, write_tif

CLASSES = ["background", "road", "water"]
INDEX = {0: "background", 1: "road", 2: "water"}
COLORS = {"#000000": "background", "#6ec1e4": "road", "#E2A929": "water", "#9B9B9B": "ignore"}
RGB = np.array([[0, 0, 0], [0x6E, 0xC1, 0xE4], [0xE2, 0xA9, 0x29], [0x9B, 0x9B, 0x9B]], np.uint8)
EXPECTED = np.array([0, 1, 2, IGNORE], np.uint8)


def data_for(label_values, **over):
    values = {"classes": CLASSES, "colors": [[0, 0, 0], [9, 9, 9], [0, 0, 9]], "label_values": label_values}
    return params_for(".", data={**values, **over}).data.model_copy(update={"label_values": label_values})


def index_mask(size=(20, 30), high=3):
    return np.random.default_rng(3).integers(0, high, size).astype(np.uint8)


def save(path, array, **options):
    if path.suffix == ".tif":
        write_tif(path, array if array.ndim == 3 else array[None], **options)
    else:
        Image.fromarray(array).save(path, **options)
    return path


def labels(path, data, size=None):
    height, width = size or (images.info(path).height, images.info(path).width)
    return read_labels(path, path.with_name("image.png"), Info(height, width, 3, "uint8"), data)


def fails(path, data, kind, *texts, size=None):
    with pytest.raises(DataError) as caught:
        labels(path, data, size)
    error = caught.value
    assert error.kind == kind and path.name in error.what.split(":")[0], error
    for text in texts:
        assert text in str(error), error
    return error


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "float32", "float64"]
)
def test_index_values_of_any_data_type_are_classes(tmp_path, dtype):
    mask = index_mask()
    path = save(tmp_path / "m.tif", mask.astype(dtype))
    found = labels(path, data_for(INDEX))
    assert found.classes.dtype == np.uint8 and found.instances is None
    np.testing.assert_array_equal(found.classes, mask)


def test_values_map_to_the_classes_and_to_ignore_as_declared(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 10, 20, 30]], np.uint8))
    found = labels(path, data_for({0: 2, 10: "background", 20: "ignore", 30: "road"}))
    np.testing.assert_array_equal(found.classes, [[2, 0, IGNORE, 1]])


def test_negative_values_are_valid_keys(tmp_path):
    path = save(tmp_path / "m.tif", np.array([[-1, 0, 1]], np.int16))
    found = labels(path, data_for({-1: "ignore", 0: "background", 1: "water"}))
    np.testing.assert_array_equal(found.classes, [[IGNORE, 0, 2]])


def test_a_picture_of_three_equal_bands_is_one_band(tmp_path):
    mask = index_mask()
    path = save(tmp_path / "m.png", np.repeat(mask[..., None], 3, axis=2))
    np.testing.assert_array_equal(labels(path, data_for(INDEX)).classes, mask)


def test_undeclared_values_are_counted_over_the_whole_file_for_every_window(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[0, 0], mask[10:, :2], mask[10:, 5] = 7, 7, 9
    path = save(tmp_path / "m.png", mask)
    error = fails(path, data_for(INDEX), "label-values", "7 (21), 9 (10) pixels", "data.label_values")
    with (
        open_labels(path, path, images.info(path), data_for(INDEX)) as source,
        pytest.raises(DataError) as one,
    ):
        source.read((0, 0, 1, 1))
    assert str(one.value) == str(error)


def test_the_remedy_for_masks_of_0_and_255_is_a_declaration(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 255, 255]], np.uint8))
    fails(path, data_for({0: 0, 1: "water"}), "label-values", "255 (2)", "declare `255: water`")


def test_others_maps_every_value_without_a_key(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 1, 77, 255]], np.uint8))
    found = labels(path, data_for({0: 0, 1: "water", "others": "road"}))
    np.testing.assert_array_equal(found.classes, [[0, 2, 1, 1]])


def test_fractions_are_refused_and_whole_floats_are_not(tmp_path):
    data = data_for(INDEX)
    good = save(tmp_path / "good.tif", np.array([[0, 1, np.nan]], np.float32))
    np.testing.assert_array_equal(labels(good, data).classes, [[0, 1, IGNORE]])
    bad = save(tmp_path / "bad.tif", np.array([[0, 0.25, 1]], np.float32))
    fails(bad, data, "label-fractions", "0.25", "nearest neighbour")


def test_transparent_pixels_are_ignored(tmp_path):
    gray_alpha = np.dstack([index_mask(), np.full((20, 30), 255, np.uint8)])
    gray_alpha[:5, :, 1] = 0
    path = tmp_path / "m.png"
    Image.fromarray(gray_alpha, "LA").save(path)
    found = labels(path, data_for(INDEX)).classes
    assert (found[:5] == IGNORE).all()
    np.testing.assert_array_equal(found[5:], gray_alpha[5:, :, 0])


def test_nodata_is_ignored_unless_its_value_is_declared(tmp_path):
    mask = np.array([[0, 1, 99]], np.uint8)
    without_key = save(tmp_path / "a.tif", mask, nodata=99)
    np.testing.assert_array_equal(labels(without_key, data_for(INDEX)).classes, [[0, 1, IGNORE]])
    others = data_for({0: 0, 1: 1, "others": 2})
    np.testing.assert_array_equal(labels(without_key, others).classes, [[0, 1, IGNORE]])
    declared = save(tmp_path / "b.tif", mask % 99, nodata=0)
    np.testing.assert_array_equal(labels(declared, data_for(INDEX)).classes, [[0, 1, 0]])


def test_colors_of_rgb_masks_are_classes(tmp_path):
    picked = index_mask(high=4)
    path = save(tmp_path / "m.png", RGB[picked])
    np.testing.assert_array_equal(labels(path, data_for(COLORS)).classes, EXPECTED[picked])
    tif = save(tmp_path / "m.tif", np.moveaxis(RGB[picked], -1, 0), photometric="RGB")
    np.testing.assert_array_equal(labels(tif, data_for(COLORS)).classes, EXPECTED[picked])


def palette_mask(path, picked, colors):
    image = Image.fromarray(picked, "P")
    image.putpalette(np.asarray(colors, np.uint8).tobytes())
    image.save(path)
    return path


def test_colors_of_palette_masks_are_classes_whatever_their_indices(tmp_path):
    picked = index_mask(high=4)
    path = palette_mask(tmp_path / "m.png", 3 - picked, RGB[::-1])
    np.testing.assert_array_equal(labels(path, data_for(COLORS)).classes, EXPECTED[picked])


def test_a_palette_mask_gives_indices_where_no_colors_are_declared(tmp_path):
    mask = index_mask()
    path = palette_mask(tmp_path / "m.png", mask, RGB)
    np.testing.assert_array_equal(labels(path, data_for(INDEX)).classes, mask)


def test_where_values_and_colors_are_declared_each_mask_uses_its_type(tmp_path):
    picked, data = index_mask(), data_for({**INDEX, **COLORS})
    gray, rgb = save(tmp_path / "g.png", picked), save(tmp_path / "c.png", RGB[picked])
    palette = palette_mask(tmp_path / "p.png", 3 - picked, RGB[::-1])
    for path in (gray, rgb, palette):
        np.testing.assert_array_equal(labels(path, data).classes, picked)


def test_gray_masks_have_colors_too_where_nothing_else_is_declared(tmp_path):
    path = save(tmp_path / "m.png", np.array([[0, 0x9B]], np.uint8))
    np.testing.assert_array_equal(labels(path, data_for(COLORS)).classes, [[0, IGNORE]])


def test_undeclared_colors_are_listed_by_frequency(tmp_path):
    picked = np.zeros((20, 30), np.uint8)
    picked[0], picked[1, :7] = 1, 2
    data = data_for({"#000000": 0})
    for path in (save(tmp_path / "m.png", RGB[picked]), palette_mask(tmp_path / "p.png", picked, RGB)):
        fails(path, data, "label-colors", "#6EC1E4 (30), #E2A929 (7)", "'#000000'")


def test_at_most_eight_undeclared_colors_are_listed(tmp_path):
    ramp = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    error = fails(save(tmp_path / "m.png", ramp), data_for({"#FFFFFF": 0}), "label-colors", "and 12 more")
    assert error.what.count("#") == 8


def test_colors_where_values_are_declared_give_a_hint(tmp_path):
    path = save(tmp_path / "m.png", RGB[index_mask()])
    fails(path, data_for(INDEX), "label-bands", "3 bands that differ", '"#RRGGBB"', "#6EC1E4")
    photo = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    error = fails(save(tmp_path / "photo.png", photo), data_for(INDEX), "label-bands")
    assert "#RRGGBB" not in error.remedy


def test_colors_need_three_bands_of_eight_bits(tmp_path):
    two = save(tmp_path / "two.tif", np.zeros((2, 4, 4), np.uint8))
    fails(two, data_for(COLORS), "label-bands", "has 2 bands")
    wide = save(tmp_path / "wide.tif", np.full((3, 4, 4), 40000, np.uint16))
    fails(wide, data_for(COLORS), "label-colors", "40000", "8 bits")


def test_instances_are_the_values_of_all_classes_but_background(tmp_path):
    mask = np.array([[0, 1, 2, 70000, 5, 5]], np.uint32)
    path = save(tmp_path / "m.tif", mask)
    data = data_for({0: "background", 5: "ignore", "others": "water"}, instances=True)
    found = labels(path, data)
    np.testing.assert_array_equal(found.classes, [[0, 2, 2, 2, IGNORE, IGNORE]])
    assert found.instances.dtype == np.uint32
    np.testing.assert_array_equal(found.instances, [[0, 1, 2, 70000, 0, 0]])


def test_the_remedy_for_undeclared_numbers_of_objects_is_the_key_others(tmp_path):
    path = save(tmp_path / "m.tif", np.array([[0, 1, 2, 70000]], np.uint32))
    fails(path, data_for({0: "background"}, instances=True), "label-values", "`others: CLASS`")
    found = labels(path, data_for({"0": "background", "others": "road"}, instances=True))
    np.testing.assert_array_equal(found.instances, [[0, 1, 2, 70000]])


def test_colors_number_objects_and_black_is_a_color(tmp_path):
    picked = index_mask(high=3)
    path = save(tmp_path / "m.png", RGB[picked])
    found = labels(path, data_for({"#E2A929": "background", "others": "road"}, instances=True))
    np.testing.assert_array_equal(found.classes, np.array([1, 1, 0])[picked])
    np.testing.assert_array_equal(found.instances, np.array([1, 0x6EC1E4 + 1, 0])[picked])


def test_negative_object_numbers_are_refused(tmp_path):
    path = save(tmp_path / "m.tif", np.array([[0, 1, -3]], np.int32))
    data = data_for({0: 0, "others": 1}, instances=True)
    fails(path, data, "label-values", "from -3 to 1", "4294967295")


def test_windows_are_parts_of_the_whole(tmp_path):
    mask = index_mask((70, 90))
    path = save(tmp_path / "m.tif", mask, tiled=True, blockxsize=16, blockysize=16)
    with open_labels(path, path, images.info(path), data_for(INDEX)) as source:
        np.testing.assert_array_equal(source.read((11, 23, 30, 41)).classes, mask[11:41, 23:64])
        assert source.notes == []


def test_planes_of_a_volume_are_read_one_by_one(tmp_path):
    mask = np.random.default_rng(0).integers(0, 3, (5, 6, 4)).astype(np.uint8)
    path = tmp_path / "m.nii.gz"
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([1, 1, 3, 1])), path)
    info = images.info(path)
    with open_labels(path, path, info, data_for(INDEX)) as source, images.open_source(path) as raw:
        for plane in range(info.depth):
            found = source.read((0, 0, info.height, info.width), plane).classes
            np.testing.assert_array_equal(found, raw.read(plane=plane).pixels[0])
    assert info.depth == 4


def test_a_jpeg_mask_is_refused(tmp_path):
    path = save(tmp_path / "m.jpg", index_mask())
    fails(path, data_for(INDEX), "jpeg-mask", "PNG")
    tif = save(tmp_path / "m.tif", np.zeros((16, 16), np.uint8), compress="jpeg")
    fails(tif, data_for(INDEX), "jpeg-mask")


def test_a_mask_of_another_size_is_refused(tmp_path):
    path = save(tmp_path / "m.png", index_mask())
    with pytest.raises(DataError, match=r"image\.png and its mask m\.png: sizes differ") as caught:
        labels(path, data_for(INDEX), size=(20, 31))
    assert caught.value.kind == "size-mismatch"


def test_the_extensions_of_ground_truth_are_those_of_masks_and_of_all_other_formats():
    found = annotations.extensions()
    assert {".png", ".tif", ".nii.gz", ".geojson", ".gpkg", ".json", ".dcm"} <= set(found)
    assert ".jpg" not in found and list(found) == sorted(found)
