"""A copy of segcore's files, to test that caches depend on code."""

import shutil
from pathlib import Path

import pytest

from segcore import cache

SEGCORE = Path(cache.__file__).parent


class Code:
    """The copy from which caches compute their fingerprints."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "segcore"
        shutil.copytree(SEGCORE, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(cache, "SEGCORE", self.folder)

    def change(self, name: str) -> None:
        """Append a comment to a file, such as "data/volumes.py"."""
        path = self.folder / name
        assert path.is_file(), name
        path.write_text(path.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")


def files_of(*names: str) -> list[str]:
    """Paths, relative to segcore, of the Python files in these of its folders and files."""
    found = []
    for name in names:
        path = SEGCORE / name
        found += [path] if path.is_file() else path.rglob("*.py")
    return sorted(p.relative_to(SEGCORE).as_posix() for p in found)
