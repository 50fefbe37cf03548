"""Duplicates, near duplicates and overlapping footprints are found; images that are only similar are not linked."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rasterio import Affine
from rasterio.warp import transform as reproject

from segcore.ingest.links.footprints import frames, links, same_places
from segcore.ingest.links.near_duplicates import near_duplicates
from segcore.ingest.links.perceptual_hash import signature


def landscape(seed, size=256):
    """(size, size, 3) uint8 with structure at all scales, as in natural images."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size, 3))
    for cells in (4, 8, 16, 32, 64, size):
        noise = (rng.random((cells, cells, 3)) * 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC), float)
    low, high = total.min(), total.max()
    return (40 + 170 * (total - low) / (high - low)).astype(np.uint8)


def table(pictures, shas=None):
    rows = []
    for index, pixels in enumerate(pictures):
        phash, thumb = signature(pixels, np.ones(pixels.shape[:2], bool))
        sha = shas[index] if shas else f"{index:064d}"
        rows.append({"id": f"i{index:02d}", "sha256": sha, "phash": phash, "thumb": thumb})
    return pd.DataFrame(rows)


def jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


COPIES = {
    "recompressed": jpeg,
    "brighter": lambda p: np.clip(p * 1.1 + 8, 0, 255).astype(np.uint8),
    "shifted by a pixel": lambda p: np.roll(p, 1, axis=0),
    "cropped by a pixel": lambda p: p[1:, 1:],
    "half as large": lambda p: np.asarray(Image.fromarray(p).resize((128, 128), Image.Resampling.BICUBIC)),
    "of 16 bits": lambda p: p.astype(np.uint16) * 40 + 1000,
}


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES.keys())
def test_a_changed_copy_is_a_near_duplicate(copy):
    pictures = [landscape(seed) for seed in range(6)]
    found = near_duplicates(table([*pictures, copy(pictures[3])]))
    assert found[["a", "b", "kind"]].to_numpy().tolist() == [["i03", "i06", "near-duplicate"]]
    assert "of 64 bits" in found["detail"][0]


def test_equal_content_is_a_duplicate_and_each_pair_is_returned_once_for_any_order_of_rows():
    pictures = [landscape(1), landscape(2), landscape(1), landscape(1)]
    rows = table(pictures, shas=["a" * 64, "b" * 64, "a" * 64, "c" * 64])
    found = near_duplicates(rows)
    kinds = found[["a", "b", "kind"]].to_numpy().tolist()
    near = "near-duplicate"
    assert kinds == [["i00", "i02", "duplicate"], ["i00", "i03", near], ["i02", "i03", near]]
    pd.testing.assert_frame_equal(found, near_duplicates(rows.sample(frac=1, random_state=3)))


def test_with_new_ids_only_pairs_with_one_of_them_are_returned():
    rows = table([landscape(1), landscape(1), landscape(1)])
    assert near_duplicates(rows, new=["i02"])[["a", "b"]].to_numpy().tolist() == [
        ["i00", "i02"],
        ["i01", "i02"],
    ]
    assert near_duplicates(rows, new=[]).empty


def test_flat_pictures_are_not_linked_for_being_flat():
    rng = np.random.default_rng(0)
    flat = [np.full((64, 64, 3), value, np.uint8) for value in (0, 90, 91, 255)]
    grainy = [rng.integers(100, 104, (128, 128, 3)).astype(np.uint8) for _ in range(4)]
    assert near_duplicates(table([*flat, *grainy])).empty
    same = near_duplicates(table(flat, shas=["a" * 64, "b" * 64, "a" * 64, "c" * 64]))
    assert same[["a", "b", "kind"]].to_numpy().tolist() == [["i00", "i02", "duplicate"]]


