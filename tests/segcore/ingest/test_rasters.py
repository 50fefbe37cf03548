"""Items of rasters: stacks with all their parts, masks of any integers, bands that are alpha in some images."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from segcore.errors import DataError
from segcore.ingest import catalog
from segcore.io import annotations, images
from segcore.io.bands import Declared
from segcore.params.data import Data
from tests.support.images import NOISE, RNG
from tests.support.tiff import noise, write_tiff
from tests.support.tiny import params_for, write_tif

MASK = np.zeros((40, 50), np.uint8)
MASK[5:20, 10:30] = 1
STACK = np.stack([np.roll(MASK, step, axis=1) for step in (0, 3, 6)])


def data(folder, **over):
    return params_for(
        folder, data={"images": "images/*", "masks": "masks/{stem}.tif", "label_values": {0: 0, 1: 1}, **over}
    ).data


def build(folder, **over):
    folder.joinpath("work").mkdir(exist_ok=True)
    return catalog.build(data(folder, **over), folder, folder / "work")


def labels(path, like, **over):
    """Class indices of a mask of an image of 40 x 50 pixels."""
    settings = Data(
        name="x", source=".", classes=["a", "b"], background="a", colors=[(0, 0, 0), (9, 9, 9)], **over
    )
    return annotations.read_labels(path, like, images.info(like), settings).classes


@pytest.mark.parametrize("setting", [None, "planes"])
def test_a_stack_is_ingested_with_the_stacks_of_its_labels_valid_pixels_and_baselines(tmp_path, setting):
    text = "ImageJ=1.54\nimages=3\nslices=3\n" if setting is None else ""
    valid = np.ones_like(STACK)
    valid[1, :, :8] = 0
    for index in range(4):
        parts = {"images": noise(3, 40, 50, seed=index), "masks": STACK, "valid": valid, "other": 1 - STACK}
        for name, pages in parts.items():
            path = tmp_path / name / f"s{index}.tif"
            path.parent.mkdir(exist_ok=True)
            tags = {270: text} if text and name == "images" else {}
            write_tiff(path, [(page, tags if number == 0 else {}) for number, page in enumerate(pages)])
    over = {"valid": "valid/{stem}.tif", "baselines": {"second": "other/{stem}.tif"}, "pages": setting}
    table = build(tmp_path, **over)
    assert list(table["status"]) == ["accepted"] * 4, list(table["reason"])
    row = table.iloc[0]
    assert (row["depth"], row["bands"]) == (3, 1)
    packed = load_file(tmp_path / "work" / "items" / row["packed"])
    assert np.array_equal(packed["pixels"][..., 0], noise(3, 40, 50, seed=0))
    assert np.array_equal(packed["labels"], np.where(valid > 0, STACK, 255))
    assert np.array_equal(packed["baselines"][0], np.where(valid > 0, 1 - STACK, 255))
    notes = [text for kind, text in json.loads(row["notes"]) if kind == "pages-read"]
    assert notes[0].startswith("3 pages are read as 3 planes") and notes[1].startswith("s0.tif: 3 pages")


def test_a_mask_with_fewer_pages_than_its_stack_is_a_mismatch(tmp_path):
    for index in range(2):
        for name, pages in (("images", noise(3, 40, 50, seed=index)), ("masks", STACK[: 3 - index])):
            (tmp_path / name).mkdir(exist_ok=True)
            write_tiff(tmp_path / name / f"s{index}.tif", [(page, {}) for page in pages])
    table = build(tmp_path, pages="planes").set_index("id")
    assert table.at["s0", "status"] == "accepted" and table.at["s1", "kind"] == "size-mismatch"
    assert "image 3 x 40 x 50, mask 2 x 40 x 50" in table.at["s1", "reason"]


def test_a_mask_of_several_pages_beside_a_picture_is_not_its_first_page(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, photometric="RGB")
    write_tiff(tmp_path / "m.tif", [(page, {}) for page in STACK])
    with pytest.raises(DataError, match="has 3 pages"):
        labels(tmp_path / "m.tif", tmp_path / "a.tif", label_values={0: 0, 1: 1})


def test_images_of_which_one_is_transparent_are_read_alike_by_the_remedy(tmp_path):
    for index in range(4):
        infrared = RNG.integers(1, 200, (1, 40, 50)).astype(np.uint8)
        fourth = np.where(STACK[:1] > 0, 0, 255).astype(np.uint8) if index == 0 else infrared
        write_tif(
            tmp_path / "images" / f"a{index}.tif", np.concatenate([noise(3, 40, 50, seed=index), fourth])
        )
        write_tif(tmp_path / "masks" / f"a{index}.tif", MASK[None])
    row = build(tmp_path).set_index("id").loc["a0"]
    assert row["kind"] == "band-count" and "set data.bands to [1, 2, 3, 4] or to [1, 2, 3]" in row["remedy"]
    for bands in ([1, 2, 3, 4], [1, 2, 3]):
        table = build(tmp_path, bands=bands)
        assert set(table["status"]) == {"accepted"} and set(table["bands"]) == {len(bands)}


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("int32", "-9999"),
        ("uint32", "4294967295"),
        ("int64", "255"),
        ("int64", "-9223372036854775808"),
        ("uint64", "18446744073709551615"),
        ("int8", "-128"),
        ("int16", "-32768"),
        ("float32", "-3.4028234663852886e+38"),
        ("float32", "-3.40282e+38"),
        ("float32", "nan"),
    ],
)
def test_nodata_of_a_mask_is_ignored_whatever_its_type(tmp_path, dtype, nodata):
    write_tif(tmp_path / "a.tif", NOISE, photometric="RGB")
    mask = MASK.astype(dtype)
    mask[:3] = (float if dtype == "float32" else int)(nodata)
    write_tiff(tmp_path / "m.tif", [(mask, {42113: nodata})])
    found = labels(tmp_path / "m.tif", tmp_path / "a.tif", label_values={0: 0, 1: 1})
    assert (found[:3] == 255).all() and np.array_equal(found[3:], MASK[3:])


def test_nodata_of_images_of_64_bits_is_stored_in_the_catalogue(tmp_path):
    for index, nodata in enumerate((2**64 - 1, 0)):
        pixels = noise(40, 50, dtype="uint64", seed=index)
        pixels[:4] = nodata
        for name, array, tags in (("images", pixels, {42113: str(nodata)}), ("masks", MASK, {})):
            (tmp_path / name).mkdir(exist_ok=True)
            write_tiff(tmp_path / name / f"a{index}.tif", [(array, tags)])
    table = build(tmp_path)
    table.to_parquet(tmp_path / "t.parquet")
    assert list(table["nodata"]) == [2.0**64, 0.0] and (table["ignored_pixels"] == 200).all()


@pytest.mark.parametrize("nodata", [-3.4e38, -3.40282e38, 1e300, -9999, 70000])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_the_nodata_setting_is_compared_like_that_of_a_file(tmp_path, nodata, dtype):
    pixels = NOISE.astype(dtype)
    fits = dtype == "float32" and abs(nodata) < 1e300
    if fits:
        pixels[:, :5] = np.finfo("float32").min if nodata == -3.40282e38 else nodata
    write_tif(tmp_path / "a.tif", pixels)
    with images.open_source(tmp_path / "a.tif") as source, warnings.catch_warnings():
        warnings.simplefilter("error")
        declared = Declared(source, data(tmp_path, nodata=nodata), "a.tif")
        _, valid = declared.read((0, 0, 40, 50))
    assert valid[5:].all() and valid[:5].all() != fits


def test_nodata_outside_the_type_of_a_mask_ignores_nothing(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, photometric="RGB")
    write_tiff(tmp_path / "m.tif", [(MASK, {42113: "-9999"})])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = labels(tmp_path / "m.tif", tmp_path / "a.tif", label_values={0: 0, 1: 1})
    assert np.array_equal(found, MASK)


def test_a_coloured_mask_with_transparency_is_read_by_its_colours(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, photometric="RGB")
    colours = np.where(MASK[..., None] > 0, (255, 0, 0), (0, 0, 0)).astype(np.uint8)
    alpha = np.full(MASK.shape, 255, np.uint8)
    alpha[:3] = 0
    Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "m.tif")
    found = labels(tmp_path / "m.tif", tmp_path / "a.tif", label_values={"#000000": "a", "#FF0000": "b"})
    assert (found[:3] == 255).all() and np.array_equal(found[3:], MASK[3:])


def test_world_files_beside_images_are_no_items(tmp_path):
    for index in range(3):
        write_tif(
            tmp_path / "images" / f"a{index}.tif", noise(3, 40, 50, seed=index), crs=None, transform=None
        )
        (tmp_path / "images" / f"a{index}.tfw").write_text(f"1\n0\n0\n-1\n{100 * index}.5\n-0.5\n")
        (tmp_path / "images" / f"a{index}_RPC.TXT").write_text("")
        write_tif(tmp_path / "masks" / f"a{index}.tif", MASK[None], crs=None, transform=None)
    table = build(tmp_path)
    assert list(table["status"]) == ["accepted"] * 3
    assert [json.loads(t)[2] for t in table["transform"]] == [0, 100, 200]
    before = table["packed"].to_list()
    (tmp_path / "images" / "a1.tfw").write_text("1\n0\n0\n-1\n900.5\n-0.5\n")
    again = build(tmp_path)
    assert [a == b for a, b in zip(before, again["packed"], strict=True)] == [True, False, True]
    assert json.loads(again["transform"][1])[2] == 900
