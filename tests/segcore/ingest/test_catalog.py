"""The ingest checks every item before training, quarantines unusable items, and continues with the others."""

import json

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from segcore.errors import DataError
from segcore.ingest import catalog, item_reading
from segcore.ingest.problems import KINDS
from segcore.ingest.reader_pool import run_each
from tests.support import broken_reader
from tests.support.changed_code import Code
from tests.support.tiny import blobs, make_pairs, make_scene, params_for, write_tif
from tests.support.volumes import affine_for, write_nifti


def build(folder, scene=False, **data):
    p = params_for(folder, scene=scene, data=data)
    table = catalog.build(p.data, folder, folder.parent / "work")
    assert set(table["kind"]) <= {"", *KINDS}
    return table


def bad(table) -> pd.DataFrame:
    """Quarantined rows by the name of their image."""
    rows = table[table["status"] == "quarantined"]
    return rows.set_index(rows["image"].map(lambda image: image.rpartition("/")[2]))


def test_one_row_per_item_with_checksums_and_class_pixels(pairs):
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
    table = bad(build(pairs))
    assert list(table.index) == ["a3.png"] and table.at["a3.png", "kind"] == "missing-mask"
    assert table.at["a3.png", "reason"] == "a3.png: has no mask, masks/a3.png is missing"


def test_masks_of_0_and_255_are_mapped_or_rejected(pairs):
    p = params_for(pairs).data.model_copy(update={"label_values": {0: 0, 1: 1}})
    table = catalog.build(p, pairs, pairs.parent / "work")
    assert set(table["kind"]) == {"label-values"}
    with pytest.raises(DataError, match=r"12 of 12 items[\s\S]*outside the declared classes: 255") as caught:
        catalog.require_enough(table, p)
    assert caught.value.what.count("outside") == 3 and caught.value.what.endswith("\n  and 9 more")
    assert sum(json.loads(p)["square"] for p in build(pairs)["pixels_per_class"]) > 0


def test_label_values_are_a_subset_of_the_declared_classes(pairs):
    mask = np.zeros((48, 56), np.uint8)
    mask[:2, :3] = 7
    Image.fromarray(mask).save(pairs / "masks" / "a5.png")
    reason = bad(build(pairs)).at["a5.png", "reason"]
    assert "label values outside the declared classes: 7 (6)" in reason


def test_jpeg_masks_are_refused(pairs):
    for mask in (pairs / "masks").iterdir():
        Image.open(mask).save(mask.with_suffix(".jpg"))
        mask.unlink()
    assert set(bad(build(pairs, masks="masks/{stem}.jpg"))["kind"]) == {"jpeg-mask"}


@pytest.mark.parametrize("damage", ["truncate", "garbage"])
def test_unreadable_files_are_quarantined_and_all_others_are_accepted(pairs, damage):
    for name in ("a1", "a2"):
        path = pairs / "images" / f"{name}.png"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"no picture at all")
    table = build(pairs)
    assert list(bad(table)["kind"]) == ["unreadable"] * 2 and (table["status"] == "accepted").sum() == 10
    assert all(r.startswith(f"{n}: ") for n, r in bad(table)["reason"].items())


def test_a_truncated_geotiff_is_quarantined(tmp_path):
    folder = make_scene(tmp_path / "s")
    path = folder / "images" / "scene.tif"
    path.write_bytes(path.read_bytes()[:60_000])
    assert bad(build(folder, scene=True)).at["scene.tif", "kind"] == "unreadable"


def test_size_mismatch_prints_both_sizes(pairs):
    Image.fromarray(np.zeros((48, 55), np.uint8)).save(pairs / "masks" / "a4.png")
    reason = bad(build(pairs)).at["a4.png", "reason"]
    assert (
        reason
        == "a4.png and its mask masks/a4.png: sizes differ in height x width, image 48 x 56, mask 48 x 55"
    )


