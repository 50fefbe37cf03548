"""Values of masks: ranges, counts of what is found, values rounded, and values of masks saved with smoothing."""

import struct
import zlib

import nibabel
import numpy as np
import pytest
import yaml
from nibabel import Nifti1Image
from PIL import Image, ImageFilter
from pydantic import ValidationError

from segcore.constants import IGNORE
from segcore.data.raster import Info, pieces
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import open_labels
from tests.support.tiny import params_for, write_tif

rng = np.random.default_rng(0)


def data_for(label_values, classes=("background", "road"), **over):
    colors = [[9 * i, 0, 0] for i in range(len(classes))]
    data = params_for(".", data={"classes": list(classes), "colors": colors, "label_values": {}, **over}).data
    return type(data).model_validate({**data.model_dump(), "label_values": label_values})


def opened(path, data):
    """Classes of the first plane, notes by kind and values found, after all windows were read."""
    info = images.info(path)
    image = Info(info.height, info.width, 1, "uint8", depth=info.depth)
    with open_labels(path, path.with_name("image"), image, data) as source:
        planes = [source.read((0, 0, info.height, info.width), plane) for plane in range(info.depth)]
        return planes[0], dict(source.notes), source.found


def fails(path, data):
    with pytest.raises(DataError) as caught:
        opened(path, data)
    return caught.value


def save(path, array, **options):
    if path.suffix == ".tif":
        write_tif(path, array[None], **options)
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"]
)
def test_ranges_give_every_value_in_them_their_class(tmp_path, dtype):
    values = rng.integers(0, 256, (40, 50))
    path = save(tmp_path / "m.tif", values.astype(dtype))
    data = data_for({"0-99": "background", "100-199": "road", "200-255": "ignore"})
    expected = np.select([values < 100, values < 200], [0, 1], IGNORE)
    assert np.array_equal(opened(path, data)[0].classes, expected)


def test_ranges_may_be_negative_and_stand_beside_single_values(tmp_path):
    values = np.array([[-5, -1, 0, 1, 2, 100_000, 2**40]])
    path = save(tmp_path / "m.tif", values)
    data = data_for(
        {"-5--1": "ignore", "0": "background", "1": "road", "2-100000": "background", "others": "road"}
    )
    assert opened(path, data)[0].classes.tolist() == [[IGNORE, IGNORE, 0, 1, 0, 0, 1]]


def test_values_beside_a_range_are_undeclared(tmp_path):
    path = save(tmp_path / "m.tif", np.array([[0, 10, 11]], np.uint8))
    error = fails(path, data_for({"0-10": "road"}))
    assert error.kind == "label-values" and "11 (1)" in error.what


@pytest.mark.parametrize(
    ("label_values", "message"),
    [
        ({"0-127": "background", "127-255": "road"}, "127 is in the range 0-127 and in another key"),
        ({"0-127": "background", "100": "road"}, "100 is in the range 0-127 and in another key"),
        ({"127-0": "background"}, 'write the range "127-0" as "0-127"'),
    ],
)
def test_ranges_that_share_values_or_end_before_their_start_are_refused(label_values, message):
    with pytest.raises(ValidationError, match=message):
        data_for(label_values)


def test_ranges_of_a_property_are_words():
    assert data_for({"0-10": "background", "10-20": "road"}, label_property="population").label_table == {
        "0-10": 0,
        "10-20": 1,
    }


def test_found_has_the_pixels_of_each_value_over_all_windows_and_planes(tmp_path):
    values = rng.integers(0, 3, (6, 5, 4)).astype(np.int16)
    path = tmp_path / "m.nii.gz"
    Nifti1Image(values, np.eye(4)).to_filename(path)
    data = data_for({0: "background", 1: "road", 2: "road"})
    counts = {str(v): int((values == v).sum()) for v in range(3)}
    assert opened(path, data)[2] == counts
    values = rng.integers(0, 3, (3000, 700)).astype(np.uint8)
    path = save(tmp_path / "m.tif", values)
    info = images.info(path)
    with open_labels(path, tmp_path / "i.png", Info(3000, 700, 3, "uint8"), data) as source:
        windows = list(pieces(info))
        assert len(windows) > 1
        for window in windows:
            source.read(window)
    assert source.found == {str(v): int((values == v).sum()) for v in range(3)}


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "float64"])
def test_found_has_stored_values_of_any_type(tmp_path, dtype):
    values = np.array([[-3 if dtype != "uint16" else 300, 0, 0, 7]]).astype(dtype)
    data = data_for({str(int(values[0, 0])): "ignore", "0": "background", "7": "road"})
    assert opened(save(tmp_path / "m.tif", values), data)[2] == {str(int(values[0, 0])): 1, "0": 2, "7": 1}


def test_found_has_colours_as_they_are_written_in_settings(tmp_path):
    colours = np.zeros((4, 5, 3), np.uint8)
    colours[0] = 0x6E, 0xC1, 0xE4
    data = data_for({"#000000": "background", "#6ec1e4": "road"})
    assert opened(save(tmp_path / "m.png", colours), data)[2] == {"#000000": 15, "#6EC1E4": 5}


