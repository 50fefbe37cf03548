"""Values that masks hold, from a bounded number of them that are spread over the folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Info, pieces
from segcore.errors import DataError
from segcore.io import images
from segcore.io.annotations import LOSSY
from segcore.io.annotations._colors import counted, packed

# masks, and pixels of all of them and of one, that are read at most
_MASKS, _PIXELS, _PIXELS_OF_ONE = 256, 2**26, 2**25
# values and colours of one mask from which it is no mask of classes
_MOST = 4096
_GOLDEN = 0.6180339887498949


@dataclass
class Found:
    """What masks hold.

    Attributes:
        values: pixels of each value of masks of one band, or of equal bands.
        colors: pixels of each colour 0xRRGGBB of masks whose bands differ, or that have a palette.
        palette: colours of all index values, of masks with a palette.
        read: masks that were read.
        total: masks there are.
        has_colors: whether a mask has bands that differ.
        has_plain: whether a mask has one band and no palette.
        numbered: per mask, whether its values look like object numbers, and the largest.
        problems: why masks could not be read.
        nodata: declared value without data.
    """

    values: Counter[int] = field(default_factory=Counter)
    colors: Counter[int] = field(default_factory=Counter)
    palette: tuple[tuple[int, int, int], ...] | None = None
    read: int = 0
    total: int = 0
    has_colors: bool = False
    has_plain: bool = False
    numbered: list[tuple[bool, int]] = field(default_factory=list)
    problems: list[DataError] = field(default_factory=list)

    @property
    def are_objects(self) -> bool:
        """Whether values number the objects: 1 to n, each in one piece, with n of its own in each mask."""
        highest = [top for _, top in self.numbered]
        alike = sum(is_numbered for is_numbered, _ in self.numbered)
        several = len(set(highest)) >= 3 or (len(highest) < 3 and max(highest, default=0) > 20)
        return bool(highest) and several and max(highest) >= 4 and alike >= 0.8 * len(highest)


def spread(paths: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of a sequence, spread evenly over it, in an order whose beginning is spread as well."""
    order = sorted(range(len(paths)), key=lambda index: index * _GOLDEN % 1)
    return [paths[index] for index in order[:most]]


def read_masks(folder: Path, paths: Sequence[str], pages: str | None = None) -> Found:
    """Values of masks that are spread over a list; what cannot be read is a problem in the result."""
    found, room = Found(total=len(paths)), _PIXELS
    for path in spread(paths, _MASKS):
        if room <= 0:
            break
        try:
            room -= _read(folder / path, found, pages)
            found.read += 1
        except DataError as error:
            found.problems.append(error)
            room -= _PIXELS // _MASKS
    return found


def _read(path: Path, found: Found, pages: str | None) -> int:
    """Add what a mask holds; returns the pixels that were read."""
    if path.name.lower().endswith(LOSSY):
        raise DataError(
            f"{path.name}: is a JPEG, whose compression changes mask values",
            "provide the original masks as PNG or GeoTIFF",
            kind="jpeg-mask",
        )
    values: Counter[int] = Counter()
    colors: Counter[int] = Counter()
    pixels, components = 0, 0
    with images.open_source(path, "auto", pages, images.LABELS) as source:
        info = source.info
        windows = list(product(range(info.depth), pieces(info)))
        some = spread(
            windows, max(1, _PIXELS_OF_ONE * len(windows) // max(1, info.depth * info.height * info.width))
        )
        for plane, window in some:
            raster = source.read(window, plane)
            band, has_color = _values(raster.pixels, path.name)
            (colors if has_color else values).update(counted(band[raster.valid]))
            pixels += band.size
            if not has_color and len(windows) == 1 and 1 < len(values) < _MOST:
                components = _pieces(band)
            if len(values) > _MOST or len(colors) > _MOST:
                break
    _keep(found, info, values, colors)
    top = max(values, default=0)
    if not info.palette and not colors and top > 0:
        objects = len(values) - (0 in values)
        is_numbered = components > 0 and objects >= 0.8 * top and components <= 1.5 * objects
        found.numbered.append((is_numbered and min(values) >= 0, top))
    return pixels


def _values(pixels: np.ndarray, name: str) -> tuple[np.ndarray, bool]:
    """Integers of one band, or colours 0xRRGGBB where three bands differ, and whether they are colours."""
    if pixels.dtype.kind == "f":
        whole = np.rint(np.nan_to_num(pixels))
        if np.abs(whole - np.nan_to_num(pixels)).max(initial=0) > 1e-3:
            raise DataError(
                f"{name}: has fractions, not class values",
                "save the masks with whole numbers",
                "label-fractions",
            )
        pixels = whole.astype(np.int64)
    if all(np.array_equal(pixels[0], other) for other in pixels[1:]):
        return pixels[0], False
    if len(pixels) == 3 and pixels.dtype == np.uint8:
        # bands of few bits are classes, not colours
        return packed(pixels), True
    raise DataError(
        f"{name}: has {len(pixels)} bands that differ",
        "provide masks of one band with class values, or of red, green and blue",
        kind="label-bands",
    )


def _pieces(band: np.ndarray) -> int:
    """Number of 4-connected areas of equal values, without those of 0."""
    from skimage.measure import label

    return int(label(band, background=0, connectivity=1).max())


def _keep(found: Found, info: Info, values: Counter[int], colors: Counter[int]) -> None:
    found.has_colors |= bool(colors)
    found.colors.update(colors)
    found.values.update(values)
    if info.palette and values:
        found.palette = found.palette or info.palette
        for value, count in values.items():
            red, green, blue = info.palette[value] if value < len(info.palette) else (0, 0, 0)
            found.colors[red << 16 | green << 8 | blue] += count
    elif values:
        found.has_plain = True
        for value, count in values.items():
            if 0 <= value <= 255:
                found.colors[value << 16 | value << 8 | value] += count


def looks_like_mask(path: Path) -> bool:
    """Whether a raster has few values in its middle, so that it may be a mask."""
    if path.name.lower().endswith(LOSSY):
        return False
    try:
        with images.open_source(path, bands=images.LABELS) as source:
            info = source.info
            height, width = min(info.height, 512), min(info.width, 512)
            window = ((info.height - height) // 2, (info.width - width) // 2, height, width)
            band, _ = _values(source.read(window, info.depth // 2).pixels, path.name)
    except DataError:
        return False
    return len(np.unique(band)) <= 32
