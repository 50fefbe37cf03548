"""New data become a batch: complete, once, recorded by DVC and git; bad items stay in the inbox with the reason."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from segcore import params
from segcore.errors import DataError
from segcore.ingest import catalog
from segcore.io import layouts
from tasks import batches
from tasks import receive as receiving
from tasks.ingest import ingest
from tasks.receive import receive
from tests.support import workspaces
from tests.support.tiny import blobs, make_pairs, params_for

HOUR = 3600


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A project in git and DVC with a dataset of 12 items."""
    folder = tmp_path_factory.mktemp("template")
    make_pairs(folder / "source")
    (folder / ".gitignore").write_text("/source/\n/work/\n/data/ingested/\n/data/packed/\n/data/inbox/\n")
    (folder / "data/batches").mkdir(parents=True)
    workspaces.repository(folder)
    return folder


@pytest.fixture
def project(template, tmp_path, monkeypatch):
    """Parameters of a copy of the template; the copy is the current folder."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    p = params_for(tmp_path / "source")
    ingest(p.data)
    return p


def arrive(name, seed, age=HOUR, truth=True):
    image, mask = blobs(48, 56, seed=seed)
    for folder, array in (("images", image), *([("masks", mask * 255)] if truth else [])):
        path = Path("data/inbox") / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        os.utime(path, (time.time() - age, time.time() - age))


def git(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


def test_files_that_belong_to_no_item_are_named_and_stay(project, capsys):
    arrive("n1", 100)
    stray = Path("data/inbox/images/readme.txt")
    stray.write_text("taken with the new camera")
    os.utime(stray, (time.time() - HOUR,) * 2)
    found = receive(project)
    assert found.accepted == 1 and found.strays == ["images/readme.txt"] and stray.exists()
    receiving.show(found)
    assert "images/readme.txt" in capsys.readouterr().out


def test_sound_items_become_a_batch_with_a_commit_and_a_tag(project):
    arrive("n1", 100)
    arrive("n2", 101)
    (Path("notes.txt")).write_text("somebody is editing this")
    git("add", "notes.txt")
    found = receive(project)
    assert found.accepted == 2 and found.quarantined.empty
    folder = batches.folder_of(project) / found.batch
    assert sorted(p.name for p in folder.rglob("*.png")) == ["n1.png", "n1.png", "n2.png", "n2.png"]
    assert f"data/tiny/{found.batch}" in git("tag")
    assert git("show", "--name-only", "--format=%s", "HEAD").split() == [
        *f"Data of tiny: batch {found.batch}, 2 items".split(),
        "data/batches/tiny/.gitignore",
        f"data/batches/tiny/{found.batch}.dvc",
    ]
    assert git("diff", "--cached", "--name-only").split() == ["notes.txt"], (
        "other staged files are not committed"
    )
    assert not list(Path("data/inbox/images").iterdir())
    table = catalog.build(
        project.data,
        Path("source"),
        Path("work/x"),
        batches=catalog.batch_folders(project.data),
    )
    new = table[table["batch"] == found.batch]
    assert len(table) == 14 and list(new["id"]) == [f"{found.batch}-n1", f"{found.batch}-n2"]
    assert set(table[table["batch"] == "0"]["id"]) == {f"a{i}" for i in range(12)}


def test_bad_items_stay_with_the_reason_and_are_added_once_corrected(project):
    arrive("good", 100)
    arrive("lonely", 101, truth=False)
    arrive("broken", 102)
    path = Path("data/inbox/images/broken.png")
    path.write_bytes(path.read_bytes()[:200])
    os.utime(path, (time.time() - HOUR, time.time() - HOUR))
    found = receive(project)
    assert found.accepted == 1 and set(found.quarantined["kind"]) == {"missing-mask", "unreadable"}
    assert sorted(p.name for p in Path("data/inbox/images").iterdir()) == [
        "broken.png",
        "lonely.png",
    ]
    assert "broken.png" in Path("work/receive/tiny/quarantine.csv").read_text()
    again = receive(project)
    assert again.batch is None and len(again.quarantined) == 2
    arrive("broken", 102)
    arrive("lonely", 101)
    corrected = receive(project)
    assert corrected.accepted == 2 and corrected.quarantined.empty and corrected.batch != found.batch


def test_items_of_the_dataset_are_not_added_twice_and_another_mask_is_refused(project):
    for name in ("images", "masks"):
        target = Path("data/inbox") / name
        target.mkdir(parents=True)
        shutil.copy(f"source/{name}/a0.png", target / "same.png")
        os.utime(target / "same.png", (time.time() - HOUR,) * 2)
    arrive("other", 1)
    Image.fromarray(255 - blobs(48, 56, seed=1)[1] * 255).save("data/inbox/masks/other.png")
    os.utime("data/inbox/masks/other.png", (time.time() - HOUR,) * 2)
    found = receive(project)
    assert found.batch is None and found.known == ["same"]
    assert list(found.quarantined["kind"]) == ["relabelled"]
    assert [p.name for p in Path("data/inbox/images").iterdir()] == ["other.png"]


def test_items_unlike_the_dataset_are_refused(project):
    arrive("grey", 100)
    path = Path("data/inbox/images/grey.png")
    Image.open(path).convert("L").save(path)
    os.utime(path, (time.time() - HOUR,) * 2)
    found = receive(project)
    assert found.batch is None and list(found.quarantined["kind"]) == ["band-count"]


def test_an_item_with_a_file_that_has_not_settled_is_left_for_the_next_time(project):
    arrive("late", 100)
    os.utime("data/inbox/masks/late.png", (time.time(),) * 2)
    start = time.time()
    first = receive(project)
    assert first.batch is None and first.waiting == ["masks/late.png"]
    waits = r"1 file changed less than 60 s ago \(retrain.settle_seconds; masks/late.png\): run again after "
    assert re.fullmatch(waits + r"([-\d]+ )?\d\d:\d\d", first.text())
    assert start + 60 <= first.settled_at.timestamp() <= time.time() + 60
    assert receive(project, now=time.time() + HOUR).accepted == 1


def test_batches_of_one_moment_or_of_a_clock_set_back_keep_the_order_of_receipt(project):
    names = []
    for number, now in enumerate((2e9, 2e9, 2e9 - 5 * 24 * HOUR)):
        arrive(f"n{number}", 100 + number)
        names.append(receive(project, now=now).batch)
    assert list(catalog.batch_folders(project.data)) == names
    times = [catalog.time_of_receipt(folder) for folder in catalog.batch_folders(project.data).values()]
    assert times == sorted(set(times)) and times[0].timestamp() == 2e9


def test_accepted_files_that_cannot_be_moved_are_named_and_accepted_once(project):
    arrive("n1", 100)
    (Path("data/inbox") / ".taken").write_text("a file in the way of the folder")
    found = receive(project)
    assert found.accepted == 1 and len(found.left) == 2
    assert "2 files could not be removed from the inbox: images/n1.png (" in found.text()
    again = receive(project)
    assert again.accepted == 0 and again.known == ["n1"]


def test_an_empty_inbox_is_no_error(project):
    found = receive(project)
    assert found.batch is None and found.text() == "0 accepted"


@pytest.mark.parametrize("catalogued", [True, False])
@pytest.mark.parametrize("moment", ["add", "commit", "remove"])
def test_after_a_kill_at_any_step_nothing_is_lost_or_added_twice(project, monkeypatch, moment, catalogued):
    arrive("n1", 100)
    where = {"add": (receiving.stages, "add"), "commit": (receiving.git, "commit")}
    place, name = where.get(moment, (receiving.Inbox, "remove"))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            receive(project)
    if catalogued:
        ingest(project.data)
    found = receive(project, now=time.time() + 24 * HOUR)
    assert found.batch is None and found.known == ["n1"]
    (batch,) = catalog.batch_folders(project.data)
    assert f"data/tiny/{batch}" in git("tag") and not list(Path("data/inbox/images").iterdir())
    assert git("log", "--format=%s").count("Data of tiny") == 1
    assert receive(project).text() == "0 accepted"


def test_items_that_arrive_after_a_kill_are_a_batch_without_earlier_ones(project, monkeypatch):
    arrive("n1", 100)
    with monkeypatch.context() as patch:
        patch.setattr(receiving.Inbox, "remove", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            receive(project)
    arrive("n2", 101)
    found = receive(project)
    assert found.accepted == 1 and found.known == ["n1"] and len(catalog.batch_folders(project.data)) == 2
    assert not list(Path("data/inbox/images").iterdir())


def test_with_keep_the_inbox_is_left_as_it_is(project):
    settings = project.retrain.model_copy(update={"taken": "keep"})
    p = project.model_copy(update={"retrain": settings})
    arrive("n1", 100)
    assert receive(p).accepted == 1
    assert receive(p).text() == "0 accepted"
    assert Path("data/inbox/images/n1.png").exists()
    assert isinstance(p, params.Params)


def test_a_list_of_items_goes_with_its_batch(project):
    data = project.data.model_copy(update={"listing": "items.csv"})
    p = project.model_copy(update={"data": data})
    rows = "".join(f"images/a{number}.png,masks/a{number}.png\n" for number in range(12))
    Path("source/items.csv").write_text(f"image,mask\n{rows}")
    arrive("n1", 100)
    path = Path("data/inbox/items.csv")
    path.write_text("image,mask\nimages/n1.png,masks/n1.png\n")
    os.utime(path, (time.time() - HOUR,) * 2)
    found = receive(p)
    assert found.accepted == 1 and path.exists()
    (folder,) = catalog.batch_folders(data).values()
    assert [item.id for item in layouts.find(data, folder)] and (folder / "items.csv").exists()


@pytest.mark.parametrize("inbox", ["source", "linked", "data/batches/tiny/{batch}"])
def test_an_inbox_that_contains_accepted_files_is_refused_and_none_is_moved(project, inbox):
    arrive("new", 70)
    batch = receive(project).batch
    Path("linked").symlink_to("source")
    before = sorted(Path().rglob("*.png"))
    changed = {"inbox": inbox.format(batch=batch), "settle_seconds": 0}
    there = project.model_copy(update={"retrain": project.retrain.model_copy(update=changed)})
    for dry_run in (True, False):
        with pytest.raises(DataError, match="the inbox contains files of"):
            receive(there, dry_run=dry_run)
    assert sorted(Path().rglob("*.png")) == before
