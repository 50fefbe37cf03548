"""Checks that the size a volume's header declares fits its file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segcore.errors import DataError
from segcore.io.images._checks import unreadable

# Limit of values of one volume, over all bands; only damaged headers declare more.
MAX_VOXELS = 2**34
# Largest compression ratio that deflate can reach.
_MOST_PACKED = 1032


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of the file system or a decoder into a DataError that names the file.

    Raises:
        DataError: of kind "unreadable".
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def check_size(name: str, needed: int, voxels: int, size: int, packed: bool) -> None:
    """Check the size that a header declares against the file, before memory is allocated.

    Args:
        name: of the file, for the error.
        needed: bytes that the header declares.
        voxels: values that the header declares.
        size: bytes of the file.
        packed: whether the file is compressed.

    Raises:
        DataError: of kind "too-large" for more than MAX_VOXELS, "unreadable" for more than the file can hold.
    """
    if voxels > MAX_VOXELS:
        raise DataError(
            f"{name}: header declares {voxels} values, more than {MAX_VOXELS}",
            "restore the file from its source; its header is damaged",
            kind="too-large",
        )
    capacity = (size + 2**16) * _MOST_PACKED if packed else size
    if needed > capacity:
        raise DataError(
            f"{name}: header declares {needed} bytes of data, but the file has only {size}"
            + (" (compressed)" if packed else ""),
            "the file is truncated or its header is damaged; restore it from its source",
            kind="unreadable",
        )
