"""The inbox knows every file of an item: none is left behind, none is taken twice."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.receive import receive
from tests.support import workspaces
from tests.support.inbox import BOX, kinds, look, project, put

rng = np.random.default_rng(0)
SEVERAL = {
    "images": ["images/{n}_r.png", "images/{n}_i.png"],
    "masks": {"road": "masks/{n}_road.png", "tree": "masks/{n}_tree*.png"},
    "group": "{n}",
    "classes": ["background", "road", "tree"],
    "colors": [[0, 0, 0]] * 3,
}
FILES = (
    "images/{}_i.png",
    "images/{}_r.png",
    "masks/{}_road.png",
    "masks/{}_tree1.png",
    "masks/{}_tree2.png",
)


def item(name, folder=BOX, files=FILES):
    for file in files:
        pixels = rng.integers(0, 255, (24, 30), dtype=np.uint8)
        put(
            folder / file.format(name),
            pixels if file.startswith("images") else (pixels > 200) * np.uint8(255),
        )


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A folder with an empty repository of git and DVC."""
    folder = tmp_path_factory.mktemp("repository")
    (folder / ".gitignore").write_text("/source/\n/work/\n/data/inbox/\n")
    workspaces.repository(folder)
    return folder


@pytest.fixture
def p(repository, tmp_path, monkeypatch):
    """A project whose images have two bands and two masks in files of their own."""
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    p = project(tmp_path, retrain={"settle_seconds": 60}, **SEVERAL)
    for file in [*Path("source/images").iterdir(), *Path("source/masks").iterdir()]:
        file.unlink()
    for name in "xyz":
        item(name, Path("source"))
    return p


def taken_by(p):
    """What a call takes: the result, files of the batch, and files left in the inbox."""
    received = receive(p)
    batch = Path(p.data.batches) / p.data.name / str(received.batch)
    names = [f.relative_to(batch).as_posix() for f in sorted(batch.rglob("*.png"))] if received.batch else []
    inbox = [f.relative_to(BOX).as_posix() for f in sorted(BOX.rglob("*.png")) if ".taken" not in f.parts]
    return received, names, inbox


def of(*names):
    return sorted(file.format(name) for name in names for file in FILES)


def test_all_files_of_an_item_go_into_the_batch_and_leave_the_inbox(p):
    item("a")
    item("b")
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (2, of("a", "b"), [])
    facts = json.loads((Path(p.data.batches) / p.data.name / received.batch / "batch.json").read_text())
    assert facts["files"] == of("a", "b") and facts["items"] == 2
    assert received.text().count("stray") == 0 and not received.incomplete
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (0, [], [])


def test_an_item_without_a_channel_stays_whole_and_is_taken_once_it_is_complete(p):
    item("a", files=[f for f in FILES if "_i" not in f])
    item("b")
    received, batch, inbox = taken_by(p)
    assert kinds(received) == {"images/a_r.png": "missing-channel"}
    (reason,) = received.quarantined["reason"]
    assert reason.startswith("a_r.png: has no channel 2, images/a_i.png is missing")
    assert batch == of("b") and inbox == sorted(set(of("a")) - {"images/a_i.png"})
    item("a", files=[f for f in FILES if "_i" in f])
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (1, of("a"), [])


@pytest.mark.parametrize("late", FILES)
def test_an_item_with_a_file_that_is_still_arriving_waits_with_all_its_files(p, late):
    item("a")
    os.utime(BOX / late.format("a"), (time.time(),) * 2)
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (0, [], of("a"))
    assert received.waiting == [late.format("a")] and received.quarantined.empty and not received.strays


def test_channels_and_masks_alone_wait_for_their_image(p):
    item("a", files=[f for f in FILES if "_r." not in f])
    found = look(p)
    assert found.incomplete == sorted(set(of("a")) - {"images/a_r.png"})
    assert not found.strays and found.quarantined.empty


