"""Writes are atomic, on a full disk too, and what a killed process left is removed."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.errors import DataError
from segcore.files import atomic_folder, atomic_write
from segcore.parts import left_parts

ROOT = Path(__file__).parents[2]


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_write(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_is_replaced_whole_or_stays(tmp_path):
    folder = tmp_path / "f"
    for content in ("old", "new"):
        with atomic_folder(folder) as part:
            (part / content).write_text(content)
    assert [p.name for p in folder.iterdir()] == ["new"]
    with pytest.raises(RuntimeError), atomic_folder(folder) as part:
        raise RuntimeError
    assert [p.name for p in folder.iterdir()] == ["new"] and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("kind", ["bytes", "tensors", "folder"])
def test_a_full_disk_is_a_clear_error_and_the_old_content_stays(tmp_path, kind):
    """The limit on file sizes makes the kernel refuse the write, as a full disk does."""
    script = f"""
import sys
from pathlib import Path
from segcore.errors import SegflowError
from segcore.files import atomic_folder, atomic_write, save_tensors
path = Path({str(tmp_path / "f")!r})
try:
    if {kind!r} == "folder":
        with atomic_folder(path) as part:
            (part / "big").write_bytes(bytes(300_000))
    else:
        with atomic_write(path) as part:
            if {kind!r} == "bytes":
                part.write_bytes(bytes(300_000))
            else:
                import torch
                save_tensors({{"x": torch.zeros(100_000)}}, part)
except SegflowError as error:
    sys.exit(str(error))
"""
    target = tmp_path / "f"
    if kind == "folder":
        target.mkdir()
        (target / "old").write_text("old")
    else:
        target.write_text("old")
    limit = 100_000
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "could not be written" in done.stderr and "Remedy: free disk space" in done.stderr
    assert ((target / "old") if kind == "folder" else target).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_parent_that_is_a_file_is_an_error_that_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("")
    for write in (atomic_write, atomic_folder):
        with (
            pytest.raises(DataError, match=r"work/target: could not be written"),
            write(tmp_path / "work/target"),
        ):
            pass


KILLED = """
import os, signal, sys
from pathlib import Path
from segcore.files import atomic_folder, atomic_write
from segcore.parts import left_parts
kind, path = sys.argv[1], Path(sys.argv[2])
with (atomic_folder if kind == "folder" else atomic_write)(path) as part:
    if kind == "folder":
        (part / "big").write_bytes(bytes(1000))
    else:
        part.write_bytes(bytes(1000))
    print("writes", flush=True)
    sys.stdin.read()
"""


def writer(kind: str, path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, kind, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"writes\n"
    return process


def write(kind: str, path: Path) -> None:
    with (atomic_folder if kind == "folder" else atomic_write)(path) as part:
        (part / "new" if kind == "folder" else part).write_text("new")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_removed_by_the_next_write_and_that_of_a_living_one_stays(
    tmp_path, kind
):
    path, other = tmp_path / "f", tmp_path / "f.g"
    with writer(kind, path) as killed, writer(kind, other) as killed_too, writer(kind, path) as living:
        killed.kill()
        killed_too.kill()
        killed.wait()
        killed_too.wait()
        # the number of the killed process is used again, by this one
        (tmp_path / f".f.{killed.pid}.part").rename(tmp_path / f".f.{os.getpid()}.part")
        write(kind, path)
        left = {file.name for file in tmp_path.iterdir()}
        assert left == {"f", f".f.{living.pid}.part", f".f.g.{killed_too.pid}.part"}
        assert left_parts(tmp_path) == [tmp_path / f".f.g.{killed_too.pid}.part"]
        living.communicate(b"")
        assert living.returncode == 0
    assert path.is_dir() == (kind == "folder")
    assert ((path / "big") if kind == "folder" else path).stat().st_size == 1000


def test_files_of_an_earlier_version_and_of_other_names_are_told_apart(tmp_path):
    for name in (".f.77.part", ".f.x.part", ".f.77.parts", "f.77.part", ".ff.77.part"):
        (tmp_path / name).write_text("left")
    write("file", tmp_path / "f")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".f.77.parts",
        ".f.x.part",
        ".ff.77.part",
        "f",
        "f.77.part",
    ]


def test_the_previous_folder_is_restored_after_a_kill_between_the_two_renames(tmp_path):
    path = tmp_path / "f"
    for part in (".f.77.part", ".f.77.old"):
        (tmp_path / part).mkdir()
    (tmp_path / ".f.77.old" / "before").touch()
    with pytest.raises(RuntimeError), atomic_folder(path):
        raise RuntimeError
    assert [file.name for file in tmp_path.iterdir()] == ["f"] and (path / "before").exists()
