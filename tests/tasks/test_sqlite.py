"""A SQLite file that a tool cannot use is named with the cause before the tool opens it."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from segcore.errors import StageError
from tasks import sqlite

RESTORE = "restore it"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(sqlite.WAIT, "0.3")
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE t (a TEXT NOT NULL)")
        database.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 2000)
        database.execute("CREATE INDEX i ON t (a)")
    return path


def damaged(content: bytes, kind: str) -> bytes:
    middle = len(content) // 2
    return {
        "first page": bytes(4096) + content[4096:],
        "middle": content[:middle] + b"\x55" * 8192 + content[middle + 8192 :],
        "cut": content[:middle],
        "cut in the header": content[:50],
        "text": b"this is no database, but a text " * 100,
    }[kind]


@pytest.mark.parametrize("kind", ["first page", "middle", "cut", "cut in the header", "text"])
def test_a_damaged_file_is_named_with_the_remedy(file: Path, kind: str) -> None:
    file.write_bytes(damaged(file.read_bytes(), kind))
    with pytest.raises(StageError, match="damaged") as caught:
        sqlite.check(file, RESTORE)
    assert str(file) in caught.value.what and RESTORE in caught.value.remedy


def test_a_sound_an_empty_and_a_missing_file_are_accepted(file: Path) -> None:
    content = file.read_bytes()
    sqlite.check(file, RESTORE)
    assert file.read_bytes() == content
    file.write_bytes(b"")
    sqlite.check(file, RESTORE)
    file.unlink()
    sqlite.check(file, RESTORE)
    assert not file.exists()


def test_a_folder_and_a_file_in_place_of_the_folder_are_named(file: Path) -> None:
    with pytest.raises(StageError, match="is a folder"):
        sqlite.check(file.parent, RESTORE)
    with pytest.raises(StageError, match=r"x\.db is not a folder"):
        sqlite.check(file / "store.db", RESTORE)


@pytest.mark.parametrize("kind", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_lock_is_waited_for_and_named_when_it_stays(
    file: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute(f"BEGIN {kind}")
        with pytest.raises(StageError, match=f"{sqlite.BUSY} for more than 0 s"):
            sqlite.check(file, RESTORE)
        monkeypatch.setenv(sqlite.WAIT, "20")
        monkeypatch.setattr(sqlite, "_QUIET_SECONDS", 0.2)
        threading.Timer(0.6, lambda: other.execute("ROLLBACK")).start()
        began = time.monotonic()
        sqlite.check(file, RESTORE)
    assert 0.4 < time.monotonic() - began < 15
    assert "waiting up to 20 s" in capfd.readouterr().err


def test_sqlite_is_waited_for_at_least_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sqlite.WAIT, raising=False)
    assert sqlite.wait_seconds() >= 30


@pytest.mark.parametrize(
    ("message", "what", "remedy"),
    [
        ("(sqlite3.OperationalError) database or disk is full\n[SQL: x]", "no space left", "free disk space"),
        ("attempt to write a readonly database", "cannot be written", "right"),
        ("unable to open database file", "cannot be opened", "right"),
        ("disk I/O error", "I/O error", "check the disk"),
        ("database disk image is malformed", "is damaged", RESTORE),
        ("no such table: runs\n[SQL: SELECT 1]", "no such table: runs", RESTORE),
    ],
)
def test_each_cause_has_its_remedy(message: str, what: str, remedy: str) -> None:
    error = sqlite.explained(Path("x.db"), message, RESTORE)
    assert what in error.what and remedy in error.remedy and "SQL:" not in error.what


def test_a_link_into_a_folder_that_is_gone_and_a_pipe_are_named(tmp_path: Path) -> None:
    link, pipe = tmp_path / "link.db", tmp_path / "pipe.db"
    link.symlink_to(tmp_path / "not-mounted/x.db")
    os.mkfifo(pipe)
    with pytest.raises(StageError, match=r"is a link to .*/not-mounted/x\.db") as caught:
        sqlite.check(link, RESTORE)
    assert str(link) in caught.value.what
    with pytest.raises(StageError, match="is not a file"):
        sqlite.check(pipe, RESTORE)
    (tmp_path / "folder").symlink_to(tmp_path / "not-mounted")
    with pytest.raises(StageError, match=r"folder: is a link to .*/not-mounted"):
        sqlite.check(tmp_path / "folder/x.db", RESTORE)
    (tmp_path / "not-mounted").mkdir()
    sqlite.check(link, RESTORE)
    sqlite.check(tmp_path / "folder/x.db", RESTORE)
