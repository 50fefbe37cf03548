"""Every file of an item counts: its pixels, its hash, its stamp and its place in the catalogue."""

import json

import numpy as np
import pytest
from PIL import Image

from segcore.data.packed import Packed
from segcore.ingest import catalog
from segcore.ingest.cache import settings_fingerprint
from segcore.ingest.source_files import files_of_row, more_files
from tests.support.tiny import params_for

rng = np.random.default_rng(0)
BANDS = {
    "images": ["images/{n}_r.png", "images/{n}_n.png"],
    "masks": {"road": "masks/{n}_road.png", "tree": "masks/{n}_tree*.png"},
    "group": "{n}",
    "classes": ["background", "road", "tree"],
    "colors": [[0, 0, 0]] * 3,
}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two items of two bands, with masks of two classes."""
    for n in range(2):
        for band in "rn":
            save(tmp_path / f"s/images/{n}_{band}.png", rng.integers(0, 255, (24, 30), dtype=np.uint8))
        for name in ("road", "tree1", "tree2"):
            save(tmp_path / f"s/masks/{n}_{name}.png", (rng.random((24, 30)) > 0.8).astype(np.uint8) * 255)
    return tmp_path


def build(folder, **over):
    return catalog.build(params_for("s", data={**BANDS, **over}).data, folder / "s", folder / "work")


def packed(folder, row):
    return Packed(folder / "work/items" / row["packed"])


def read(path):
    return np.asarray(Image.open(path))


def test_bands_and_classes_of_all_files_are_packed_and_their_files_are_in_the_catalogue(folder):
    table = build(folder)
    assert (table["status"] == "accepted").all() and list(table["bands"]) == [2, 2]
    for n, row in enumerate(table.to_dict("records")):
        item = packed(folder, row)
        bands = [read(folder / f"s/images/{n}_{band}.png") for band in "rn"]
        assert np.array_equal(item.array("pixels")[0], np.stack(bands, -1))
        road, one, two = (read(folder / f"s/masks/{n}_{m}.png") > 0 for m in ("road", "tree1", "tree2"))
        assert np.array_equal(item.array("labels")[0], np.where(one | two, 2, road))
        assert row["image"] == f"images/{n}_r.png" and row["label"] == f"masks/{n}_road.png"
        names = [f"{n}_n.png", f"{n}_road.png", f"{n}_tree1.png", f"{n}_tree2.png"]
        assert [name.rpartition("/")[2] for name in more_files(row)] == names
        assert sorted(p.name for p in files_of_row(row, folder / "s")) == sorted([f"{n}_r.png", *names])
        assert json.loads(row["label_counts"]) == {
            "road": int(road.sum()),
            "tree": int(one.sum() + two.sum()),
        }
        assert row["bytes"] == sum((folder / f"s/images/{n}_{band}.png").stat().st_size for band in "rn")


@pytest.mark.parametrize("name", ["images/0_n.png", "masks/0_tree2.png"])
def test_a_change_of_any_file_is_read_and_gives_another_packed_file(folder, name):
    before = build(folder)
    save(folder / "s" / name, 255 - read(folder / "s" / name))
    after = build(folder)
    same = before["packed"] == after["packed"]
    assert same.tolist() == [False, True]
    column = "sha256" if name.startswith("images") else "label_sha256"
    assert before[column][0] != after[column][0] and before[column][1] == after[column][1]


def test_an_item_whose_object_or_class_file_was_removed_is_read_again(folder):
    before = build(folder)
    (folder / "s/masks/0_road.png").unlink()
    after = build(folder)
    assert before["packed"][0] != after["packed"][0]
    assert ["class-absent", "has no mask of road (masks/0_road.png)"] in json.loads(after["notes"][0])
    assert set(np.unique(packed(folder, after.loc[0]).array("labels"))) == {0, 2}


def test_the_order_of_the_classes_is_part_of_the_settings_that_files_are_read_with(folder):
    swapped = dict(reversed(BANDS["masks"].items()))
    first, second = (params_for("s", data={**BANDS, "masks": m}).data for m in (BANDS["masks"], swapped))
    assert settings_fingerprint(first) != settings_fingerprint(second)
    build(folder)
    row = build(folder, masks=swapped).loc[0]
    road, one, two = (read(folder / f"s/masks/0_{m}.png") > 0 for m in ("road", "tree1", "tree2"))
    expected = np.where(road, 1, np.where(one | two, 2, 0))
    assert np.array_equal(packed(folder, row).array("labels")[0], expected)


def test_ordinary_items_have_no_value_in_the_columns_of_further_files(tmp_path):
    save(tmp_path / "s/images/a.png", rng.integers(0, 255, (24, 30), dtype=np.uint8))
    save(tmp_path / "s/masks/a.png", (rng.random((24, 30)) > 0.5).astype(np.uint8) * 255)
    table = catalog.build(params_for("s").data, tmp_path / "s", tmp_path / "work")
    assert table[["channels", "parts"]].isna().all().all()
    old = table.drop(columns=["channels", "parts"]).to_dict("records")[0]
    assert [p.name for p in files_of_row(old, tmp_path / "s")] == ["a.png", "a.png"]
