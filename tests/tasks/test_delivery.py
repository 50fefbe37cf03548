"""What cannot be used holds up nothing else, and is named with the true reason."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore.errors import DataError
from tasks import receive as receiving
from tests.support.inbox import BOX, HOUR, aged, batch, kinds, look, pair, project, put
from tests.support.tiny import blobs, write_tif
from tests.system.bad_inputs import unprivileged

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    aged(path)


def test_masks_and_sidecars_wait_for_their_images_and_are_no_strays(here):
    p = project(here, images="images/*.tif", masks="masks/{stem}.tif", valid="valid/{stem}.png")
    for name in ("masks/h.tif", "valid/h.png", "images/h.tif.aux.xml", "images/h.tfw", "images/notes.docx"):
        text(BOX / name, "x")
    found = look(p)
    assert found.incomplete == ["images/h.tfw", "images/h.tif.aux.xml", "masks/h.tif", "valid/h.png"]
    assert found.strays == ["images/notes.docx"] and "4 files wait for their images" in found.text()


@pytest.mark.parametrize(
    ("images", "masks", "mask"),
    [
        ("*.png", "{stem}_mask.png", "x_mask.png"),
        ("**/*.png", "masks/{stem}.png", "masks/x.png"),
        ("*/images/*.png", "{parent2}/masks/{stem}.png", "p1/masks/x.png"),
    ],
)
def test_a_mask_that_the_pattern_of_images_matches_too_waits_for_its_image(here, images, masks, mask):
    p = project(here)
    p = p.model_copy(update={"data": p.data.model_copy(update={"images": images, "masks": masks})})
    put(BOX / mask, blobs(48, 56, seed=5)[1] * 255)
    found = look(p)
    assert found.incomplete == [mask] and found.quarantined.empty and found.strays == []


def test_an_image_whose_mask_or_sidecar_is_still_arriving_waits_with_it(here):
    p = project(here)
    pair("late", 60)
    aged(BOX / "masks/late.png", 5)
    pair("fine", 61)
    found = look(p)
    assert found.accepted == 1 and found.waiting == ["masks/late.png"]
    assert found.quarantined.empty and found.strays == [] and found.incomplete == []
    p = project(here / "second", images="images/*.tif", masks="masks/{stem}.tif")
    p = p.model_copy(update={"retrain": p.retrain.model_copy(update={"inbox": "data/tifs"})})
    image, mask = blobs(48, 56, seed=62)
    for folder, pixels in (("images", np.moveaxis(image, -1, 0)), ("masks", mask[None] * 255)):
        write_tif(Path("data/tifs") / folder / "x.tif", pixels)
        aged(Path("data/tifs") / folder / "x.tif")
        write_tif(Path("source") / folder / "a.tif", pixels)
    Path("data/tifs/images/x.tfw").write_text("0.5\n0\n0\n-0.5\n500000\n5000000\n")
    found = look(p)
    assert found.accepted == 0 and found.waiting == ["images/x.tfw"] and found.quarantined.empty


def test_an_image_in_the_wrong_folder_holds_up_no_other(here):
    p = project(here)
    change = {"images": "**/*.png", "masks": "{parent2}/masks/{stem}.png", "source": "all"}
    p = p.model_copy(update={"data": p.data.model_copy(update=change)})
    for name, seed in (("all/p0", 1), ("data/inbox/p1", 60)):
        pair("x", seed, Path(name))
    put(BOX / "lost.png", blobs(48, 56, seed=61)[0])
    found = look(p)
    assert found.accepted == 1 and list(kinds(found)) == ["lost.png"]
    assert "{parent2} of 'lost.png' does not exist" in found.quarantined["reason"].iloc[0]


def test_waiting_files_are_named_with_the_time_to_come_again(here):
    p = project(here)
    for number in range(5):
        pair(f"w{number}", 60 + number)
        aged(BOX / f"masks/w{number}.png", 5)
    words = look(p).text()
    assert "5 files changed less than 60 s ago (retrain.settle_seconds; masks/w0.png, masks/w1.png" in words
    assert "masks/w2.png, ...): run again after " in words


def test_files_of_the_future_are_taken_once_this_machine_has_seen_them_unchanged(here):
    p = project(here)
    pair("ahead", 60)
    for path in BOX.rglob("ahead.png"):
        os.utime(path, (time.time() + 4 * HOUR,) * 2)
    found = look(p)
    assert found.accepted == 0 and len(found.waiting) == 2 and len(found.future) == 2
    assert "2 files dated in the future (images/ahead.png, masks/ahead.png)" in found.text()
    assert look(p, now=time.time() + 61).accepted == 1


def test_links_pipes_and_folders_are_named_once_and_the_sound_items_go_on(here):
    p = project(here)
    for name in ("link", "pipe", "dir", "fine"):
        pair(name, 60 + len(name))
    (BOX / "masks/link.png").rename("elsewhere.png")
    (BOX / "masks/link.png").symlink_to(Path("elsewhere.png").absolute())
    (BOX / "images/pipe.png").unlink()
    os.mkfifo(BOX / "images/pipe.png")
    (BOX / "images/dir.png").unlink()
    (BOX / "images/dir.png").mkdir()
    text(BOX / "images/dir.png/a.txt", "x")
    text(BOX / "images/..dots.png", "x")
    found = look(p)
    assert found.accepted == 1 and found.waiting == [] and found.strays == [] and found.incomplete == []
    reasons = dict(zip(found.quarantined["image"], found.quarantined["reason"], strict=True))
    assert reasons == {
        "images/dir.png": "images/dir.png: is a folder, not a file",
        "images/link.png": "masks/link.png: is a symbolic link",
        "images/pipe.png": "images/pipe.png: is a FIFO (named pipe), not a file",
    }
    assert "1 hidden file ignored (images/..dots.png)" in found.text()


def test_names_that_cannot_be_printed_are_escaped_and_hold_up_no_others(here):
    p = project(here)
    names = [
        "new\nline",
        "tab\tname",
        "\udcffbad",
        ".\udcffhidden",
        "n" * 200,
        "Ünï 'x' &amp;",
        "-dash",
        "100%",
    ]
    for number, name in enumerate(names):
        pair(name, 60 + number)
    found = look(p)
    assert (
        found.accepted == 4 and set(found.quarantined["kind"]) == {"bad-name"} and len(found.quarantined) == 6
    )
    receiving.show(found)
    words = [*found.quarantined["image"], *found.quarantined["reason"], found.text()]
    assert all(word.isprintable() for word in words) and "images/.\\udcffhidden.png" in found.text()


def as_a_user() -> dict:
    """What a user without root's permissions would receive."""
    code = (
        "import json; from tests.support.inbox import *; from tests.support.tiny import params_for\n"
        "found = look(params_for('source'))\n"
        "rows = found.quarantined[['image', 'kind', 'reason']].to_dict('records')\n"
        "print(json.dumps([found.accepted, rows, found.strays]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=unprivileged.drop,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accepted, rows, strays = json.loads(done.stdout.splitlines()[-1])
    return {"accepted": accepted, "rows": {row["image"]: row for row in rows}, "strays": strays}


def test_files_that_may_not_be_read_are_named_and_the_sound_ones_go_on(here):
    project(here)
    for number in range(3):
        pair(f"u{number}", 60 + number)
    (BOX / "masks/u0.png").chmod(0)
    (BOX / "images/u1.png").chmod(0)
    found = as_a_user()
    assert found["accepted"] == 1 and found["strays"] == []
    assert {image: row["kind"] for image, row in found["rows"].items()} == {
        "images/u0.png": "no-permission",
        "images/u1.png": "no-permission",
    }
    assert found["rows"]["images/u0.png"]["reason"] == "masks/u0.png: cannot be read (Permission denied)"


def test_a_folder_that_may_not_be_listed_is_the_reason_for_the_images_without_masks(here):
    project(here)
    pair("u0", 60)
    (BOX / "masks").chmod(0)
    try:
        found = as_a_user()
    finally:
        (BOX / "masks").chmod(0o755)
    assert found["rows"]["masks"]["reason"] == "masks: cannot be listed (Permission denied)"
    assert "masks, which cannot be listed" in found["rows"]["images/u0.png"]["reason"]
    assert found["rows"]["images/u0.png"]["kind"] == "no-permission"


def test_a_failed_round_leaves_no_copies_and_the_inbox_whole(here, monkeypatch):
    p = project(here)
    pair("n", 60)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(receiving.Inbox, "copy", full)
    with pytest.raises(DataError, match=r"No space left on device[\s\S]*free disk space"):
        look(p)
    assert sorted(path.name for path in Path("work/receive/tiny").iterdir()) == ["lock"]
    assert len([path for path in BOX.rglob("*.png") if path.is_file()]) == 2


def test_fewer_items_than_a_round_needs_stay_in_the_inbox(here):
    p = project(here, {"at_least": {"items": 3}})
    for name, seed in (("n1", 60), ("n2", 61), ("twice", 61), ("old", 1)):
        pair(name, seed)
    found = look(p)
    assert (found.batch, found.accepted, found.held) == (None, 0, 2)
    assert "2 new items wait for retrain.at_least.items: 3" in found.text()
    pair("n3", 62)
    assert look(p).accepted == 3


def test_a_list_before_its_images_waits_and_its_strays_are_explained(here):
    p = project(here, listing="items.csv")
    rows = "".join(f"images/a{n}.png,masks/a{n}.png\n" for n in range(3))
    text(Path("source/items.csv"), f"image,mask\n{rows}")
    assert look(p).text() == "0 would be accepted", "an empty inbox is no error"
    pair("n1", 60)
    found = look(p)
    assert (
        found.strays == ["images/n1.png", "masks/n1.png"] and found.stray_reason == "not named in items.csv"
    )
    text(BOX / "items.csv", "image,mask\nimages/n1.png,masks/n1.png\nimages/n2.png,masks/n2.png\n")
    found = look(p)
    assert found.accepted == 1 and found.incomplete == ["items.csv"] and found.quarantined.empty
    text(BOX / "items.csv", "image,label\n")
    found = look(p)
    assert found.accepted == 0 and kinds(found) == {"items.csv": "no-list"}


def test_a_list_that_names_items_of_a_batch_says_nothing_about_them(here):
    p = project(here, listing="items.csv")
    text(Path("source/items.csv"), "image,mask\nimages/a0.png,masks/a0.png\n")
    folder = batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"n1": 60})
    for place in (folder, BOX):
        text(place / "items.csv", "image,mask\nimages/n1.png,masks/n1.png\n")
    assert look(p).text() == "0 would be accepted"


