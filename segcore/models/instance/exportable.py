"""Operations of detection in forms that have fixed shapes and that all export formats know.

Masks are planes of all pixels of an image, which need more memory than the crops of `Objects`.
"""

from typing import Any

import torch
from torch import Tensor


def ceil_div(value: "int | torch.SymInt", divisor: int) -> int:
    """A number from 0 divided by one above 0, rounded up."""
    # not -(-value // divisor): ONNX rounds a negative quotient to 0 instead of down
    quotient: Any = (value + divisor - 1) // divisor
    return quotient  # type: ignore[no-any-return]


def by_score(scores: Tensor, count: int | None = None) -> Tensor:
    """Places of the `count` highest of scores (..., R), highest first; of equal ones the first comes first.

    Args:
        scores: values.
        count: at most; None: all.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    if count is None or not torch.compiler.is_exporting():
        return order[..., :count]
    # the length of a slice is compared with that of the axis, and the graph keeps the outcome for images of any size
    first = torch.arange(torch.sym_min(count, scores.shape[-1]), device=scores.device)
    return order.index_select(-1, first)


def at(x: Tensor, index: Tensor) -> Tensor:
    """Rows (..., R, C) of x (..., A, C) at places (..., R)."""
    if index.ndim == 1:
        # of one image by indexing, whose gradient has a fixed order of sums
        return x[index]
    # sides of -1, because the number of rows may depend on the size of the image in a way that an exported graph lacks
    return x.gather(-2, index[..., None].expand(*[-1] * index.ndim, x.shape[-1]))


def in_image(values: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Values (..., h, w) of a grid at the pixels (..., H, W) of an image.

    Args:
        values: of the grid.
        rows: (..., H, h) weights as of `interpolation`.
        cols: (..., W, w) those of columns.
    """
    return rows @ values @ cols.mT


def interpolation(position: Tensor, count: int, first: Tensor, end: Tensor) -> Tensor:
    """Weights (..., L, count) float32 of `count` values at the pixels of an axis by linear interpolation.

    Args:
        position: (..., L) of each pixel, 0 at the first value and `count` - 1 at the last one.
        count: of the values.
        first: (...) int64 first pixel of a range outside of which weights are 0.
        end: (...) int64 end of the range.
    """
    distance = position[..., None] - torch.arange(count, device=position.device, dtype=position.dtype)
    pixel = torch.arange(position.shape[-1], device=position.device)
    inside = (pixel >= first[..., None]) & (pixel < end[..., None])
    return (1 - distance.abs()).clamp(min=0).float() * inside[..., None]
