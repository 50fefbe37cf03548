"""Directories and tags of a TIFF that GDAL does not hand out."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SUBFILE_TYPE, ORIENTATION, EXTRA_SAMPLES, NODATA = 254, 274, 338, 42113
REDUCED, MASK = 1, 4
_BIG_TIFF = 43
_DAMAGE = (OSError, OverflowError, ValueError, struct.error)


def tag(path: Path, number: int) -> Any:
    """Value of a tag: text, a number or several; None where it is missing or the directory is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as file:
            header = file.read(4)
            directory: Any = ImageFileDirectory_v2(prefix=header[:2])
            # Pillow recognises only BigTIFFs whose bytes have the order of Intel's.
            directory._bigtiff = _BIG_TIFF in header[2:]
            file.seek(next(directories(path))[0])
            directory.load(file)
            return directory.get(number)
    # What Pillow raises on damaged directories; GDAL reports the damage when it reads the file.
    except (*_DAMAGE, SyntaxError, TypeError, KeyError, IndexError, EOFError, StopIteration):
        return None


def directories(path: Path) -> Iterator[tuple[int, int]]:
    """Offset of each directory of a TIFF, and its NewSubfileType: bits such as REDUCED and MASK.

    The last one is that before damage, or before a directory that was there already.
    """
    seen = set[int]()
    try:
        with path.open("rb") as file:
            header = file.read(16)
            order = "<" if header[:2] == b"II" else ">"
            is_big = _BIG_TIFF in header[2:4]
            number, link = (order + "Q", order + "Q") if is_big else (order + "H", order + "L")
            entry, value = (20, 12) if is_big else (12, 8)
            offset = struct.unpack_from(link, header, 8 if is_big else 4)[0]
            while offset and offset not in seen:
                seen.add(offset)
                file.seek(offset)
                count = struct.unpack(number, file.read(struct.calcsize(number)))[0]
                first = file.read(entry)
                # Tags are sorted, and no other has a lower number.
                is_subfile = struct.unpack_from(order + "H", first)[0] == SUBFILE_TYPE
                yield offset, struct.unpack_from(order + "L", first, value)[0] if is_subfile else 0
                file.seek(offset + struct.calcsize(number) + count * entry)
                offset = struct.unpack(link, file.read(struct.calcsize(link)))[0]
    except _DAMAGE:
        return


def first_is_reduced(path: Path) -> bool:
    """Whether the first directory of a TIFF is marked as a reduced copy, such as a thumbnail."""
    return bool(next((kind for _, kind in directories(path)), 0) & REDUCED)


def pages(path: Path) -> int:
    """Number of directories of a TIFF that are neither reduced copies nor masks."""
    return sum(not kind & (REDUCED | MASK) for _, kind in directories(path))
