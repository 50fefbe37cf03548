"""Complete, settled files are copied from the inbox, and nothing from outside of it; what cannot be used is named."""

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import fsspec
import pytest

from segcore.errors import DataError
from segcore.ingest.inbox import TAKEN, Inbox, Unreadable

NOW = time.time()


def put(folder, name, text="x", age=3600.0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (NOW - age, NOW - age))
    return path


def settled(box, settle=60, now=NOW):
    return sorted(file.path for file in box.settled(settle, now))


def refused(box):
    return {refusal.path: refusal.reason for refusal in box.listing(NOW).refused}


def test_settled_files_are_told_from_young_ones_and_copied(tmp_path):
    put(tmp_path / "in", "images/a.png", "one")
    put(tmp_path / "in", "images/b.png", age=5)
    box = Inbox(str(tmp_path / "in"))
    (file,) = box.settled(60, NOW)
    assert file.path == "images/a.png" and box.copy(file, tmp_path / "out/images/a.png")
    assert (tmp_path / "out/images/a.png").read_text() == "one" and (tmp_path / "in/images/a.png").exists()


def test_a_file_that_changes_or_vanishes_while_it_is_copied_is_not_copied(tmp_path, monkeypatch):
    path = put(tmp_path / "in", "a.png", "half")
    box = Inbox(str(tmp_path / "in"))
    copy = box.fs.get_file
    (file,) = box.settled(60, NOW)
    for change in (lambda: path.write_text("half and the other half"), path.unlink):

        def slow(source, target, change=change):
            copy(source, target)
            change()

        monkeypatch.setattr(box.fs, "get_file", slow)
        assert not box.copy(file, tmp_path / "out/a.png") and not (tmp_path / "out/a.png").exists()


def test_links_pipes_sockets_and_folders_named_as_images_are_refused_with_the_reason(tmp_path, monkeypatch):
    secret = put(tmp_path / "elsewhere", "secret.png", "secret")
    box = tmp_path / "in"
    put(box, "a.png")
    put(box, f"{TAKEN}/batch/old.png")
    put(box, "dir.tif/a.txt")
    put(box, "new\nline.png")
    (box / "empty.png").mkdir()
    (box / "file.png").symlink_to(secret)
    (box / "folder").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(box / "pipe.png")
    monkeypatch.chdir(box)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("sock.png")
    listener.close()
    found = Inbox(str(box))
    assert settled(found) == ["a.png"]
    assert {path: reason.partition(": ")[2] for path, reason in refused(found).items()} == {
        "dir.tif": "is a folder, not a file",
        "empty.png": "is a folder, not a file",
        "file.png": "is a symbolic link",
        "folder": "is a symbolic link",
        "new\nline.png": "its name contains control or undecodable characters",
        "pipe.png": "is a FIFO (named pipe), not a file",
        "sock.png": "is a socket, not a file",
    }
    assert "\n" not in refused(found)["new\nline.png"]


def test_hidden_images_are_named_and_other_hidden_files_are_not(tmp_path):
    for name in (
        "..dots.tif",
        ".part.png",
        "._a.tif",
        ".DS_Store",
        ".a.tif.x7Gh",
        ".hidden/b.tif",
        "Thumbs.db",
    ):
        put(tmp_path / "in", name)
    found = Inbox(str(tmp_path / "in")).listing(NOW)
    assert found.hidden == ["..dots.tif", ".part.png"] and not found.unchanged_since and not found.refused


def test_keys_of_a_store_cannot_lead_out_of_the_inbox():
    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    for key in (
        "/box/images/a.png",
        "/box/../../escaped.png",
        "/box/b\\c.png",
        "/box/d.tif/e.txt",
        "/box/.h.png",
    ):
        fs.store[key] = fs.store.get(key) or type(fs.open("/x", "wb"))(fs, key, b"x")
    box = Inbox("memory://box")
    assert settled(box, 0, time.time() + 60) == ["images/a.png"]
    assert set(refused(box)) == {"../../escaped.png", "b\\c.png", "d.tif"}
    assert box.listing().hidden == [".h.png"]
    fs.store.clear()