def test_a_channel_that_the_first_pattern_matches_too_waits_for_its_image(p):
    data = p.data.model_copy(update={"images": ["images/{n}.png", "images/{n}_i.png"]})
    item("a", files=["images/{}_i.png", *FILES[2:]])
    found = look(p.model_copy(update={"data": data}))
    assert "images/a_i.png" in found.incomplete and found.quarantined.empty and not found.strays


def test_an_item_of_the_dataset_is_recognised_by_all_its_channels(p):
    for file in FILES:
        put(
            BOX / file.format("x"),
            np.asarray(Image.open(f"source/{file.format('x')}")),
        )
    received, batch, inbox = taken_by(p)
    assert (len(received.known), batch, inbox) == (1, [], [])
    for file in FILES:
        put(
            BOX / file.format("x"),
            np.asarray(Image.open(f"source/{file.format('x')}")),
        )
    item("x", files=["images/{}_i.png"])
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (1, of("x"), [])


def test_with_keep_further_files_are_taken_once(p):
    p = p.model_copy(update={"retrain": p.retrain.model_copy(update={"taken": "keep"})})
    item("a")
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (1, of("a"), of("a"))
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (0, [], of("a")) and not received.strays


def test_a_raster_of_object_numbers_goes_with_its_image(p):
    numbers = {**SEVERAL, "objects": "ids/{n}.png", "label_values": {}, "background": "background"}
    p = p.model_copy(update={"data": type(p.data).model_validate({**p.data.model_dump(), **numbers})})
    files = sorted((*FILES, "ids/{}.png"))
    for name in "xyz":
        item(name, Path("source"), ["ids/{}.png"])
    item("a", files=[f for f in files if "_r." not in f])
    found = look(p)
    assert "ids/a.png" in found.incomplete and not found.strays and found.quarantined.empty
    item("a", files=["images/{}_r.png"])
    received, batch, inbox = taken_by(p)
    assert (received.accepted, batch, inbox) == (1, [f.format("a") for f in files], [])


def test_files_of_nnunet_go_with_dataset_json(p):
    import nibabel

    data = {"layout": "nnunet", "images": "images/*", "masks": "masks/{stem}.png", "group": "{stem}"}
    data |= {"label_values": {0: 0, 1: 1, 2: 2}}
    p = p.model_copy(update={"data": type(p.data).model_validate({**p.data.model_dump(), **data})})
    Path("source/images").rename("source/imagesTr")

    def case(folder, name):
        labels = rng.integers(0, 3, (8, 9, 3)).astype(np.uint8)
        for file in (f"imagesTr/{name}_0000", f"imagesTr/{name}_0001", f"labelsTr/{name}"):
            path = folder / f"{file}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            values = labels if "labels" in file else rng.integers(0, 99, labels.shape).astype(np.int16)
            nibabel.Nifti1Image(values, np.eye(4)).to_filename(path)
            os.utime(path, (time.time() - 3600,) * 2)
        text = json.dumps({"channel_names": ["T1", "T2"], "labels": {"background": 0, "road": 1, "tree": 2}})
        (folder / "dataset.json").write_text(text)
        os.utime(folder / "dataset.json", (time.time() - 3600,) * 2)

    for file in Path("source/imagesTr").iterdir():
        file.unlink()
    case(Path("source"), "x")
    case(BOX, "a")
    received, _, _ = taken_by(p)
    assert received.accepted == 1 and not received.strays and not received.incomplete
    batch = Path(p.data.batches) / p.data.name / received.batch
    assert sorted(f.relative_to(batch).as_posix() for f in batch.rglob("*") if f.is_file()) == [
        "batch.json",
        "dataset.json",
        "imagesTr/a_0000.nii.gz",
        "imagesTr/a_0001.nii.gz",
        "labelsTr/a.nii.gz",
    ]
    left = [f.relative_to(BOX).as_posix() for f in BOX.rglob("*") if f.is_file() and ".taken" not in f.parts]
    assert left == ["dataset.json"]