def test_many_values_are_counted_by_their_keys(tmp_path):
    values = np.arange(4000).reshape(40, 100).astype(np.uint16)
    data = data_for({"0": "background", "1-9": "road", "others": "road"}, instances=True)
    labels, notes, found = opened(save(tmp_path / "m.tif", values), data)
    assert found == {"0": 1, "1-9": 9, "other values": 3990} and not notes
    assert np.array_equal(labels.instances, values)


def test_others_that_catches_several_values_is_noted_with_them(tmp_path):
    values = np.zeros((8, 8), np.uint8)
    values[0, :3], values[1, 0] = 7, 9
    data = data_for({"0": "background", "others": "road"})
    path = save(tmp_path / "m.png", values)
    assert opened(path, data)[1] == {
        "others-class": "m.png: the key `others` makes several values road: 7 (3), 9 (1)"
    }
    assert "others-class" not in opened(path, data_for({"0": 0, "others": 1}, instances=True))[1]
    values[values == 9] = 7
    assert not opened(save(path, values), data)[1]


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_others_of_wide_types_and_nodata_are_noted_too(tmp_path, dtype):
    values = np.zeros((8, 8), dtype)
    values[0, :3], values[1, 0] = 7, 90
    data = data_for({"0": "background", "others": "ignore"})
    text = opened(save(tmp_path / "m.tif", values), data)[1]["others-class"]
    assert text.startswith("m.tif: the key `others` makes several values ignored: ")
    assert "from 7 to 90" in text if dtype == "int32" else "7 (3), 90 (1)" in text
    if dtype == "uint8":
        assert "others-class" not in opened(save(tmp_path / "n.tif", values, nodata=90), data)[1]


def test_floats_near_whole_numbers_are_rounded_and_noted(tmp_path):
    values = np.array([[0, 1.0005, 2, 0.9996]], np.float32)
    data = data_for({0: 0, 1: 1, 2: 1})
    labels, notes, found = opened(save(tmp_path / "m.tif", values), data)
    assert labels.classes.tolist() == [[0, 1, 1, 1]] and found == {"0": 1, "1": 2, "2": 1}
    assert notes == {"labels-rounded": "m.tif: 2 values were rounded to whole numbers, by at most 0.0005"}


@pytest.mark.parametrize("value", [1.002, 0.5, 2.9985])
def test_other_fractions_are_refused(tmp_path, value):
    path = save(tmp_path / "m.tif", np.array([[0, value]], np.float32))
    assert fails(path, data_for({0: 0, 1: 1, 3: 1})).kind == "label-fractions"


@pytest.mark.parametrize("highest", [2, 104, 255])
def test_labels_that_nifti_scales_to_the_type_of_their_image_are_rounded(tmp_path, highest):
    values = np.zeros((12, 10, 4))
    values[2:5], values[7:9] = highest, 1
    like = Nifti1Image(np.zeros(values.shape, np.int16), np.eye(4))
    Nifti1Image(values, like.affine, like.header).to_filename(tmp_path / "m.nii.gz")
    data = data_for({0: 0, 1: 1, highest: 1})
    _, notes, found = opened(tmp_path / "m.nii.gz", data)
    assert found == {"0": int((values == 0).sum()), "1": 80, str(highest): 120}
    stored = nibabel.load(tmp_path / "m.nii.gz").get_fdata().astype(np.float32)
    assert ("labels-rounded" in notes) == bool((stored != np.round(stored)).any())


def smoothed(path, top=255, size=200):
    """A mask of a square, saved after it was blurred: many values from 0 to `top`."""
    mask = np.zeros((size, size), np.uint8)
    mask[40:150, 60:160] = 255
    blurred = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(4))).astype(float)
    return save(path, (blurred * top / 255).astype(np.uint8)), mask > 0


@pytest.mark.parametrize("top", [255, 237])
@pytest.mark.parametrize("declared", [{0: "background", 255: "road"}, {0: "background", 1: "road"}])
def test_a_smoothed_mask_is_recognised_and_the_line_of_its_remedy_reads_it(tmp_path, top, declared):
    path, mask = smoothed(tmp_path / "m.png", top)
    error = fails(path, data_for(declared))
    assert error.kind == "label-values" and "saved with smoothing" in error.what
    line = error.remedy.partition("label_values: ")[2].partition("}")[0] + "}"
    assert line == '{"0-127": background, "128-255": road}'
    classes = opened(path, data_for(yaml.safe_load(line)))[0].classes
    assert np.mean(classes == mask) > 0.98


