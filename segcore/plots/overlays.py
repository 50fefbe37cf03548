"""Small pictures of packed items with their classes drawn over them, read with strides so that large items are fast."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.packed import Packed
from segcore.data.raster import Window
from segcore.plots.pictures import to_rgb

TINT = 0.34
# 8-bit pictures whose 99th percentile is below DARK are brightened to BRIGHT
DARK, BRIGHT = 120, 235
# medium greys, visible on light and dark pages
_HATCH = np.array([[128, 136, 148], [96, 104, 116]], np.float32)


class Look(NamedTuple):
    """One plane of an item: the image and the image with its classes, (H, W, 3) uint8; index and number of planes."""

    image: np.ndarray
    masked: np.ndarray
    plane: int
    planes: int


def fullest_plane(labels: np.ndarray, classes: Sequence[int], side: int = 128) -> int:
    """Index of the plane with most pixels of these classes, counted on a grid; the middle one if there are none.

    Args:
        labels: class indices (D, H, W), uint8.
        classes: class indices to count.
        side: number of grid points along the longer side, approximately.
    """
    depth, height, width = labels.shape
    if depth == 1:
        return 0
    step = max(1, max(height, width) // side)
    wanted = np.zeros(256, bool)
    wanted[list(classes)] = True
    counts = [int(wanted[plane[::step, ::step]].sum()) for plane in labels]
    return int(np.argmax(counts)) if max(counts) else depth // 2


def look(
    packed: Packed,
    colors: Mapping[int, Sequence[int]],
    side: int = 384,
    spacing: Sequence[float] | None = None,
) -> Look:
    """A picture of an item and one with its classes tinted and outlined, of `side` to about 2 x `side` pixels.

    Small items are enlarged by an integer factor. Invalid pixels are hatched in both pictures; pixels with an ignored
    label are hatched over the image in the second.

    Args:
        packed: tensors pixels (D, H, W, C), labels and valid (D, H, W), perhaps instances (D, H, W).
        colors: class index -> RGB of the classes to show.
        side: side in pixels at which the pictures will be shown.
        spacing: spacing of planes, rows and columns; pixels that are not square are stretched to their proportion.
    """
    labels = packed.array("labels")
    plane = fullest_plane(labels, list(colors))
    height, width = labels.shape[1:]
    step = max(1, -(-max(height, width) // (2 * side)))
    pixels = packed.thinned("pixels", (plane,), step)[..., :3]
    valid = packed.thinned("valid", (plane,), step) > 0
    classes = packed.thinned("labels", (plane,), step)
    objects = packed.thinned("instances", (plane,), step) if "instances" in packed.shapes else classes
    picture, masked = _drawn(pixels, valid, classes, objects, colors, side, spacing)
    return Look(picture, masked, plane, labels.shape[0])


def marked_objects(
    packed: Packed,
    plane: int,
    window: Window,
    numbers: np.ndarray,
    colors: tuple[Sequence[int], Sequence[int]],
    side: int = 384,
) -> np.ndarray:
    """A window of a plane with all its objects tinted and outlined, some of them in another colour, (H, W, 3) uint8.

    Args:
        packed: tensors pixels (D, H, W, C), valid and instances (D, H, W).
        plane: index.
        window: row, column, height, width in pixels; all of it is in memory.
        numbers: of the objects to mark.
        colors: RGB of these objects, and of the others.
        side: side in pixels at which the picture will be shown.
    """
    pixels = packed.window("pixels", (plane,), window)[..., :3]
    valid = packed.window("valid", (plane,), window) > 0
    objects = packed.window("instances", (plane,), window)
    kind = np.where(np.isin(objects, numbers), 1, 2) * (objects > 0)
    return _drawn(pixels, valid, kind, objects, {1: colors[0], 2: colors[1]}, side, None)[1]


def _drawn(
    pixels: np.ndarray,
    valid: np.ndarray,
    classes: np.ndarray,
    objects: np.ndarray,
    colors: Mapping[int, Sequence[int]],
    side: int,
    spacing: Sequence[float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The picture as it is shown, and with its classes tinted and its objects outlined; arguments as of `look`."""
    picture = brightened(to_rgb(pixels, valid), valid)
    size = _shown_size(classes.shape, side, spacing)
    picture = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
    rows, cols = (
        np.arange(size[0]) * classes.shape[0] // size[0],
        np.arange(size[1]) * classes.shape[1] // size[1],
    )
    # nearest neighbours
    grid = (rows[:, None], cols)
    line = max(1, round(max(size) / side * 1.4))
    picture = _hatched(picture, ~valid[grid], line)
    return picture, outlined(picture, classes[grid], objects[grid], valid[grid], colors, line)


