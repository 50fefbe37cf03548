"""A snapshot of the inbox has complete, settled files only, and nothing from outside the inbox."""

import os
import time

import fsspec
import pytest

from segcore.errors import DataError
from segcore.ingest.inbox import TAKEN, Inbox

NOW = time.time()


def put(folder, name, text="x", age=3600.0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))
    return path


def names(entries):
    return [entry.path for entry in entries]


def test_settled_files_are_copied_and_young_ones_wait(tmp_path):
    put(tmp_path / "in", "images/a.png", "one")
    put(tmp_path / "in", "images/b.png", age=5)
    found = Inbox(str(tmp_path / "in")).snapshot(tmp_path / "out", 60, NOW)
    assert names(found.taken) == ["images/a.png"] and names(found.waiting) == ["images/b.png"]
    assert (tmp_path / "out/images/a.png").read_text() == "one"
    assert (tmp_path / "in/images/a.png").exists() and not (tmp_path / "out/images/b.png").exists()


def test_a_file_that_changes_while_it_is_copied_waits(tmp_path, monkeypatch):
    path = put(tmp_path / "in", "a.png", "half")
    box = Inbox(str(tmp_path / "in"))
    copy = box.fs.get_file

    def slow(source, target):
        copy(source, target)
        path.write_text("half and the other half")

    monkeypatch.setattr(box.fs, "get_file", slow)
    found = box.snapshot(tmp_path / "out", 60, NOW)
    assert found.taken == [] and names(found.waiting) == ["a.png"] and not (tmp_path / "out/a.png").exists()


def test_links_are_refused_and_hidden_files_skipped(tmp_path):
    secret = put(tmp_path / "elsewhere", "secret.png", "secret")
    box = tmp_path / "in"
    put(box, "a.png")
    put(box, ".part.png")
    put(box, f"{TAKEN}/batch/old.png")
    (box / "file.png").symlink_to(secret)
    (box / "folder").symlink_to(tmp_path / "elsewhere")
    found = Inbox(str(box)).snapshot(tmp_path / "out", 60, NOW)
    assert names(found.taken) == ["a.png"]
    assert [path for path, _ in found.refused] == ["file.png", "folder"]
    assert [p.name for p in (tmp_path / "out").rglob("*")] == ["a.png"]


def test_keys_of_a_store_cannot_lead_out_of_the_snapshot(tmp_path):
    fs = fsspec.filesystem("memory")
    for key in ("/box/images/a.png", "/box/../../escaped.png", "/box/b\\c.png"):
        fs.store[key] = fs.store.get(key) or type(fs.open("/x", "wb"))(fs, key, b"x")
    box = Inbox("memory://box")
    found = box.snapshot(tmp_path / "deep" / "out", 0, time.time() + 60)
    assert names(found.taken) == ["images/a.png"]
    assert {path for path, _ in found.refused} == {"../../escaped.png", "b\\c.png"}
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["a.png"]
    fs.store.clear()


@pytest.mark.parametrize("how", ["move", "delete", "keep"])
def test_accepted_files_are_moved_deleted_or_kept(tmp_path, how):
    put(tmp_path / "in", "images/a.png")
    box = Inbox(str(tmp_path / "in"))
    box.remove(["images/a.png", "images/gone.png"], "batch-1", how)
    # again, as after a kill
    box.remove(["images/a.png"], "batch-1", how)
    assert (tmp_path / "in/images/a.png").exists() == (how == "keep")
    assert (tmp_path / "in" / TAKEN / "batch-1/images/a.png").exists() == (how == "move")


def test_files_of_an_earlier_snapshot_that_stayed_are_skipped(tmp_path):
    put(tmp_path / "in", "a.png")
    box = Inbox(str(tmp_path / "in"))
    first = box.snapshot(tmp_path / "out", 60, NOW)
    assert box.snapshot(tmp_path / "out", 60, NOW, first.taken).taken == []
    put(tmp_path / "in", "a.png", "mended", age=1800)
    assert names(box.snapshot(tmp_path / "out", 60, NOW, first.taken).taken) == ["a.png"]


def test_an_unknown_kind_of_address_is_named_with_the_setting():
    with pytest.raises(DataError, match=r"nowhere://x[\s\S]*retrain.inbox"):
        Inbox("nowhere://x")