def coco(folder, names, split="train"):
    file = folder / f"annotations/instances_{split}.json"
    size = {"height": 48, "width": 56}
    square = {"bbox": [3, 3, 9, 9], "area": 81, "iscrowd": 0, "segmentation": [[3, 3, 12, 3, 12, 12, 3, 12]]}
    content = {
        "images": [{"id": n, "file_name": name, **size} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, **square} for n in range(len(names))],
        "categories": [{"id": 1, "name": "square"}],
    }
    text(file, json.dumps(content))


def test_annotations_before_their_images_wait_and_damaged_ones_hold_up_no_others(here):
    p = project(here, layout="coco", label_values={"square": 1})
    for folder, seed, split in ((Path("source"), 1, "train"), (BOX, 60, "train"), (BOX, 61, "val")):
        put(folder / f"{split}/{seed}.png", blobs(48, 56, seed=seed)[0])
    coco(Path("source"), ["1.png"])
    found = look(p)
    assert (
        found.strays == ["train/60.png", "val/61.png"] and "not listed in annotations/" in found.stray_reason
    )
    coco(BOX, ["60.png"])
    aged(BOX / "annotations/instances_train.json", 5)
    assert look(p).strays == [], "they may be listed in the file that is still arriving"
    coco(BOX, ["60.png", "missing.png"])
    text(BOX / "annotations/instances_val.json", "{")
    found = look(p)
    assert found.accepted == 1 and kinds(found) == {"annotations/instances_val.json": "no-list"}
    assert found.incomplete == ["annotations/instances_train.json"] and found.strays == ["val/61.png"]


