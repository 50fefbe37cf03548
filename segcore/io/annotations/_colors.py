"""Colours of masks as integers 0xRRGGBB."""

import numpy as np

from segcore.data.raster import Info


def is_color(key: int | str) -> bool:
    """Whether a key of data.label_values is a colour "#RRGGBB"."""
    return (
        isinstance(key, str) and len(key) == 7 and key[0] == "#" and set(key[1:]) <= set("0123456789ABCDEF")
    )


def packed(colors: np.ndarray) -> np.ndarray:
    """Colours (3, H, W), or grey (1, H, W), from 0 to 255 as (H, W) uint32 0xRRGGBB."""
    red, green, blue = (band.astype(np.uint32) for band in (colors if len(colors) == 3 else [colors[0]] * 3))
    joined: np.ndarray = (red << 16) | (green << 8) | blue
    return joined


def palette(info: Info) -> np.ndarray:
    """Colours 0xRRGGBB of all index values; black past the end of the palette, as in viewers."""
    table = np.zeros(2 ** min(8 * np.dtype(info.dtype).itemsize, 16), np.uint32)
    for index, (red, green, blue) in enumerate((info.palette or ())[: len(table)]):
        table[index] = red << 16 | green << 8 | blue
    return table
