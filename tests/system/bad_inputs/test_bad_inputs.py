"""Each kind of bad input is found and named with a remedy, and affects no other item."""

import json
import os
import stat
from pathlib import Path

import pandas as pd
import pytest

from segcore.data.packed import Packed
from segcore.ingest import catalog
from segcore.ingest.problems import KINDS, table
from tests.support.tiny import make_pairs, params_for
from tests.system.bad_inputs import failures
from tests.system.bad_inputs.case import Case, Ingested, built
from tests.system.bad_inputs.cases import SETS, no_permission, texts
from tests.system.bad_inputs.failures import FAILURES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
ALL = [(data_set.name, case) for data_set in SETS.values() for case in data_set.cases]
# Kinds that are not caused by a single item -> the tests below that cause them.
ELSEWHERE = {
    "changed": "test_a_file_that_grows_while_it_is_read_is_not_kept",
    "slow": "test_a_reader_that_hangs_or_crashes_is_ended_and_named",
    "crashed": "test_a_reader_that_hangs_or_crashes_is_ended_and_named",
    "no-permission": "test_a_file_without_read_permission_is_reported_with_its_remedy",
    "mask-without-image": "test_a_mask_without_an_image_is_reported",
    "images-unmatched": "test_images_that_no_pattern_matches_and_their_annotations_are_reported",
    "entry-without-image": "test_images_that_no_pattern_matches_and_their_annotations_are_reported",
    "relabelled": "test_an_image_that_the_dataset_has_with_another_mask_is_refused",
    "unused-key": "test_a_key_that_no_mask_has_is_noted_once",
    "set-aside": "test_an_item_that_links_train_and_test_is_set_aside",
}


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bad-inputs")


def check_message(text: str, remedy: str, folder: Path) -> None:
    assert remedy.strip() and (text + remedy).isprintable()
    assert str(folder) not in text + remedy and "Traceback" not in text


def check_quarantined(ingested: Ingested, case: Case) -> None:
    row, pair = ingested.row(case.name), ingested.pairs[case.name]
    assert (row["status"], row["kind"]) == ("quarantined", case.kind), row["reason"]
    assert case.text in row["reason"]
    name = f"{pair.image.name!a}" if case.kind == "bad-name" else pair.named(case.of)
    assert row["reason"].startswith(name)
    assert row["packed"] is None
    check_message(row["reason"], row["remedy"], ingested.folder)


@pytest.mark.parametrize(("data_set", "case"), ALL, ids=[case.name for _, case in ALL])
def test_each_case_is_reported_with_its_kind(data_set, case, root):
    ingested = built(data_set, root)
    if case.kind and KINDS[case.kind].outcome == "quarantined":
        check_quarantined(ingested, case)
        return
    row = ingested.row(case.name)
    assert row["status"] == "accepted", (row["kind"], row["reason"])
    messages = texts(ingested, case)
    if case.kind:
        assert any(kind == case.kind and case.text in text for kind, text, _ in messages), messages
    else:
        assert messages == []


@pytest.mark.parametrize("data_set", SETS)
def test_valid_items_are_accepted_and_only_they_are_packed(data_set, root):
    ingested = built(data_set, root)
    sound = [ingested.row(f"sound{i}") for i in range(SETS[data_set].sound)]
    # Planes of volumes are in one orientation, whatever that of their files.
    usual = {"turned"} if data_set in ("volumes", "arrays", "series") else set()
    assert all(row["status"] == "accepted" for row in sound)
    assert {kind for row in sound for kind, _ in json.loads(row["notes"])} == usual
    accepted = ingested.table[ingested.table["status"] == "accepted"]
    assert {path.name for path in ingested.packed.iterdir()} >= set(accepted["packed"])
    for row in accepted.itertuples():
        shape = (row.depth, row.height, row.width)
        assert Packed(ingested.packed / row.packed).array("labels").shape == shape
        assert sum(json.loads(row.pixels_per_class).values()) + row.ignored_pixels == (
            row.depth * row.height * row.width
        )
    assert ingested.table["id"].is_unique


@pytest.mark.parametrize("case", FAILURES, ids=[case.name for case in FAILURES])
def test_failures_of_the_whole_ingest_have_a_remedy(case, tmp_path):
    error = failures.error_of(case, tmp_path / "photos")
    assert error.kind == case.kind and KINDS[case.kind].outcome == "fails"
    assert case.text in error.what, error.what
    assert error.remedy.strip() and "Traceback" not in error.what


def test_a_file_that_grows_while_it_is_read_is_not_kept(tmp_path):
    error = failures.changed_while_read(tmp_path)
    assert error.kind == "changed" and error.what == "growing.tif: was changed while it was read"