def brightened(picture: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A dark picture (H, W, 3) uint8 with all bands multiplied by one factor, which preserves hues."""
    # a sample is enough for a percentile
    step = max(1, min(valid.shape) // 128)
    seen = picture[::step, ::step][valid[::step, ::step]]
    top = float(np.percentile(seen, 99)) if len(seen) else 255.0
    if not 0 < top < DARK:
        return picture
    return _mapped(picture, np.arange(256) * (BRIGHT / top))


def _mapped(picture: np.ndarray, table: np.ndarray) -> np.ndarray:
    """8-bit values replaced by those of a table of 256 entries."""
    mapped: np.ndarray = np.clip(table, 0, 255).astype(np.uint8)[picture]
    return mapped


def _shown_size(shape: tuple[int, ...], side: int, spacing: Sequence[float] | None) -> tuple[int, int]:
    """Rows and columns of the picture: in the proportion of the spacing, small items enlarged by an integer factor."""
    tall, wide = (spacing[1], spacing[2]) if spacing else (1.0, 1.0)
    proportional = (shape[0] * max(tall / wide, 1.0), shape[1] * max(wide / tall, 1.0))
    factor = max(1, round(side / max(proportional)))
    return max(1, round(proportional[0] * factor)), max(1, round(proportional[1] * factor))


def _hatched(picture: np.ndarray, where: np.ndarray, line: int, strength: float = 1.0) -> np.ndarray:
    """Diagonal stripes over the pixels (H, W) bool."""
    if not where.any():
        return picture
    rows, cols = np.ogrid[: where.shape[0], : where.shape[1]]
    stripes = _HATCH[(rows + cols) // (4 * line) % 2]
    mixed = picture * (1 - strength) + stripes * strength
    return np.where(where[..., None], mixed, picture).astype(np.uint8)


def _grown(where: np.ndarray, times: int) -> np.ndarray:
    """Pixels within `times` steps (up, down, left, right)."""
    for _ in range(times):
        grown = where.copy()
        grown[1:] |= where[:-1]
        grown[:-1] |= where[1:]
        grown[:, 1:] |= where[:, :-1]
        grown[:, :-1] |= where[:, 1:]
        where = grown
    return where


def _edges(objects: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool with a neighbour of another value."""
    edges = np.zeros(objects.shape, bool)
    across, down = objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def outlined(
    picture: np.ndarray,
    classes: np.ndarray,
    objects: np.ndarray,
    valid: np.ndarray,
    colors: Mapping[int, Sequence[int]],
    line: int = 1,
) -> np.ndarray:
    """The picture with its classes tinted and each object outlined, (H, W, 3) uint8.

    Args:
        picture: (H, W, 3) uint8.
        classes: (H, W) class indices; IGNORE is hatched.
        objects: (H, W) numbers of objects, or the classes again.
        valid: (H, W) bool; nothing is drawn over invalid pixels.
        colors: class index -> RGB of the classes to show.
        line: width of the outlines in pixels.
    """
    shown = picture.copy()
    drawn = np.isin(classes, list(colors)) & valid
    inside = _edges(objects) & drawn
    contour = _grown(inside, line - 1) & drawn
    # a dark rim makes outlines visible on an image of the same colour
    halo = _grown(inside, max(1, line // 2)) & ~drawn & valid
    shown[halo] = _mapped(shown[halo], np.arange(256) * 0.45)
    for index, colour in colors.items():
        here = (classes == index) & drawn
        for band, value in enumerate(colour):
            tinted = np.arange(256) * (1 - TINT) + value * TINT
            np.copyto(shown[..., band], _mapped(picture[..., band], tinted), where=here)
        shown[here & contour] = colour
    ignored = (classes == IGNORE) & valid
    return _hatched(shown, ignored, line, strength=0.6)
