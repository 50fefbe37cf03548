"""Ingest checks every item before a second of training, and names file, reason and remedy."""

import json

import numpy as np
import pytest
from PIL import Image

from segcore import catalog
from segcore.errors import DataError
from tests.tiny import blobs, make_pairs, make_scene, params_for, write_tif


def build(folder, **data):
    return catalog.build(params_for(folder, data=data).data, folder, "0")


def test_one_row_an_item_with_checksums_and_class_pixels(pairs):
    table = build(pairs)
    assert list(table["id"]) == sorted(f"a{i}" for i in range(12))
    assert table["sha256"].str.len().eq(64).all() and (table["status"] == "accepted").all()
    pixels = [json.loads(p) for p in table["pixels_per_class"]]
    assert all(sum(p.values()) == 48 * 56 and p["square"] > 0 for p in pixels)


def test_missing_folder_names_the_setting(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder[\s\S]*data.source"):
        build(tmp_path / "nowhere")


def test_empty_folder_names_the_pattern(tmp_path):
    with pytest.raises(DataError, match=r"no image matches 'images/\*.png'[\s\S]*data.images"):
        build(tmp_path)


def test_image_without_mask_is_named(pairs):
    (pairs / "masks" / "a3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 items[\s\S]*a3.png: has no mask, masks/a3.png is missing"):
        build(pairs)


def test_mask_without_image_is_named(pairs):
    (pairs / "images" / "a3.png").unlink()
    with pytest.raises(DataError, match=r"masks/a3.png: a mask without an image"):
        build(pairs)


def test_15_masks_of_0_and_255_are_mapped_or_rejected(pairs):
    undeclared = params_for(pairs).data.model_copy(update={"label_values": {0: 0, 1: 1}})
    with pytest.raises(DataError, match=r"label values outside the declared classes: 255"):
        catalog.build(undeclared, pairs, "0")
    assert sum(json.loads(p)["square"] for p in build(pairs)["pixels_per_class"]) > 0


def test_16_label_values_are_a_subset_of_the_declared_classes(pairs):
    mask = np.zeros((48, 56), np.uint8)
    mask[:2, :3] = 7
    Image.fromarray(mask).save(pairs / "masks" / "a5.png")
    with pytest.raises(DataError, match=r"a5.png: label values outside the declared classes: 7 \(6 pixels\)"):
        build(pairs)


def test_17_jpeg_masks_are_refused(pairs):
    for mask in (pairs / "masks").iterdir():
        Image.open(mask).save(mask.with_suffix(".jpg"))
        mask.unlink()
    with pytest.raises(DataError, match="a JPEG mask has lost its exact values"):
        build(pairs, masks="masks/{stem}.jpg")


@pytest.mark.parametrize("damage", ["truncate", "garbage"])
def test_18_unreadable_files_fail_and_are_all_listed(pairs, damage):
    for name in ("a1", "a2"):
        path = pairs / "images" / f"{name}.png"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"no picture at all")
    with pytest.raises(
        DataError, match=r"2 of 12 items[\s\S]*a1.png: cannot be read[\s\S]*a2.png: cannot be read"
    ):
        build(pairs)


def test_18_a_truncated_geotiff_fails(tmp_path):
    folder = make_scene(tmp_path / "s")
    path = folder / "images" / "scene.tif"
    path.write_bytes(path.read_bytes()[:60_000])
    p = params_for(folder, scene=True)
    with pytest.raises(DataError, match=r"scene.tif: cannot be read"):
        catalog.build(p.data, folder, "0")


def test_20_size_mismatch_prints_both_sizes(pairs):
    Image.fromarray(np.zeros((48, 55), np.uint8)).save(pairs / "masks" / "a4.png")
    with pytest.raises(
        DataError, match=r"a4.png and its mask a4.png: sizes differ, image 48 x 56, mask 48 x 55"
    ):
        build(pairs)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"crs": "EPSG:32634"}, r"coordinate systems differ, image EPSG:32633, mask EPSG:32634"),
        (
            {"transform": (0.5, 0, 500001, 0, -0.5, 5000000)},
            r"affine transforms differ, image .*500000.*500001",
        ),
    ],
)
def test_20_crs_or_transform_mismatch_prints_both_values(tmp_path, profile, expected):
    import rasterio

    if "transform" in profile:
        profile = {"transform": rasterio.Affine(*profile["transform"])}
    image, mask = blobs(64, 64, 0)
    write_tif(tmp_path / "images" / "x.tif", np.moveaxis(image, -1, 0))
    write_tif(tmp_path / "masks" / "x.tif", mask[None] * 255, **profile)
    with pytest.raises(DataError, match=expected):
        catalog.build(params_for(tmp_path, scene=True).data, tmp_path, "0")


def test_another_band_count_or_dtype_is_named(pairs):
    Image.fromarray(np.zeros((48, 56), np.uint8)).save(pairs / "images" / "a9.png")
    with pytest.raises(DataError, match=r"a9.png: bands is 1, others have 3"):
        build(pairs)


def test_groups_and_ids_come_from_folders_and_never_collide(tmp_path):
    for patient in ("p 1", "p2"):
        make_pairs(tmp_path / patient, 2)
    table = build(tmp_path, images="*/images/*.png", masks="{parent2}/masks/{stem}.png", group="{parent2}")
    assert sorted(set(table["group"])) == ["p 1", "p2"]
    assert table["id"].is_unique and "p_1__images__a0" in set(table["id"])
