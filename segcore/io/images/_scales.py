"""What a raster declares about its stored values: scale and offset of its bands, and that 0 is white (MinIsWhite)."""

from collections.abc import Sequence

import numpy as np
import rasterio

from segcore.data.raster import Note

# beginning of the note about an image's scale, by which images are compared
UNSCALED = "scale and offset of the file are not applied: "


def as_declared(
    source: rasterio.DatasetReader, bands: Sequence[int], is_mask: bool
) -> tuple[int | None, list[Note]]:
    """The highest value where values are to be inverted, None elsewhere; and notes.

    Args:
        source: the open file.
        bands: that are read, counted from 1.
        is_mask: whether values are labels, which are never changed.
    """
    notes: list[Note] = []
    factors = [(source.scales[b - 1], source.offsets[b - 1]) for b in bands]
    if any(factor != (1, 0) for factor in factors):
        notes.append(("scale-ignored", UNSCALED + _text(bands, factors)))
    dtype = np.dtype(source.dtypes[bands[0] - 1])
    is_inverted = source.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    if not is_inverted or dtype.kind != "u" or dtype.itemsize > 2:
        return None, notes
    if is_mask:
        text = "values are read as stored, although the file declares 0 to be white (MinIsWhite)"
        return None, [*notes, ("scale-ignored", text)]
    bits = int(source.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize))
    if bits == 1:
        # GDAL gives such files a palette whose first colour is white.
        return None, notes
    notes.append(("scaled", "values are inverted, because 0 is white in the file (MinIsWhite)"))
    return 2**bits - 1, notes


def _text(bands: Sequence[int], factors: list[tuple[float, float]]) -> str:
    """Factors such as "x 0.0001 - 0.1", for each band if they differ."""
    texts = [f"x {scale:g} {'-' if offset < 0 else '+'} {abs(offset):g}" for scale, offset in factors]
    if len(set(texts)) == 1:
        return texts[0]
    return ", ".join(f"band {band} {text}" for band, text in zip(bands, texts, strict=True))
