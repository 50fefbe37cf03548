"""Predicted volumes as NIfTI on the grid of their source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.data.volumes import affine_of, from_planes
from segcore.files import atomic_write


def stack_predictions(parts: Mapping[int, np.ndarray], info: Info) -> np.ndarray:
    """Planes (H, W) by number as one volume (D, H, W) uint8.

    Raises:
        ValueError: planes are missing, or there are more than the volume has.
    """
    if set(parts) != set(range(info.depth)):
        odd = sorted(set(parts) ^ set(range(info.depth)))
        raise ValueError(f"planes missing or too many for {info.depth}: {odd[:10]}")
    return np.stack([np.asarray(parts[i], np.uint8) for i in range(info.depth)])


def write_prediction(path: Path, planes: np.ndarray, info: Info) -> None:
    """Write class indices as NIfTI on the grid of their source: its axis order, orientation, spacing and affine.

    The affine is held in float32, as in every NIfTI-1 file; one that came from there is kept to the bit. A DICOM
    series gives (column, row, slice). A source without a position gives an affine of its indices.

    Args:
        planes: (D, H, W) uint8 in the order handed out.
        info: of the source.

    Raises:
        ValueError: the shape is not that of `info`.
        DataError: the disk is full or not writable.
    """
    import nibabel

    if planes.shape != (info.depth, info.height, info.width):
        raise ValueError(f"prediction {planes.shape} for {(info.depth, info.height, info.width)}")
    known = affine_of(info)
    affine = np.eye(4) if known is None else known
    image = nibabel.Nifti1Image(np.asfortranarray(from_planes(planes, info).astype(np.uint8)), affine)
    image.set_sform(affine, code="scanner")
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # A qform holds no shear (tilted gantries); readers that prefer it must then fall back on the sform.
    straight = np.allclose(unit.T @ unit, np.eye(3), atol=1e-4)
    image.set_qform(affine, code="scanner" if straight else "unknown")
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        data = image.to_bytes()
        if path.name.endswith(".gz"):
            import gzip

            data = gzip.compress(data, compresslevel=4, mtime=0)
        temporary.write_bytes(data)