@pytest.mark.parametrize(
    ("profile", "kind", "values"),
    [
        ({"crs": "EPSG:32634"}, "crs-mismatch", ("EPSG:32633", "EPSG:32634")),
        ({"transform": (0.5, 0, 500001, 0, -0.5, 5000000)}, "transform-mismatch", ("500000", "500001")),
    ],
)
def test_crs_or_transform_mismatch_prints_both_values(tmp_path, profile, kind, values):

    if "transform" in profile:
        profile = {"transform": rasterio.Affine(*profile["transform"])}
    image, mask = blobs(64, 64, 0)
    write_tif(tmp_path / "s" / "images" / "x.tif", np.moveaxis(image, -1, 0))
    write_tif(tmp_path / "s" / "masks" / "x.tif", mask[None] * 255, **profile)
    row = bad(build(tmp_path / "s", scene=True)).loc["x.tif"]
    assert row["kind"] == kind and all(v in row["reason"] for v in values)


def test_another_band_count_or_dtype_is_named(pairs):
    Image.fromarray(blobs(48, 56, 9)[0][..., 0]).save(pairs / "images" / "a9.png")
    row = bad(build(pairs)).loc["a9.png"]
    assert row["kind"] == "band-count" and row["reason"] == "a9.png: bands is 1, most others have 3"


def test_groups_and_ids_come_from_folders_and_never_collide(tmp_path):
    for patient in ("p 1", "p2"):
        make_pairs(tmp_path / "s" / patient, 2)
    table = build(
        tmp_path / "s", images="*/images/*.png", masks="{parent2}/masks/{stem}.png", group="{parent2}"
    )
    assert sorted(set(table["group"])) == ["p 1", "p2"]
    assert table["id"].is_unique and "p_1__images__a0" in set(table["id"])


def test_repaired_items_are_accepted_and_no_other_item_is_read_again(pairs, monkeypatch):
    path = pairs / "images" / "a3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    before = build(pairs)
    path.write_bytes(whole)
    read = []
    real = item_reading.run_each
    monkeypatch.setattr(
        item_reading,
        "run_each",
        lambda f, jobs, *rest, **k: read.extend(j[0].id for j in jobs) or real(f, jobs, *rest, **k),
    )
    after = build(pairs).reset_index(drop=True)
    assert list(bad(before).index) == ["a3.png"] and bad(after).empty and read == ["a3"]
    same = before["id"] != "a3"
    pd.testing.assert_frame_equal(before[same], after[same], check_dtype=False)


def test_a_reader_that_crashes_hangs_or_runs_out_of_memory_costs_one_item_only(tmp_path):
    jobs = ["fine", "crash", "hang", "memory", "error", "also fine"]
    found = dict(run_each(broken_reader.read, jobs, list("abcdef"), [20, 20, 2, 20, 20, 20]))
    assert found[0] == "fine" and found[5] == "also fine"
    assert [found[i].kind for i in (1, 2, 3, 4)] == ["crashed", "slow", "crashed", "crashed"]
    assert "KeyError" in found[4].what and found[4].what.startswith("e: ")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_crash_is_the_error_of_its_own_item_however_many_there_are(workers):
    jobs = ["crash", "fine", "crash", "crash", "fine"] * 6
    names = [f"{index}.tif" for index in range(len(jobs))]
    found = dict(run_each(broken_reader.read, jobs, names, [20] * len(jobs), workers))
    assert [found[index] for index, job in enumerate(jobs) if job == "fine"] == ["fine"] * 12
    crashed = [(index, found[index]) for index, job in enumerate(jobs) if job == "crash"]
    assert all(e.kind == "crashed" and e.what.startswith(f"{index}.tif: ") for index, e in crashed)


def test_a_full_disk_ends_the_ingest_and_blames_no_item():
    with pytest.raises(DataError, match=r"cannot be packed[\s\S]*free disk space"):
        list(run_each(broken_reader.read, ["full"], ["a"], [20]))


