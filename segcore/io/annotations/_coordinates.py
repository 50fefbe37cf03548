"""Whether coordinates of polygons are pixels: fractions are refused, and what may be percent is noted."""

from collections.abc import Iterable
from typing import Any

from segcore.data.raster import Info, Note
from segcore.errors import DataError

# Fractions of the size of an image may be a little above 1, and percent above 100.
_FRACTION, _PERCENT = 1.5, 100.5
# Smallest images, in pixels, whose coordinates are suspicious if they are all so small.
_SMALLEST, _LARGE = 4, 300


def polygons_of(outline: Any) -> list[Any]:
    """Polygons x, y, x, y, ... of an outline: of a list of them, or of one that is not in a list of its own."""
    if isinstance(outline, list) and outline and isinstance(outline[0], list | tuple):
        return outline
    return [outline]


def reach_of(outlines: Iterable[Any]) -> float | None:
    """Largest absolute coordinate of the polygons of a file; inf for any above 100, None where it has no polygon.

    Args:
        outlines: of its objects; those that are not lists of polygons, or damaged, do not count.
    """
    reach = None
    for outline in outlines:
        if not isinstance(outline, list) or not outline:
            continue
        try:
            largest = max((abs(v) for part in polygons_of(outline) for v in part), default=None)
        except TypeError:
            continue
        if largest is None:
            continue
        if not largest <= _PERCENT:
            return float("inf")
        reach = max(reach or 0.0, float(largest))
    return reach


def check_pixels(name: str, reach: float | None, image: Info) -> list[Note]:
    """Check that the coordinates of a file of annotations are pixels; a note where they may be percent.

    Args:
        name: of the file.
        reach: largest coordinate of its polygons, see `reach_of`.
        image: header of an image.

    Raises:
        DataError: they are fractions of the size of the image.
    """
    size = min(image.height, image.width)
    if reach is None:
        return []
    if reach <= _FRACTION and size > _SMALLEST:
        raise DataError(
            f"{name}: all its polygons have coordinates from 0 to {reach:g}, which are fractions of the size of an "
            f"image and not pixels; this one has {image.height} x {image.width}",
            "multiply x by the width and y by the height of the image, or export the annotations in pixels",
            kind="size-mismatch",
        )
    if reach <= _PERCENT and size > _LARGE:
        text = (
            f"all polygons of {name} have coordinates of at most {reach:g}, and the image has {image.height} x "
            f"{image.width} pixels: they may be percent"
        )
        return [("maybe-percent", text)]
    return []