def test_the_line_for_several_levels_ignores_what_is_between_them(tmp_path):
    mask = np.zeros((200, 200), np.uint8)
    mask[20:90], mask[110:180] = 128, 255
    blurred = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(2)))
    classes = ["background", "road", "tree"]
    declared = {0: "background", 128: "road", 255: "tree"}
    error = fails(save(tmp_path / "m.png", blurred), data_for(declared, classes))
    line = error.remedy.partition("label_values: ")[2].partition("}")[0] + "}"
    read = opened(tmp_path / "m.png", data_for(yaml.safe_load(line), classes))[0].classes
    known = read != IGNORE
    expected = np.select([mask == 0, mask == 128], [0, 1], 2)
    assert known.mean() > 0.9 and (read == expected)[known].mean() > 0.97


def test_a_photograph_is_not_taken_for_a_smoothed_mask(tmp_path):
    values = rng.normal(120, 40, (100, 100)).clip(0, 255).astype(np.uint8)
    error = fails(save(tmp_path / "m.png", values), data_for({0: "background", 255: "road"}))
    assert "smoothing" not in error.what


def test_a_jpeg_names_the_ranges_for_a_copy_as_png(tmp_path):
    _, mask = smoothed(tmp_path / "m.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "m.jpg")
    error = fails(tmp_path / "m.jpg", data_for({0: "background", 255: "road"}))
    assert error.kind == "jpeg-mask" and '{"0-127": background, "128-255": road}' in error.remedy
    Image.open(tmp_path / "m.jpg").save(tmp_path / "copy.png")
    data = data_for({"0-127": "background", "128-255": "road"})
    assert np.array_equal(opened(tmp_path / "copy.png", data)[0].classes == 1, mask)


def test_a_mask_of_an_unknown_format_names_the_extensions_of_annotations_too(tmp_path):
    (tmp_path / "m.xyz").write_bytes(b"x")
    with (
        pytest.raises(DataError) as caught,
        open_labels(tmp_path / "m.xyz", tmp_path / "i.png", Info(5, 5, 3, "uint8"), data_for({0: 0})),
    ):
        pass
    assert caught.value.kind == "unknown-format" and caught.value.what.startswith("m.xyz: ")
    assert all(ending in caught.value.remedy for ending in (".png", ".geojson", ".json", ".dcm"))
    assert ".jpg" not in caught.value.remedy


def test_hundreds_of_colours_come_from_smoothing(tmp_path):
    colours = np.zeros((60, 60, 3), np.uint8)
    colours[20:40, 20:40] = 0x6E, 0xC1, 0xE4
    blurred = np.asarray(Image.fromarray(colours).filter(ImageFilter.GaussianBlur(3)))
    path = save(tmp_path / "m.png", blurred)
    declared = {"#000000": "background", "#6EC1E4": "road"}
    error = fails(path, data_for(declared))
    assert error.kind == "label-colors" and "`others: ignore`" in error.remedy
    assert set(np.unique(opened(path, data_for({**declared, "others": "ignore"}))[0].classes)) <= {
        0,
        1,
        IGNORE,
    }


def declared_in(error):
    return yaml.safe_load(error.remedy.partition("label_values: ")[2].partition("}")[0] + "}")


@pytest.mark.parametrize("nodata", [255, 127, 0])
def test_the_ranges_for_a_smoothed_mask_leave_out_its_nodata_value(tmp_path, nodata):
    _, mask = smoothed(tmp_path / "m.png", 254)
    values = np.asarray(Image.open(tmp_path / "m.png")).copy()
    values[values == nodata] += 1
    values[:5] = nodata
    path = save(tmp_path / "m.tif", values, nodata=nodata)
    line = declared_in(
        fails(path, data_for({1: "road", 0: "background"} if nodata else {1: "background", 2: "road"}))
    )
    assert not any(str(nodata) == bound for key in line for bound in key.split("-"))
    classes = opened(path, data_for(line))[0].classes
    assert (classes[:5] == IGNORE).all() and np.mean((classes == mask)[5:]) > 0.98


def test_a_nodata_value_in_a_range_has_no_data_but_one_with_a_key_has_its_class(tmp_path):
    path = save(tmp_path / "m.tif", np.array([[0, 10, 200, 255]], np.uint8), nodata=255)
    in_range = data_for({"0-127": "background", "128-255": "road"})
    assert opened(path, in_range)[0].classes.tolist() == [[0, 0, 1, IGNORE]]
    alone = data_for({"0-127": "background", "128-254": "road", "255": "road"})
    assert opened(path, alone)[0].classes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(("bits", "factor"), [(4, 17), (2, 85)])
def test_the_line_for_a_grey_png_of_few_bits_reads_it(tmp_path, bits, factor):
    mask = np.zeros((16, 16), np.uint8)
    mask[3:9, 4:12] = 1
    rows = np.packbits(np.unpackbits(mask[..., None], axis=2)[..., -bits:].reshape(16, -1), axis=1)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 16, 16, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + t + c + struct.pack(">I", zlib.crc32(t + c)) for t, c in chunks]
    path = tmp_path / "m.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    error = fails(path, data_for({0: "background", 1: "road"}))
    assert f"{bits} bits per pixel" in error.remedy
    line = declared_in(error)
    assert line == {0: "background", factor: "road"}
    assert np.array_equal(opened(path, data_for(line))[0].classes, mask)