def test_items_that_an_interrupted_ingest_has_read_are_not_read_again(pairs, tmp_path, monkeypatch):
    p, work, read = params_for(pairs).data, tmp_path / "work", []

    def counted(function, jobs, *rest):
        read.append(len(jobs))
        return run_each(function, jobs, *rest)

    def stops(found, total):
        for number, result in enumerate(found):
            if number == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(item_reading, "run_each", counted)
    with pytest.raises(KeyboardInterrupt):
        catalog.build(p, pairs, work, progress=stops)
    (added,) = work.glob("rows/*/rows.jsonl")
    with added.open("a") as stream:
        stream.write('{"id": "cut in the mid')
    assert (catalog.build(p, pairs, work)["status"] == "accepted").all()
    assert (catalog.build(p, pairs, work)["status"] == "accepted").all()
    assert read == [12, 7, 0] and not added.exists()


def test_volumes_are_read_again_when_the_code_that_orients_their_planes_changes(tmp_path, monkeypatch):
    code, read = Code(tmp_path / "code", monkeypatch), []

    def counted(function, jobs, *rest):
        read.append(len(jobs))
        return run_each(function, jobs, *rest)

    for name, values in (("images", 100), ("masks", 2)):
        for i in range(2):
            voxels = np.random.default_rng(i).integers(0, values, (6, 40, 40)).astype(np.uint8)
            write_nifti(tmp_path / "source" / name / f"v{i}.nii", voxels, affine_for("RAS"))
    names = {"images": "images/*.nii", "masks": "masks/{stem}.nii", "label_values": {1: 1}}
    data = params_for(tmp_path / "source", data=names).data
    monkeypatch.setattr(item_reading, "run_each", counted)
    for changed in (None, None, "data/volumes.py", None):
        if changed:
            code.change(changed)
        table = catalog.build(data, tmp_path / "source", tmp_path / "work")
        assert list(table["status"]) == ["accepted"] * 2, list(table["reason"])
    assert read == [2, 0, 2, 0]


def scenes_with_scales(folder, scales):
    for i, (scale, offset) in enumerate(scales):
        image, mask = blobs(64, 64, i)
        place = rasterio.Affine(0.5, 0, 500_000 + 100 * i, 0, -0.5, 5_000_000)
        write_tif(folder / f"images/s{i}.tif", np.moveaxis(image, -1, 0).astype(np.uint16), transform=place)
        write_tif(folder / f"masks/s{i}.tif", mask[None] * 255, transform=place)
        with rasterio.open(folder / f"images/s{i}.tif", "r+") as file:
            file.scales, file.offsets = (scale,) * 3, (offset,) * 3
    return folder


def test_images_of_another_declared_scale_are_quarantined_and_scales_of_masks_are_noted(tmp_path):
    folder = scenes_with_scales(tmp_path / "s", [(1e-4, -0.1), (1e-4, 0), (1e-4, -0.1), (1, 0)])
    with rasterio.open(folder / "masks/s2.tif", "r+") as file:
        file.scales = (255,)
    table = build(folder, scene=True)
    rows = bad(table)
    assert set(rows.index) == {"s1.tif", "s3.tif"} and set(rows["kind"]) == {"other-scale"}
    assert rows.at["s1.tif", "reason"] == "s1.tif: declares its values x 0.0001 + 0, others x 0.0001 - 0.1"
    assert rows.at["s3.tif", "reason"] == "s3.tif: declares its values x 1 + 0, others x 0.0001 - 0.1"
    notes = json.loads(table.set_index("id").at["s2", "notes"])
    assert [kind for kind, _ in notes] == ["scale-ignored", "scale-ignored"]


def test_images_of_one_declared_scale_are_accepted_with_a_note(tmp_path):
    table = build(scenes_with_scales(tmp_path / "s", [(1e-4, -0.1)] * 2), scene=True)
    assert list(table["status"]) == ["accepted"] * 2
    assert all("scale-ignored" in notes for notes in table["notes"])


def test_a_damaged_mask_that_is_named_like_its_image_is_named_with_its_folder(pairs):
    mask = pairs / "masks" / "a4.png"
    mask.write_bytes(mask.read_bytes()[:60])
    assert bad(build(pairs)).at["a4.png", "reason"].startswith("masks/a4.png: ")
    image = pairs / "images" / "a5.png"
    image.write_bytes(image.read_bytes()[:60])
    assert bad(build(pairs)).at["a5.png", "reason"].startswith("a5.png: ")
