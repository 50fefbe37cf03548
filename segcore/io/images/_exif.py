"""The orientation tag of EXIF in pictures."""

import struct
import zlib
from contextlib import suppress
from pathlib import Path

from PIL import Image

# tag of EXIF
_ORIENTATION = 0x0112
# Exceptions that Pillow's plugins raise on damaged files.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError),
    *(AttributeError, AssertionError, RuntimeError, struct.error, zlib.error),
)


def orientation_tag(path: Path, image: Image.Image) -> int | None:
    """Orientation tag of EXIF; None where there is none. In a PNG it may follow the pixels."""
    block = image.info.get("exif")
    if block is None and image.format == "PNG":
        block = _late_exif(path)
    if not block:
        return None
    exif = Image.Exif()
    # Damaged metadata does no harm.
    with suppress(*PILLOW_ERRORS):
        exif.load(block)
        return int(exif.get(_ORIENTATION, 1))
    return None


def _late_exif(path: Path) -> bytes | None:
    """The chunk eXIf of a PNG, wherever it is; None where there is none."""
    with path.open("rb") as file:
        at = 8
        while True:
            file.seek(at)
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return None
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return b"Exif\0\0" + file.read(min(length, 2**16))
            at += length + 12
