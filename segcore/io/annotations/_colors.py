"""Colours of masks as integers 0xRRGGBB."""

from collections import Counter
from itertools import product

import numpy as np

from segcore.data.raster import Info, pieces
from segcore.io import images
from segcore.io.annotations._shared import listed

# A picture with more colours is not a colour-coded mask.
_MOST_COLORS = 64


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


def color_remedy(source: images.Source) -> str:
    """Remedy for a colour-coded mask, with the colours of the whole file; empty if the mask is not colour-coded."""
    info = source.info
    if (info.bands, info.dtype) != (3, "uint8"):
        return ""
    counts: Counter[int] = Counter()
    for window, plane in product(pieces(info), range(info.depth)):
        raster = source.read(window, plane)
        counts.update(counted(packed(raster.pixels)[raster.valid]))
        if len(counts) > _MOST_COLORS:
            return ""
    if not any(value & 0xFEFEFE for value in counts):
        # Bands of 0 and 1 are classes, not colours.
        return ""
    colors = listed((f"#{value:06X}", count) for value, count in counts.items())
    return f'it looks colour-coded: declare its colours in data.label_values as "#RRGGBB"; found {colors}'


def counted(values: np.ndarray) -> dict[int, int]:
    """Number of pixels of each value."""
    distinct, counts = np.unique(values, return_counts=True)
    return dict(zip(distinct.tolist(), counts.tolist(), strict=True))
