"""Masks on the grid of their image: compared by position, or in stored order where one of them has none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from segcore.data.axes import AS_STORED, composed, inverse, size_in
from segcore.data.raster import Info, Note, Order
from segcore.errors import DataError
from segcore.io import images
from segcore.io.crs import has_heights, same_on_map, short_name
from segcore.io.images._orientation import Turned, turned_info
from segcore.params.data import Data

_RESAMPLE = "resample the mask (nearest neighbour) to the image's grid, or remove the pair"
_NIFTI = (".nii", ".nii.gz")
# orders from planes, rows, columns to k, j, i of a NIfTI file of (rows, columns, planes) or (planes, rows, columns)
_NUMPY: tuple[Order, ...] = ((1, 3, 2), (3, 2, 1))
_TRUST = "save its array with the image's affine, or set data.trust_shape: true"


@contextmanager
def open_on_grid(path: Path, image_path: Path, image: Info, data: Data) -> Iterator[images.Source]:
    """Open a mask in the orientation of its image; the notes of its header report how it was turned.

    Raises:
        DataError: it cannot be read, or is not on the image's grid.
    """
    slices = image.axis if image.canonical else data.slices
    # The mask of a stack is a stack.
    pages = "planes" if image.depth > 1 else data.pages
    with images.open_source(path, slices, pages, images.LABELS) as source:
        order, notes = order_on(image, source.info, (image_path, path), data.trust_shape)
        # Volumes that are turned by their position are noted once, for the image.
        kept = tuple(note for note in source.info.notes if note[0] != "turned")
        source.info = replace(source.info, notes=(*kept, *notes))
        yield source if order == AS_STORED else Turned(source, order)


def as_stored(info: Info) -> Info:
    """Header of the stored array of an image, without its position."""
    return turned_info(info, inverse(info.order))


def order_on(
    image: Info, mask: Info, names: tuple[Path, Path], trust_shape: bool = False
) -> tuple[Order, list[Note]]:
    """Order that turns a mask, as it is read, onto its image as it is read, and notes.

    Two volumes are compared by position. Without a position on both sides the stored arrays belong together, except
    that a mask may have been drawn on a picture as its orientation tag turns it: then it has the size of that.

    Args:
        image: header of the image.
        mask: header of the mask.
        names: paths of image and mask, for errors.
        trust_shape: whether stored arrays of equal shape belong together although their positions differ.

    Raises:
        DataError: size, planes, CRS, transform, spacing or affine differ.
    """
    stored = composed(inverse(mask.order), image.order)
    if image.affine and mask.affine:
        return _by_position(image, mask, names, stored if trust_shape else None)
    if mask.affine:
        back = [inverse(order) for order in orders_of_pixels(mask, names[1])]
        orders = [composed(order, to) for order in back for to in dict.fromkeys((AS_STORED, image.order))]
    elif image.affine:
        orders = orders_of_pixels(image, names[0])
    else:
        orders = [AS_STORED, stored]
    order = next((order for order in orders if _fits(image, mask, order)), None)
    if order is None:
        pictures = [as_stored(info) if info.affine else info for info in (image, mask)]
        check_same_grid(pictures[0], pictures[1], names)
    if order is None or (order == AS_STORED and not mask.affine):
        return _by_position(image, mask, names, AS_STORED if trust_shape else None)
    if mask.affine:
        text = f"is taken in its stored order, because {names[0].name} has no position"
    elif image.affine:
        text = f"has no position, and is turned like the stored array of {names[0].name}"
        if order != image.order:
            text += ", whose first axis is taken for its rows or planes"
    else:
        text = f"has the size of the stored pixels of {names[0].name}, and is turned like them"
    return order, [("mask-turned", text)]


def orders_of_pixels(image: Info, path: Path) -> list[Order]:
    """Orders that may turn an array of (planes, rows, columns) without a position onto an image, the likeliest first.

    The size decides between them. A picture with an orientation tag is annotated as viewers show it, or as stored. A
    volume is annotated as stored; but arrays of NumPy are saved as NIfTI without exchanging their axes, so that i is
    the row or the plane: always where the affine is a default of nibabel, and elsewhere if only that fits.

    Args:
        image: header of the image.
        path: of the image.
    """
    if not image.affine:
        return list(dict.fromkeys((AS_STORED, image.order)))
    readings = [AS_STORED]
    if path.name.lower().endswith(_NIFTI):
        readings = [AS_STORED, *_NUMPY]
        if not image.placed and not np.allclose(image.affine, np.diag([-1, -1, 1, 1]).ravel()):
            readings = [*_NUMPY, AS_STORED]
    return [composed(reading, image.order) for reading in readings]


def _size(info: Info) -> tuple[int, int, int]:
    return info.depth, info.height, info.width


def _fits(image: Info, mask: Info, order: Order) -> bool:
    return size_in(_size(mask), order) == _size(image)


def _by_position(
    image: Info, mask: Info, names: tuple[Path, Path], trusted: Order | None
) -> tuple[Order, list[Note]]:
    """AS_STORED for a mask that is at the same place as its image; else `trusted`, if the arrays fit by it.

    Raises:
        DataError: they are at different places, or the arrays do not fit.
    """
    try:
        return AS_STORED, check_same_grid(image, mask, names)
    except DataError as error:
        without = "mask" if not mask.placed else "image" if not image.placed else None
        is_either = mask.placed or image.placed
        fits = _fits(image, mask, composed(inverse(mask.order), image.order))
        if not fits or (error.kind == "size-mismatch" and without is None):
            raise
        what, kind = error.what, error.kind
        if without:
            files = f"the file of the {without} has" if is_either else "both files have"
            what = f"{_pair(names)}: {files} no position (its affine is a default)"
            kind = "affine-mismatch"
        if trusted is not None:
            text = what.removeprefix(f"{_pair(names)}: ")
            return trusted, [("trusted-shape", f"{text}; the mask is taken in the order of its array")]
        if without is None:
            remedy = f"{error.remedy}; if only the header of the mask is wrong, {_TRUST}"
        else:
            of = {
                "mask": "save the mask's array with the image's affine",
                "image": "give both the same affine",
            }
            remedy = (
                f"if the voxels of both are in the same order, {of[without]}, or set data.trust_shape: true; "
                "else export it again with its position"
            )
        raise DataError(what, remedy, kind=kind) from error


def _pair(names: tuple[Path, Path]) -> str:
    image_path, mask_path = names
    # The folder of the mask distinguishes it from an image of the same name.
    same_name = image_path.name == mask_path.name
    folder = f"{mask_path.parent.name}/" if same_name else ""
    return f"{image_path.name} and its mask {folder}{mask_path.name}"


def check_same_grid(image: Info, mask: Info, names: tuple[Path, Path]) -> list[Note]:
    """Check that a mask is on its image's grid, and return notes.

    Args:
        image: header of the image.
        mask: header of the mask.
        names: paths of image and mask, for errors.

    Raises:
        DataError: size, planes, CRS, transform, spacing or affine differ; the message gives both values.
    """
    pair = _pair(names)
    axes = "planes x height x width" if max(image.depth, mask.depth) > 1 else "height x width"
    sizes = [size_text(i) for i in (image, mask)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{pair}: sizes differ in {axes}, image {sizes[0]}, mask {sizes[1]}",
            "crop or " + _RESAMPLE,
            kind="size-mismatch",
        )
    notes: list[Note] = []
    if image.crs and mask.crs and image.crs != mask.crs:
        systems = f"image {short_name(image.crs)}, mask {short_name(mask.crs)}"
        if not same_on_map(image.crs, mask.crs):
            raise DataError(
                f"{pair}: coordinate systems differ, {systems}",
                "reproject the mask to the image's coordinate system",
                kind="crs-mismatch",
            )
        if has_heights(image.crs) or has_heights(mask.crs):
            notes.append(("height-ignored", f"equal on the map, heights are ignored ({systems})"))
    _check_geometry(image, mask, pair)
    return notes


def _check_geometry(image: Info, mask: Info, pair: str) -> None:
    if image.transform and mask.transform and not _close(image.transform, mask.transform):
        raise DataError(
            f"{pair}: affine transforms differ, image {image.transform}, mask {mask.transform}",
            _RESAMPLE,
            kind="transform-mismatch",
        )
    if image.spacing and mask.spacing and not np.allclose(image.spacing, mask.spacing, rtol=1e-3):
        raise DataError(
            f"{pair}: voxel spacings differ, image {image.spacing} mm, mask {mask.spacing} mm",
            _RESAMPLE,
            kind="spacing-mismatch",
        )
    if image.affine and mask.affine and not same_voxels(image, mask):
        raise DataError(
            f"{pair}: voxel affines differ, image {image.orientation} {image.affine}, "
            f"mask {mask.orientation} {mask.affine}",
            _RESAMPLE,
            kind="affine-mismatch",
        )


def same_voxels(image: Info, mask: Info) -> bool:
    """Whether the voxels of two volumes of equal size coincide, whatever the axis order of their files.

    Tolerance: a tenth of a voxel at the corners; header rounding is far less, and half a voxel would move labels.
    """
    ends = [(0, n - 1) for n in (image.depth, image.height, image.width)]
    corners = np.array([(*corner, 1) for corner in product(*ends)]).T
    grids = [np.array(i.canonical or i.affine, dtype=float).reshape(4, 4) for i in (image, mask)]
    apart = np.linalg.norm(((grids[0] - grids[1]) @ corners)[:3], axis=0).max()
    return bool(apart <= 0.1 * np.linalg.norm(grids[0][:3, :3], axis=0).min())


def size_text(info: Info) -> str:
    """Size as text: planes (if there are several), height and width, such as "48 x 56"."""
    planes = f"{info.depth} x " if info.depth > 1 else ""
    return f"{planes}{info.height} x {info.width}"


def _close(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two transforms agree to a thousandth of a pixel."""
    pixel = max(abs(a[0]), abs(a[1]), 1e-12)
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-3 * pixel))