@pytest.mark.parametrize("how", ["move", "delete", "keep"])
def test_accepted_files_are_moved_deleted_or_kept(tmp_path, how):
    put(tmp_path / "in", "images/a.png")
    box = Inbox(str(tmp_path / "in"))
    assert box.remove(["images/a.png", "images/gone.png"], "batch-1", how) == []
    # again, as after a kill
    assert box.remove(["images/a.png"], "batch-1", how) == []
    assert (tmp_path / "in/images/a.png").exists() == (how == "keep")
    assert (tmp_path / "in" / TAKEN / "batch-1/images/a.png").exists() == (how == "move")


def test_files_that_cannot_be_moved_are_named_and_the_others_are_moved(tmp_path):
    put(tmp_path / "in", "a.png")
    put(tmp_path / "in", "b.png")
    put(tmp_path / "in", f"{TAKEN}/batch-1/a.png/in-the-way")
    box = Inbox(str(tmp_path / "in"))
    (left,) = box.remove(["a.png", "b.png"], "batch-1", "delete") or ["none"]
    assert left == "none"
    put(tmp_path / "in", "b.png")
    (tmp_path / "in" / TAKEN / "batch-2").write_text("in the way")
    assert [line.partition(" (")[0] for line in box.remove(["b.png"], "batch-2", "move")] == ["b.png"]


@pytest.mark.parametrize(
    "address", ["nowhere://x", "ftp://user@127.0.0.1:9/inbox", "http://127.0.0.1:9/inbox/"]
)
def test_an_address_that_is_unknown_or_refuses_is_an_error_that_names_it(address):
    with pytest.raises(DataError) as caught:
        Inbox(address).listing()
    assert (
        caught.value.what.startswith(address.replace("user@", "")[:6])
        and "127.0.0.1" in f"{address} 127.0.0.1"
    )
    assert "retrain.inbox" in caught.value.remedy or "check the address" in caught.value.remedy


def test_a_server_that_never_answers_is_an_error_after_the_time_limit(monkeypatch):
    from segcore.ingest import inbox_address

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(inbox_address, "_READ", 1)
        started = time.monotonic()
        with pytest.raises(DataError, match="cannot be reached"):
            Inbox(f"http://127.0.0.1:{port}/inbox/").listing()
        with pytest.raises(DataError, match=r"did not answer within 0\.1 s"):
            inbox_address.limited(lambda: time.sleep(5), "x://y", 0.1)
        assert time.monotonic() - started < 20


