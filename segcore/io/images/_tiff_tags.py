"""Directories and tags of a TIFF that GDAL does not hand out."""

import struct
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

SUBFILE_TYPE, ORIENTATION, EXTRA_SAMPLES, NODATA = 254, 274, 338, 42113
REDUCED, MASK = 1, 4
# Text of one character per byte, or whole numbers.
Tag = str | tuple[int, ...]
_READ = (SUBFILE_TYPE, ORIENTATION, EXTRA_SAMPLES, NODATA)
_BIG_TIFF = 43
# Types of tags: text, and formats of whole numbers.
_TEXT, _NUMBERS = 2, {1: "B", 3: "H", 4: "L", 16: "Q"}
_MOST_BYTES = 2**12
# What damaged directories raise; GDAL reports the damage when it reads the file.
_ERRORS = (OSError, OverflowError, ValueError, struct.error)


class _Layout(NamedTuple):
    """Byte order and sizes of a TIFF or BigTIFF.

    Attributes:
        order: of struct.
        number: format of the number of entries.
        link: format of offsets and counts.
        first: offset of the first directory.
    """

    order: str
    number: str
    link: str
    first: int

    @property
    def entry(self) -> int:
        """Bytes of an entry: tag, type, count, and value or its offset."""
        return 4 + 2 * struct.calcsize(self.link)


def _layout(file: BufferedReader) -> _Layout:
    header = file.read(16)
    order = "<" if header[:2] == b"II" else ">"
    is_big = struct.unpack_from(order + "H", header, 2)[0] == _BIG_TIFF
    number, link = (order + "Q", order + "Q") if is_big else (order + "H", order + "L")
    return _Layout(order, number, link, struct.unpack_from(link, header, 8 if is_big else 4)[0])


def first_tags(path: Path) -> dict[int, Tag]:
    """The tags of the first directory that this module names; empty if it is damaged or no TIFF."""
    try:
        with path.open("rb") as file:
            layout = _layout(file)
            file.seek(layout.first)
            count = struct.unpack(layout.number, file.read(struct.calcsize(layout.number)))[0]
            entries = file.read(min(count, _MOST_BYTES) * layout.entry)
            found = {}
            for at in range(0, len(entries) - layout.entry + 1, layout.entry):
                number, kind = struct.unpack_from(layout.order + "HH", entries, at)
                if number in _READ and (value := _value(file, layout, entries[at : at + layout.entry], kind)):
                    found[number] = value
            return found
    except _ERRORS:
        return {}


def _value(file: BufferedReader, layout: _Layout, entry: bytes, kind: int) -> Tag | None:
    if kind != _TEXT and kind not in _NUMBERS:
        return None
    count = struct.unpack_from(layout.link, entry, 4)[0]
    form = f"{layout.order}{count}{'s' if kind == _TEXT else _NUMBERS[kind]}"
    size, inline = struct.calcsize(form), layout.entry - struct.calcsize(layout.link)
    if size > _MOST_BYTES:
        return None
    content = entry[inline:]
    if size > len(content):
        file.seek(struct.unpack(layout.link, content)[0])
        content = file.read(size)
    values = struct.unpack_from(form, content)
    return values[0].decode("latin-1") if kind == _TEXT else values


def directories(path: Path) -> Iterator[tuple[int, int]]:
    """Offset of each directory of a TIFF, and its NewSubfileType: bits such as REDUCED and MASK.

    The last one is that before damage, or before a directory that was there already.
    """
    seen = set[int]()
    try:
        with path.open("rb") as file:
            layout = _layout(file)
            offset, size = layout.first, struct.calcsize(layout.number)
            while offset and offset not in seen:
                seen.add(offset)
                file.seek(offset)
                count = struct.unpack(layout.number, file.read(size))[0]
                first = file.read(layout.entry)
                number, kind = struct.unpack_from(layout.order + "HH", first)
                # Tags are sorted, and no other has a lower number.
                value = _value(file, layout, first, kind) if number == SUBFILE_TYPE else None
                yield offset, value[0] if isinstance(value, tuple) else 0
                file.seek(offset + size + count * layout.entry)
                offset = struct.unpack(layout.link, file.read(struct.calcsize(layout.link)))[0]
    except _ERRORS:
        return


def pages(path: Path) -> int:
    """Number of directories of a TIFF that are neither reduced copies nor masks."""
    return sum(not kind & (REDUCED | MASK) for _, kind in directories(path))