def test_an_inbox_that_is_gone_is_an_error(here):
    p = project(here, {"inbox": str(here.parent / "nomount/inbox")})
    with pytest.raises(DataError, match="does not exist"):
        look(p)


def keep(here, **data):
    return project(here, {"taken": "keep"}, **data)


def after_keeping(p):
    """Note that all files of the inbox were accepted."""
    files = receiving.Inbox(p.retrain.inbox).settled(0, 10**10)
    Path("work/receive/tiny").mkdir(parents=True, exist_ok=True)
    Path("work/receive/tiny/taken.json").write_text(json.dumps(sorted(files)))


def test_kept_items_are_not_read_again_and_changed_ones_are(here):
    p = keep(here)
    for name, seed in (("k1", 60), ("k2", 61), ("k3", 62)):
        pair(name, seed)
    batch(p, "20260101-aaaaaaaa", "2026-01-01T00:00:00+00:00", {"k1": 60, "k2": 61, "k3": 62})
    after_keeping(p)
    assert look(p).text() == "0 would be accepted"
    put(BOX / "masks/k1.png", 255 - np.asarray(Image.open(BOX / "masks/k1.png")))
    put(BOX / "images/k2.png", blobs(48, 56, seed=80)[0])
    pair("new", 81)
    found = look(p)
    assert kinds(found) == {"images/k1.png": "relabelled"} and found.strays == [] and found.known == []
    assert found.accepted == 2, "the changed image is a new item"


