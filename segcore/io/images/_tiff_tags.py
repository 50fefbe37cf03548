"""Tags of the first directory of a TIFF that GDAL does not hand out."""

import struct
from pathlib import Path
from typing import Any

SUBFILE_TYPE, EXTRA_SAMPLES, NODATA = 254, 338, 42113
_BIG_TIFF = 43


def tag(path: Path, number: int) -> Any:
    """Value of a tag: text, a number or several; None where it is missing or the directory is damaged."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as file:
            header = file.read(8)
            if _BIG_TIFF in header[2:4]:
                header += file.read(8)
            directory: Any = ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
            return directory.get(number)
    # What Pillow raises on damaged directories; GDAL reports the damage when it reads the file.
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError):
        return None


def first_is_reduced(path: Path) -> bool:
    """Whether the first directory is marked as a reduced copy, such as a thumbnail; only its first tag is read."""
    try:
        with path.open("rb") as file:
            header = file.read(16)
            order = "<" if header[:2] == b"II" else ">"
            is_big = _BIG_TIFF in header[2:4]
            file.seek(struct.unpack_from(f"{order}{'Q' if is_big else 'L'}", header, 8 if is_big else 4)[0])
            entry = file.read(28)[8 if is_big else 2 :]
    except (OSError, OverflowError, ValueError, struct.error):
        return False
    if len(entry) < 12 or struct.unpack_from(f"{order}H", entry)[0] != SUBFILE_TYPE:
        return False
    return bool(struct.unpack_from(f"{order}L", entry, 12 if is_big else 8)[0] & 1)
