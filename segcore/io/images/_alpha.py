"""Which bands of a file are alpha (transparency), and which are data that the file only calls alpha.

GDAL calls the fourth band of any 8-bit file of four bands alpha if its writer does not say what the bands are, and so
names near infrared alpha. Such a band is alpha only if its values are those of one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from segcore.data.raster import Note
from segcore.io.images._tiff_tags import EXTRA_SAMPLES, Tag

_COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
# value of the tag ExtraSamples for colours that are multiplied by alpha, which no writer has as its default
_ASSOCIATED = 1
# pixels of images that are looked at as a whole; of others, blocks along each axis, and rows of one
_WHOLE, _BLOCKS, _ROWS = 2**18, 4, (64, 512)
# least fraction of pixels of alpha that are 0 or 255, and of those above 0 that are 255: edges may be soft
_PLAIN, _OPAQUE = 0.9, 0.5
_NOT_ALPHA = "its values are not those of transparency, which are mostly 0 and {}"


def alpha_bands(
    source: rasterio.DatasetReader, tags: Mapping[int, Tag], wanted: Sequence[int] | None
) -> tuple[list[int], list[Note]]:
    """Bands that are transparency, counted from 1, and what was decided.

    Args:
        source: the open file.
        tags: of a TIFF, from `first_tags`.
        wanted: bands that are data by the user's settings; None: not set; empty: alpha is transparency.
    """
    called = [i for i, use in enumerate(source.colorinterp, 1) if use == ColorInterp.alpha]
    if not called or len(called) == source.count:
        return [], []
    if source.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
        # GDAL makes them of CMYK, with an opaque alpha that the file does not have.
        return called, []
    is_guess = _is_default(source, tags)
    alpha, notes = list[int](), list[Note]()
    for band in called:
        why = None
        if wanted and band in wanted:
            why = "data.bands names it"
        elif is_guess and wanted != () and not _behaves_as_alpha(source, band):
            why = _NOT_ALPHA.format(255)
        if why is None:
            alpha.append(band)
        notes.append(_note(band, why))
    return alpha, notes


def alpha_of_picture(bands: np.ndarray, wanted: Sequence[int] | None) -> tuple[bool, list[Note]]:
    """Whether the last band of a picture, which its format calls alpha, is data; and what was decided.

    A band that is 0 everywhere is alpha: a picture may be all transparent. Alpha that hides nothing is not noted.

    Args:
        bands: all pixels (bands, height, width).
        wanted: bands that are data by the user's settings, all others are not; None: not set.
    """
    number, values = len(bands), bands[-1]
    most = int(np.iinfo(values.dtype).max)
    opaque, clear = int(np.count_nonzero(values == most)), values.size - int(np.count_nonzero(values))
    if opaque == values.size and not (wanted and number in wanted):
        return False, []
    why = None
    if wanted and number in wanted:
        why = "data.bands names it"
    elif wanted is None and clear < values.size and not _is_plain(opaque, clear, values.size):
        why = _NOT_ALPHA.format(most)
    # The pixels of masks that alpha hides are noted as they are read.
    return why is not None, [_note(number, why)] if wanted != () else []


def _note(band: int, why: str | None) -> Note:
    """What was decided about a band: the reason why it is data; None: it is alpha."""
    if why is None:
        return "alpha-band", f"band {band} is read as transparency (alpha), not as data"
    return "alpha-as-data", f"band {band}, which the file calls alpha, is read as data: {why}"


def _is_plain(opaque: int, clear: int, pixels: int) -> bool:
    """Whether so many opaque and transparent pixels are usual of alpha."""
    return opaque + clear >= _PLAIN * pixels and opaque >= _OPAQUE * (pixels - clear)


def _is_default(source: rasterio.DatasetReader, tags: Mapping[int, Tag]) -> bool:
    """Whether alpha may be what a writer assumed without being told: the fourth of four 8-bit bands."""
    four = source.count == 4 and source.dtypes[0] == "uint8" and source.colorinterp[:3] == _COLORS
    return four and _ASSOCIATED not in tuple(tags.get(EXTRA_SAMPLES, ()))


def _behaves_as_alpha(source: rasterio.DatasetReader, band: int) -> bool:
    """Whether a sample of blocks has the values of transparency."""
    values = np.concatenate([source.read(band, window=w).ravel() for w in _sample(source, band)])
    opaque, clear = int((values == 255).sum()), int((values == 0).sum())
    if clear == len(values):
        # Nothing is opaque: transparency hides empty pixels, and a dark band of data has colours beside it.
        others = [b for b in range(1, source.count + 1) if b != band]
        pixels = np.concatenate(
            [source.read(others, window=w).reshape(len(others), -1) for w in _sample(source, band)], axis=1
        )
        return bool((pixels == pixels[:, :1]).all())
    return _is_plain(opaque, clear, len(values))


def _sample(source: rasterio.DatasetReader, band: int) -> list[Window]:
    """Windows in blocks that are spread evenly; the same for every reading."""
    if source.height * source.width <= _WHOLE:
        return [Window(0, 0, source.width, source.height)]
    rows, cols = source.block_shapes[band - 1]
    windows = []
    for row in _spread(-(-source.height // rows)):
        for col in _spread(-(-source.width // cols)):
            top, left = row * rows, col * cols
            tall = min(max(rows, _ROWS[0]), _ROWS[1], source.height - top)
            windows.append(Window(left, top, min(cols, source.width - left), tall))
    return windows


def _spread(count: int) -> list[int]:
    """Up to _BLOCKS indices below count, in the middle of equal parts."""
    parts = min(count, _BLOCKS)
    return [(2 * part + 1) * count // (2 * parts) for part in range(parts)]