def test_pictures_are_not_linked_for_a_field_of_view_that_all_share():
    row, col = np.mgrid[:256, :256]
    inside = ((row - 128) ** 2 + (col - 128) ** 2 < 120**2)[..., None]
    discs = [np.where(inside, landscape(seed) // 2 + 100, 0).astype(np.uint8) for seed in range(12)]
    assert near_duplicates(table(discs)).empty
    again = near_duplicates(table([*discs, jpeg(discs[4])]))
    assert again[["a", "b"]].to_numpy().tolist() == [["i04", "i12"]]


def test_different_landscapes_are_not_linked():
    assert near_duplicates(table([landscape(seed, 96) for seed in range(60)])).empty


def test_items_without_a_picture_are_compared_by_content_alone():
    rows = table([landscape(1), landscape(1)], shas=["a" * 64, "a" * 64])
    rows[["phash", "thumb"]] = None
    assert near_duplicates(rows)["kind"].tolist() == ["duplicate"]


def test_a_signature_leaves_out_what_is_not_valid_and_is_the_same_each_time():
    pixels = landscape(5).astype(np.float32)
    valid = np.ones(pixels.shape[:2], bool)
    valid[:20] = False
    first = signature(pixels, valid)
    pixels[:20] = np.nan
    assert signature(pixels, valid) == first
    assert len(first[0]) == 16 and int(first[0], 16) >= 0 and len(first[1]) == 1024


def place(name, transform, height=100, width=100, crs="EPSG:32633"):
    numbers = None if transform is None else json.dumps(list(transform)[:6])
    return {"id": name, "crs": crs, "transform": numbers, "height": height, "width": width}


HERE = Affine(10, 0, 500000, 0, -10, 5000000)


def test_footprints_that_overlap_are_one_place_and_those_that_touch_are_not():
    rows = [
        place("a", HERE),
        place("b", HERE @ Affine.translation(50, 0)),  # half of it is common
        place("c", HERE @ Affine.translation(100, 0)),  # touches a
        place("d", HERE @ Affine.translation(0, 99.5)),  # half a pixel of a
        place("e", None),
        place("f", HERE, crs=None),
    ]
    found = same_places(pd.DataFrame(rows))
    assert found[["a", "b"]].to_numpy().tolist() == [["a", "b"], ["b", "c"]]
    assert found["detail"].tolist() == ["50.0% of the smaller footprint is common"] * 2


def test_the_footprint_of_a_rotated_transform_is_rotated():
    rotated = HERE @ Affine.translation(50, 50) @ Affine.rotation(45) @ Affine.translation(-50, -50)
    # outside the diamond
    corner = place("corner", HERE @ Affine.translation(-18, -18), height=20, width=20)
    # inside its upper tip
    tip = place("tip", HERE @ Affine.translation(45, -18), height=10, width=10)
    found = same_places(pd.DataFrame([place("diamond", rotated), corner, tip]))
    assert found[["a", "b"]].to_numpy().tolist() == [["diamond", "tip"]]


def test_the_same_place_is_found_across_coordinate_systems():
    (lon,), (lat,) = reproject("EPSG:32633", "EPSG:4326", [500500.0], [4999500.0])
    degree = Affine(1e-4, 0, lon - 0.002, 0, -1e-4, lat + 0.002)
    rows = [place("utm", HERE), place("degrees", degree, 40, 40, "EPSG:4326")]
    rows.append(place("far", degree @ Affine.translation(400, 0), 40, 40, "EPSG:4326"))
    found = same_places(pd.DataFrame(rows))
    assert found[["a", "b"]].to_numpy().tolist() == [["degrees", "utm"]]
    assert found["detail"][0].startswith("100.0%")


def test_frames_join_dates_of_one_grid_planes_of_one_volume_and_equal_content():
    shifted = HERE @ Affine.translation(1, 0)
    rows = [place("a", HERE), place("b", HERE), place("c", shifted), place("d", HERE, 50), place("e", None)]
    rows = pd.DataFrame([*rows, place("f", None)]).assign(sha256=list("012344"))
    assert frames(rows) == ["a", "a", "c", "d", "e", "e"]
    assert frames(rows.assign(volume=["v", "v", "v", "d", "e", "f"])) == ["v", "v", "v", "d", "e", "e"]


def test_links_name_each_pair_once_by_its_strongest_kind():
    rows = table([landscape(1), landscape(1), landscape(2)], shas=["a" * 64, "a" * 64, "b" * 64])
    places = pd.DataFrame([place(name, HERE) for name in rows["id"]]).drop(columns="id")
    found = links(pd.concat([rows, places], axis=1))
    assert found[["a", "b", "kind"]].to_numpy().tolist() == [
        ["i00", "i01", "duplicate"],
        ["i00", "i02", "same-place"],
        ["i01", "i02", "same-place"],
    ]


def test_ten_thousand_items_are_compared_in_seconds():
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 256, (10_000, 1024)).astype(np.uint8)
    rows = pd.DataFrame(
        {"id": [f"i{k:05d}" for k in range(10_000)], "sha256": [f"{k:064d}" for k in range(10_000)]}
    )
    rows["phash"] = [f"{value:016x}" for value in rng.integers(0, 2**63, 10_000)]
    rows["thumb"] = [thumb.tobytes() for thumb in thumbs]
    rows.loc[9_999, ["phash", "thumb"]] = rows.loc[17, ["phash", "thumb"]].to_numpy()
    assert near_duplicates(rows)[["a", "b"]].to_numpy().tolist() == [["i00017", "i09999"]]