def test_a_reader_that_hangs_or_crashes_is_ended_and_named():
    errors = failures.slow_and_crashed()
    assert errors["slow"].kind == "slow" and errors["slow"].what.startswith("deep.gpkg: ")
    assert errors["crashed"].kind == "crashed" and errors["crashed"].what.startswith("odd.tif: ")


def test_a_file_without_read_permission_is_reported_with_its_remedy(tmp_path):
    ((image, kind, reason, remedy),) = no_permission(tmp_path / "photos")
    assert (image, kind) == ("images/a2.png", "no-permission") and reason.startswith(
        "a2.png: may not be read"
    )
    check_message(reason, remedy, tmp_path)


def test_masks_in_a_folder_without_read_permission_are_not_reported_as_missing(tmp_path):
    rows = no_permission(tmp_path / "photos", "masks")
    assert [kind for _, kind, *_ in rows] == ["no-permission"] * 4
    assert rows[1][2] == "a1.png: cannot be accessed, a folder of masks/a1.png may not be read"


def test_a_mask_without_an_image_is_reported(tmp_path):
    assert failures.stray_mask(tmp_path / "photos") == "masks/a1.png"


def test_images_that_no_pattern_matches_and_their_annotations_are_reported(tmp_path):
    found = failures.unmatched_files(tmp_path / "photos")
    assert found["images-unmatched"][0] == "images/a1.PNG"
    assert found["entry-without-image"][0] == "all.json" and "a1.PNG" in found["entry-without-image"][1]


def test_an_image_that_the_dataset_has_with_another_mask_is_refused(tmp_path):
    error = failures.relabelled(tmp_path)
    assert error.kind == "relabelled" and "a1.png" in error.what
    assert "replace dataset/masks/a1.png" in error.remedy and "make run" in error.remedy


def test_a_key_that_no_mask_has_is_noted_once(tmp_path):
    assert failures.unused_key(tmp_path) == "no mask of the data set has 1 of data.label_values"


def test_an_item_that_links_train_and_test_is_set_aside():
    assert "different splits" in failures.set_aside()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make device nodes")
def test_a_device_that_never_ends_is_not_read(tmp_path):
    folder = make_pairs(tmp_path / "photos", 4)
    (folder / "images" / "a1.png").unlink()
    try:
        # The device numbers of /dev/zero.
        os.mknod(folder / "images" / "a1.png", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this container may not make device nodes")
    items = catalog.build(params_for(folder).data, folder, tmp_path / "work").set_index("id")
    assert items.loc["a1", "reason"] == "a1.png: is a device, not a file"
    assert list(items["status"].drop("a1")) == ["accepted"] * 3


def test_a_second_ingest_gives_the_same_catalogue(root):
    ingested = built("scenes", root)
    data_set = SETS["scenes"]
    again = catalog.build(data_set.params(ingested.folder), ingested.folder, ingested.packed.parent)
    columns = ["id", "status", "kind", "reason", "remedy", "notes", "packed"]
    pd.testing.assert_frame_equal(ingested.table[columns], again[columns])


def test_a_new_sidecar_file_of_a_scene_is_noticed(tmp_path):
    from tests.system.bad_inputs.scenes import pair

    for i in range(2):
        pair(tmp_path / "s", f"sound{i}", i)
    data = SETS["scenes"].params(tmp_path / "s")
    before = catalog.build(data, tmp_path / "s", tmp_path / "work")
    (tmp_path / "s" / "images" / "sound0.tif.aux.xml").write_text(
        "<PAMDataset><GeoTransform>7,1,0,9,0,-1</GeoTransform></PAMDataset>"
    )
    after = catalog.build(data, tmp_path / "s", tmp_path / "work")
    assert before["packed"][0] != after["packed"][0] and before["packed"][1] == after["packed"][1]


def test_every_kind_has_a_case_and_there_are_at_least_60_cases():
    covered = {case.kind for _, case in ALL} | {case.kind for case in FAILURES} | set(ELSEWHERE)
    assert set(KINDS) - covered == set() and covered - {""} <= set(KINDS)
    assert all(name in globals() for name in ELSEWHERE.values())
    names = [case.name for _, case in ALL] + [case.name for case in FAILURES]
    assert len(names) == len(set(names)) >= 60


def test_the_document_lists_every_kind_with_its_outcome_an_example_and_a_remedy():
    text = (Path(__file__).parents[3] / "docs" / "guide" / "bad-input.md").read_text(encoding="utf-8")
    rows = {
        row[0]: row for line in text.splitlines() if (row := line.strip("| ").split(" | ")) and "`" in row[0]
    }
    for line in table().splitlines()[2:]:
        name, meaning, outcome = line.strip("| ").split(" | ")[:3]
        assert rows[name][:3] == [name, meaning, outcome]
        assert len(rows[name]) == 5 and all(cell.strip() for cell in rows[name])
