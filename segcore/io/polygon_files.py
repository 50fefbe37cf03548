"""Paths under which pyogrio opens the file that they name."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_NAME = "polygons"


@contextmanager
def as_file(path: Path) -> Iterator[Path]:
    """A path under which pyogrio opens or makes a file: its own, or a link in a temporary folder.

    pyogrio takes a path for an address, in which `!` and `;` separate parts, and would open or make another file.

    Args:
        path: of the file, which may be new; of a shapefile, the other files are linked too.

    Raises:
        OSError: the link cannot be made.
    """
    path = path.absolute()
    if _is_taken_literally(path):
        yield path
        return
    with TemporaryDirectory(prefix="segflow-") as folder:
        link = Path(folder).absolute() / f"{_NAME}{path.suffix}"
        if not _is_taken_literally(link):
            raise OSError(
                f"the path of the temporary folder, {folder}, has a ! or ;: set TMPDIR to another folder"
            )
        for file in {path, *path.parent.glob(f"{glob.escape(path.stem)}.*")}:
            link.with_name(f"{_NAME}{file.name.removeprefix(path.stem)}").symlink_to(file)
        yield link


def _is_taken_literally(path: Path) -> bool:
    from pyogrio.util import vsi_path

    try:
        # an archive has an address in front of its path
        return str(vsi_path(str(path))).endswith(str(path))
    except ValueError:
        return False
