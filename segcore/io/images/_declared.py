"""What a volume's header declares, against what its file can hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from segcore.errors import DataError
from segcore.io.images._checks import unreadable

MAX_VOXELS = 2**34  # of one volume, all bands; no scanner makes more, a damaged header asks for more
_MOST_PACKED = 1032  # to 1 is the most that deflate can do; a header that asks for more lies


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the file system or a decoder refuses while reading into a DataError that names the file.

    Raises:
        DataError: of kind "unreadable".
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error


def check_size(name: str, needed: int, voxels: int, size: int, packed: bool) -> None:
    """Check what a header declares against the file, before any memory is taken.

    Args:
        needed: bytes the header asks for.
        voxels: values the header asks for.
        size: bytes of the file.
        packed: whether the file is compressed.

    Raises:
        DataError: "too-large" for an absurd size, "unreadable" for more than the file can hold.
    """
    if voxels > MAX_VOXELS:
        raise DataError(
            f"{name}: header declares {voxels} values, more than {MAX_VOXELS}",
            "restore the file from its source; its header is damaged",
            kind="too-large",
        )
    room = (size + 2**16) * _MOST_PACKED if packed else size
    if needed > room:
        raise DataError(
            f"{name}: header declares {needed} bytes of data, the file has {size}"
            + (" compressed ones" if packed else ""),
            "the file is truncated or its header damaged; restore it from its source",
            kind="unreadable",
        )
