"""Checks that a mask is on the grid of its image."""

from itertools import product
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.errors import DataError

_RESAMPLE = "resample the mask (nearest neighbour) to the image's grid, or remove the pair"


def check_same_grid(image: Info, mask: Info, names: tuple[Path, Path]) -> None:
    """Check that a mask is on its image's grid.

    Args:
        image: header of the image.
        mask: header of the mask.
        names: paths of image and mask, for errors.

    Raises:
        DataError: size, planes, CRS, transform, spacing or affine differ; the message gives both values.
    """
    image_path, mask_path = names
    # The folder of the mask distinguishes it from an image of the same name.
    same_name = image_path.name == mask_path.name
    folder = f"{mask_path.parent.name}/" if same_name else ""
    pair = f"{image_path.name} and its mask {folder}{mask_path.name}"
    axes = "planes x height x width" if max(image.depth, mask.depth) > 1 else "height x width"
    sizes = [size_text(i) for i in (image, mask)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"{pair}: sizes differ in {axes}, image {sizes[0]}, mask {sizes[1]}",
            "crop or " + _RESAMPLE,
            kind="size-mismatch",
        )
    if image.crs and mask.crs and image.crs != mask.crs:
        raise DataError(
            f"{pair}: coordinate systems differ, image {image.crs}, mask {mask.crs}",
            "reproject the mask to the image's coordinate system",
            kind="crs-mismatch",
        )
    _check_geometry(image, mask, pair)


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
    if image.affine and mask.affine and not _same_voxels(image, mask):
        raise DataError(
            f"{pair}: voxel affines differ, image {image.orientation} {image.affine}, "
            f"mask {mask.orientation} {mask.affine}",
            _RESAMPLE,
            kind="affine-mismatch",
        )


def _same_voxels(image: Info, mask: Info) -> bool:
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