class _Files(BaseHTTPRequestHandler):
    """A web server of one file; /missing/ is not found, /locked/ needs a password."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        status = {"/missing/": 404, "/locked/": 401}.get(self.path, 200)
        body = b"pixels" if self.path.endswith(".png") else b'<a href="a.png">a</a><a href="?C=N">sort</a>'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "image/png")
        self.send_header("Last-Modified", "Sat, 28 Feb 2026 17:45:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def test_files_of_a_web_server_are_copied_and_missing_or_locked_folders_are_errors(tmp_path):
    with HTTPServer(("127.0.0.1", 0), _Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        box = Inbox(f"{address}/inbox/")
        (file,) = box.settled(60)
        assert file == ("a.png", 6, 1772300700.0) and box.copy(file, tmp_path / "a.png")
        for folder in ("missing", "locked"):
            with pytest.raises(DataError, match=f"{folder}/: the inbox cannot be reached"):
                Inbox(f"{address}/{folder}/").listing()
        server.shutdown()


def test_a_listing_of_a_store_is_never_that_of_an_earlier_time():
    first = Inbox("memory://fresh")
    assert first.fs is not Inbox("memory://fresh").fs


def test_a_file_of_the_future_settles_by_the_clock_of_this_machine(tmp_path):
    put(tmp_path / "in", "late.png", age=-10 * 3600)
    box = Inbox(str(tmp_path / "in"))
    now = time.time()
    assert box.listing(now).future == ["late.png"]
    assert settled(box, 60, now + 1) == [] and settled(box, 60, now + 61) == ["late.png"]


def test_a_file_of_a_server_whose_clock_is_ahead_settles_since_it_was_first_seen(tmp_path):
    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    with fs.open("/ahead/a.png", "wb") as stream:
        stream.write(b"x")
    # as seen from a machine whose clock is an hour behind
    now = time.time() - 3600
    records = tmp_path / "records"
    assert settled(Inbox("memory://ahead", records), 60, now) == []
    assert settled(Inbox("memory://ahead", records, change=False), 60, now + 59) == []
    assert settled(Inbox("memory://ahead", records), 60, now + 60) == ["a.png"]
    with fs.open("/ahead/a.png", "wb") as stream:
        stream.write(b"more")
    assert settled(Inbox("memory://ahead", records), 60, now + 70) == [], "it changed, and settles once more"
    fs.store.clear()
    Inbox("memory://ahead", records).listing(now)
    assert json.loads((records / "seen.json").read_text()) == {}


def test_a_store_without_times_settles_since_it_was_first_seen(tmp_path, monkeypatch):
    from segcore.ingest import inbox_files

    fs = fsspec.filesystem("memory", skip_instance_cache=True)
    fs.pipe_file("/untimed/a.png", b"x")
    monkeypatch.setattr(inbox_files, "_TIMES", ())
    box = Inbox("memory://untimed", tmp_path)
    assert settled(box, 60, NOW) == [] and settled(box, 60, NOW + 60) == ["a.png"]
    fs.store.clear()


@pytest.mark.parametrize(
    ("facts", "seconds"),
    [
        ({"modify": "20260228174500.123"}, 1772300700.0),
        ({"Last-Modified": "Sat, 28 Feb 2026 17:45:00 GMT"}, 1772300700.0),
        ({"Last-Modified": "Sat, 28 Feb 99999999999999999999 17:45:00 GMT"}, 0.0),
        ({"mtime": 5}, 5.0),
        ({"modificationTime": 5000}, 5.0),
        ({"modify": "Feb 28 17:45"}, 0.0),
        ({}, 0.0),
    ],
)
def test_times_of_file_systems_are_understood(facts, seconds):
    from segcore.ingest.inbox_files import changed_time

    assert changed_time(facts) == seconds


def test_an_inbox_outside_of_the_project_is_never_created(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with pytest.raises(DataError, match=r"nomount/inbox: the inbox does not exist[\s\S]*mount"):
        Inbox(str(tmp_path / "nomount/inbox"), tmp_path / "records")
    assert not (tmp_path / "nomount").exists() and not (tmp_path / "records").exists()


def test_an_inbox_in_the_project_is_created_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = tmp_path / "work"
    assert Inbox("data/inbox", records, change=False).listing().unchanged_since == {}
    assert not (tmp_path / "data").exists() and not records.exists()
    Inbox("data/inbox", records)
    (tmp_path / "data/inbox").rmdir()
    with pytest.raises(DataError, match="data/inbox: the inbox does not exist, and was on the mount point"):
        Inbox("data/inbox", records)
    (tmp_path / "data/inbox").mkdir()
    Inbox("data/inbox", records)
    # another address begins anew
    Inbox("data/other", records)


def test_a_share_that_is_not_mounted_is_an_error_although_its_mount_point_exists(tmp_path, monkeypatch):
    put(tmp_path / "share", "a.png")
    address, records = str(tmp_path / "share"), tmp_path / "records"
    mounted = [True]
    monkeypatch.setattr(
        os.path, "ismount", lambda path: str(path) == "/" or (mounted[0] and str(path) == address)
    )
    Inbox(address, records)
    mounted[0] = False
    with pytest.raises(DataError) as caught:
        Inbox(address, records)
    assert f"mount point {address} before, and is on / now" in caught.value.what
    (records / "inbox.json").unlink()
    Inbox(address, records)


@pytest.mark.parametrize("what", ["file", "link"])
def test_an_inbox_that_is_no_folder_is_an_error(tmp_path, what):
    place = tmp_path / "in"
    place.write_text("x") if what == "file" else place.symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="the inbox is "):
        Inbox(str(place))


def test_a_full_disk_is_the_error_of_the_round_and_a_bad_file_is_not(tmp_path, monkeypatch):
    put(tmp_path / "in", "a.png")
    box = Inbox(str(tmp_path / "in"))
    (file,) = box.settled(60, NOW)

    def fails(number):
        def get_file(*_):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(box.fs, "get_file", get_file)

    import errno

    for number, error, text in (
        (errno.ENOSPC, DataError, "free disk space"),
        (errno.ENOTCONN, DataError, "the inbox cannot be reached"),
        (errno.EIO, Unreadable, r"a.png: cannot be read \(Input/output error\)"),
    ):
        fails(number)
        with pytest.raises(error, match=text):
            box.copy(file, tmp_path / "out/a.png")