def test_a_changed_sidecar_of_a_kept_item_is_noticed(here):
    p = keep(here, images="images/*.tif", masks="masks/{stem}.tif")
    image, mask = blobs(48, 56, seed=62)
    folder = Path(p.data.batches) / "tiny/20260101-aaaaaaaa"
    for place in (BOX, folder, Path("source")):
        for kind, pixels in (("images", np.moveaxis(image, -1, 0)), ("masks", mask[None] * 255)):
            write_tif(place / kind / "x.tif", pixels, transform=None, crs=None)
            aged(place / kind / "x.tif")
    after_keeping(p)
    text(BOX / "images/x.tfw", "0.5\n0\n0\n-0.5\n600000\n5000000\n")
    text(BOX / "masks/x.tfw", "0.5\n0\n0\n-0.5\n600000\n5000000\n")
    found = look(p)
    assert kinds(found) == {"images/x.tif": "relabelled"} and found.strays == found.incomplete == []
    assert "another georeference" in found.quarantined["reason"].iloc[0]


def test_a_changed_mask_of_a_kept_image_is_noticed_where_groups_are_cells(here):
    p = keep(here, images="images/*.tif", masks="masks/{stem}.tif", group="{cell:500}")
    image, mask = blobs(48, 56, seed=62)
    for place in (BOX, Path("source")):
        for kind, pixels in (("images", np.moveaxis(image, -1, 0)), ("masks", mask[None] * 255)):
            write_tif(place / kind / "x.tif", pixels)
            aged(place / kind / "x.tif")
    after_keeping(p)
    write_tif(BOX / "masks/x.tif", 255 - mask[None] * 255)
    aged(BOX / "masks/x.tif", 2 * HOUR)
    assert kinds(look(p)) == {"images/x.tif": "relabelled"}
