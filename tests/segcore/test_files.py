"""Writes are atomic, on a full disk too."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.errors import DataError
from segcore.files import atomic_folder, atomic_write

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
