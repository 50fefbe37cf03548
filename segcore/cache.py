"""Cache of results between runs: a folder whose name is a hash of everything that the results depend on."""

import shutil
from pathlib import Path

from segcore.files import digest, sha256

SEGCORE = Path(__file__).parent

# The code that results depend on: rooms and files of segcore, for ingest, prepare and evaluate as dvc.yaml names them
# (tests/repository/test_dvc_yaml.py). An evaluated architecture adds its own file of models/.
CODE: dict[str, tuple[str, ...]] = {
    "ingest": ("params/data.py", "constants.py", "downloads.py", "data", "objects", "io", "ingest"),
    "prepare": ("params/data.py", "data", "objects", "ingest/links", "splits"),
    "evaluate": (
        *("data", "objects", "models/base", "models/instance", "inference", "tables", "evaluation"),
        "prediction/writers/nifti.py",
    ),
    "speed": ("data", "objects", "models/base", "models/instance", "inference", "prediction"),
    "pictures": ("data", "plots"),
}


def code_digest(*names: str) -> str:
    """Hex sha256 of the names and contents of all Python files in rooms of segcore.

    Args:
        names: rooms such as "data" and files such as "models/unet.py"; repeated ones count once.

    Raises:
        FileNotFoundError: there is no such room or file.
    """
    files: set[Path] = set()
    for name in names:
        path = SEGCORE / name
        python_files = [path] if path.suffix == ".py" else list(path.rglob("*.py"))
        if not python_files:
            raise FileNotFoundError(f"{path}: no Python file there")
        files.update(python_files)
    return digest(*(f"{file.relative_to(SEGCORE).as_posix()} {sha256(file)}" for file in sorted(files)))


class Cache:
    """A folder of results. If anything that they depend on changes, another, empty folder is used.

    Args:
        parent: folder that contains only such folders.
        facts: everything that the results depend on: settings as text, digests of data and code.
    """

    def __init__(self, parent: Path, *facts: str) -> None:
        self.folder = parent / digest(*facts)[:16]

    def start(self) -> None:
        """Create the folder and delete results that depend on other facts; call it before writing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.iterdir():
            if other.is_dir() and other != self.folder:
                shutil.rmtree(other)
            elif other.is_file():
                other.unlink()
