"""TIFF files written tag by tag, for what GDAL and Pillow do not write."""

import struct

import numpy as np

_FORMATS = {"u": 1, "i": 2, "f": 3}
_SHORT, _LONG, _TEXT = 3, 4, 2


def write_tiff(path, pages):
    """Write an uncompressed little-endian TIFF.

    Args:
        path: of the file.
        pages: for each page an array (H, W) or (H, W, bands), and its further tags: number -> text or whole number.
    """
    content = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for array, tags in pages:
        height, width, bands = (*array.shape, 1)[:3]
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        bits = 8 * array.dtype.itemsize
        fields = {
            256: (_LONG, [width]), 257: (_LONG, [height]), 258: (_SHORT, [bits] * bands), 259: (_SHORT, [1]),
            262: (_SHORT, [2 if bands > 2 else 1]), 273: (_LONG, [len(content)]), 277: (_SHORT, [bands]),
            278: (_LONG, [height]), 279: (_LONG, [len(data)]), 339: (_SHORT, [_FORMATS[array.dtype.kind]] * bands),
        }  # fmt: skip
        for number, value in tags.items():
            fields[number] = (_TEXT, value.encode() + b"\0") if isinstance(value, str) else (_LONG, [value])
        content += data
        entries = []
        for number, (kind, value) in sorted(fields.items()):
            packed = (
                value
                if kind == _TEXT
                else struct.pack(f"<{len(value)}{'H' if kind == _SHORT else 'L'}", *value)
            )
            if len(packed) > 4:
                at = len(content)
                content += packed
                packed = struct.pack("<L", at)
            entries.append(struct.pack("<HHL4s", number, kind, len(value), packed.ljust(4, b"\0")))
        content += bytes(len(content) % 2)
        content[link : link + 4] = struct.pack("<L", len(content))
        content += struct.pack("<H", len(entries)) + b"".join(entries)
        link = len(content)
        content += bytes(4)
    path.write_bytes(bytes(content))


def noise(*shape, dtype="uint8", seed=0):
    """Random whole numbers from 1 to 99."""
    return np.random.default_rng(seed).integers(1, 100, shape).astype(dtype)
