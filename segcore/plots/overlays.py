"""Small pictures of packed items with their classes drawn over them, read by strides so that size costs nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.packed import Packed
from segcore.plots.pictures import to_rgb

TINT = 0.34
DARK, BRIGHT = (
    120,
    235,
)  # 8-bit pictures whose 99th percentile is below the first are brightened to the second
_HATCH = np.array(
    [[128, 136, 148], [96, 104, 116]], np.float32
)  # middling greys: seen on light and dark pages


class Look(NamedTuple):
    """One plane of an item as it looks, (H, W, 3) uint8 both, and which plane of how many (from 0)."""

    image: np.ndarray
    masked: np.ndarray
    plane: int
    planes: int


def fullest_plane(labels: np.ndarray, classes: Sequence[int], side: int = 128) -> int:
    """Plane of labels (D, H, W) with most pixels of these classes, counted on a grid; the middle one if there is none.

    Args:
        labels: class indices, uint8.
        classes: indices that count.
        side: about how many pixels a side are looked at.
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

    Small items are enlarged by a whole factor. Pixels that are not valid are hatched in both pictures, those whose
    label is ignored are hatched over the image in the second.

    Args:
        packed: tensors pixels (D, H, W, C), labels and valid (D, H, W), perhaps instances (D, H, W).
        colors: class index -> RGB of the classes to show.
        side: that the pictures will be shown at.
        spacing: of planes, rows, columns: unequal rows and columns are stretched to their true proportion.
    """
    labels = packed.array("labels")
    plane = fullest_plane(labels, list(colors))
    height, width = labels.shape[1:]
    step = max(1, -(-max(height, width) // (2 * side)))
    pixels = packed.thinned("pixels", (plane,), step)[..., :3]
    valid = packed.thinned("valid", (plane,), step) > 0
    classes = packed.thinned("labels", (plane,), step)
    objects = packed.thinned("instances", (plane,), step) if "instances" in packed.shapes else classes
    picture = _brightened(to_rgb(pixels, valid), valid)

    size = _shown_size(classes.shape, side, spacing)
    picture = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BICUBIC))
    rows, cols = (
        np.arange(size[0]) * classes.shape[0] // size[0],
        np.arange(size[1]) * classes.shape[1] // size[1],
    )
    grid = (rows[:, None], cols)  # nearest neighbours
    line = max(1, round(max(size) / side * 1.4))
    picture = _hatched(picture, ~valid[grid], line)
    masked = outlined(picture, classes[grid], objects[grid], valid[grid], colors, line)
    return Look(picture, masked, plane, labels.shape[0])


def _brightened(picture: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """A dark picture (H, W, 3) uint8 with all bands raised by one factor, so that hues stay."""
    step = max(1, min(valid.shape) // 128)  # a percentile needs no more
    seen = picture[::step, ::step][valid[::step, ::step]]
    top = float(np.percentile(seen, 99)) if len(seen) else 255.0
    if not 0 < top < DARK:
        return picture
    return _mapped(picture, np.arange(256) * (BRIGHT / top))


def _mapped(picture: np.ndarray, table: np.ndarray) -> np.ndarray:
    """8-bit values replaced by those of a table of 256."""
    return np.clip(table, 0, 255).astype(np.uint8)[picture]


def _shown_size(shape: tuple[int, ...], side: int, spacing: Sequence[float] | None) -> tuple[int, int]:
    """Rows and columns to draw at: enlarged by a whole factor where small, and in the proportion of the spacing."""
    tall, wide = (spacing[1], spacing[2]) if spacing else (1.0, 1.0)
    true = (shape[0] * max(tall / wide, 1.0), shape[1] * max(wide / tall, 1.0))
    factor = max(1, round(side / max(true)))
    return max(1, round(true[0] * factor)), max(1, round(true[1] * factor))


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
    found = np.zeros(objects.shape, bool)
    across, down = objects[:, 1:] != objects[:, :-1], objects[1:] != objects[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found


def outlined(
    picture: np.ndarray,
    classes: np.ndarray,
    objects: np.ndarray,
    valid: np.ndarray,
    colors: Mapping[int, Sequence[int]],
    line: int = 1,
) -> np.ndarray:
    """The picture (H, W, 3) uint8 with classes tinted, and outlined around each object.

    Args:
        classes: (H, W) class indices; IGNORE is hatched.
        objects: (H, W) numbers of objects, or the classes again.
        valid: (H, W) bool; elsewhere nothing is drawn.
        colors: class index -> RGB of the classes to show.
        line: width of the outlines in pixels.
    """
    shown = picture.copy()
    drawn = np.isin(classes, list(colors)) & valid
    inside = _edges(objects) & drawn
    contour = _grown(inside, line - 1) & drawn
    halo = (
        _grown(inside, max(1, line // 2)) & ~drawn & valid
    )  # outlines stay apart from an image of their colour
    shown[halo] = _mapped(shown[halo], np.arange(256) * 0.45)
    for index, colour in colors.items():
        here = (classes == index) & drawn
        for band, value in enumerate(colour):
            tinted = np.arange(256) * (1 - TINT) + value * TINT
            np.copyto(shown[..., band], _mapped(picture[..., band], tinted), where=here)
        shown[here & contour] = colour
    ignored = (classes == IGNORE) & valid
    return _hatched(shown, ignored, line, strength=0.6)
