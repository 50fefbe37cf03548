"""Predicted volumes as NIfTI on the grid of their source."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.data.volumes import affine_of, from_planes
from segcore.files import atomic_write


def stack_predictions(parts: Mapping[int, np.ndarray], info: Info) -> np.ndarray:
    """Stack planes (H, W), keyed by their number, to a volume (D, H, W) uint8.

    Raises:
        ValueError: planes are missing, or there are more than the volume has.
    """
    if set(parts) != set(range(info.depth)):
        differing = sorted(set(parts) ^ set(range(info.depth)))
        raise ValueError(f"planes missing or beyond the depth of {info.depth}: {differing[:10]}")
    return np.stack([np.asarray(parts[i], np.uint8) for i in range(info.depth)])


def write_prediction(path: Path, planes: np.ndarray, info: Info, scale: float | None = None) -> None:
    """Write classes, object numbers or confidence as NIfTI on the grid of their source.

    It has the source's axes, orientation, spacing and affine. The affine is float32, as in every NIfTI-1 file; that of
    a NIfTI source is kept bit for bit. The axes of a DICOM series are (column, row, slice). A source without a position
    gets the identity as affine.

    Args:
        path: .nii or .nii.gz, replaced atomically.
        planes: (D, H, W) uint8 or uint32, in the order in which the source was read.
        info: of the source.
        scale: that readers multiply values with (scl_slope); None: none.

    Raises:
        ValueError: the shape differs from that of `info`.
        DataError: the disk is full or not writable.
    """
    import nibabel

    if planes.shape != (info.depth, info.height, info.width):
        raise ValueError(f"prediction {planes.shape} for {(info.depth, info.height, info.width)}")
    source_affine = affine_of(info)
    affine = np.eye(4) if source_affine is None else source_affine
    image = nibabel.Nifti1Image(np.asfortranarray(from_planes(planes, info)), affine)
    image.set_sform(affine, code="scanner")
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    # A qform cannot store shear (tilted gantries); with code "unknown", readers use the sform instead.
    orthogonal = np.allclose(unit.T @ unit, np.eye(3), atol=1e-4)
    image.set_qform(affine, code="scanner" if orthogonal else "unknown")
    image.header.set_xyzt_units("mm")
    if scale is not None:
        image.header.set_slope_inter(scale, 0)
    with atomic_write(path) as temporary:
        data = image.to_bytes()
        if path.name.endswith(".gz"):
            import gzip

            data = gzip.compress(data, compresslevel=4, mtime=0)
        temporary.write_bytes(data)
