"""Operations of detection in forms that have fixed shapes and that all export formats know.

Masks are planes of all pixels of an image, which need more memory than the crops of `Objects`.
"""

import torch
from torch import Tensor


def by_score(scores: Tensor) -> Tensor:
    """Places (..., R) of scores (..., R), highest first; of equal ones the first comes first."""
    if torch.compiler.is_exporting():
        # ONNX has no operator named stable, but its sorting is; so is that of PyTorch on a CPU
        return scores.sort(dim=-1, descending=True).indices
    return scores.sort(dim=-1, descending=True, stable=True).indices


def at(x: Tensor, index: Tensor) -> Tensor:
    """Rows (..., R, C) of x (..., A, C) at places (..., R)."""
    return x.gather(-2, index[..., None].expand(*index.shape, x.shape[-1]))


def interpolation(position: Tensor, count: int) -> Tensor:
    """Weights (..., L, count) of `count` values by linear interpolation at positions (..., L), 0 at the first value."""
    distance = position[..., None] - torch.arange(count, device=position.device, dtype=position.dtype)
    return (1 - distance.abs()).clamp(min=0)


def planes(values: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Whether values (..., h, w) are above 0.5 at pixels (..., H, W).

    Args:
        values: of a coarser grid.
        rows: (..., H, h) weights as of `interpolation`, 0 for rows outside the mask.
        cols: (..., W, w) those of columns.
    """
    return rows @ values @ cols.mT > 0.5
