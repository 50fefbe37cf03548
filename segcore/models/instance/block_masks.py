"""Masks in blocks of 4 x 4 pixels of the network: targets from true objects, the loss, and masks of original pixels."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.models.base.detections import limits
from segcore.models.base.instance import Truth
from segcore.models.instance.exportable import in_image, interpolation

BLOCK = 4
# of the Dice loss, in blocks
_EPS = 0.001

# smallest float32 above 0.5
_ABOVE = float(np.nextafter(np.float32(0.5), np.float32(1)))


def block_targets(truth: Truth, index: int, objects: slice) -> tuple[Tensor, Tensor]:
    """Targets of all objects of an image.

    A target is the share of the object in the pixels of a block that are not ignored, divided by the largest share of
    the object: one that is finer than a block has a block of 1 as well.

    Args:
        truth: of the batch.
        index: of the image in the batch.
        objects: its objects, as of `Truth.of_item`.

    Returns:
        (objects, blocks) float32 in 0..1, and (blocks,) share of the pixels of each block that are not ignored.
    """
    number, ignored = truth.instance[index], truth.ignored[index]
    rows, cols = (side // BLOCK for side in number.shape)
    blocks = torch.arange(rows * cols, device=number.device).view(rows, cols)
    block = blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    count = objects.stop - objects.start
    # row 0 gathers the pixels of no object
    row = (number - objects.start).clamp(min=0)
    pixels = torch.zeros((count + 1) * rows * cols, device=number.device)
    pixels.index_add_(
        0, (row * (rows * cols) + block).flatten(), torch.ones_like(row, dtype=torch.float32).flatten()
    )
    valid = F.avg_pool2d((~ignored).float()[None], BLOCK).flatten()
    share = pixels.view(count + 1, -1)[1:] / (valid * BLOCK**2).clamp(min=1)
    return share / share.amax(1, keepdim=True), valid


def around(position: Tensor, centre: Tensor, unit: Tensor, height: int, width: int) -> Tensor:
    """Logits of masks by the place of a block alone: a paraboloid, highest near a centre.

    Coordinates relative to an object are of Tian et al. 2020, "Conditional Convolutions for Instance Segmentation",
    arXiv 2003.05664; squares make a closed outline of a linear function of them.

    Args:
        position: (..., R, 4) value at the centre, slopes to the right and down, and curvature before softplus.
        centre: (..., R, 2) x and y in pixels.
        unit: (..., R) pixels of a distance of 1.
        height: in blocks.
        width: in blocks.

    Returns:
        (..., R, height * width) logits.
    """
    top, right, down, curve = position[..., None].unbind(-2)
    curve = F.softplus(curve)
    x, y = (
        ((torch.arange(side, device=unit.device) + 0.5) * BLOCK - centre[..., axis : axis + 1])
        / unit[..., None]
        for axis, side in enumerate((width, height))
    )
    rows, columns = top + down * y - curve * y**2, right * x - curve * x**2
    return (rows[..., :, None] + columns[..., None, :]).flatten(-2)


def dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice loss with squares (Milletari et al. 2016, arXiv 1606.04797) of masks (R, blocks); (R,) in 0..1.

    The largest value of a target is 1, so that the denominator is not small even for an object of one pixel.
    """
    overlap = (probability * target) @ weight
    total = (probability**2 + target**2) @ weight
    return 1 - (2 * overlap + _EPS) / (total + _EPS)


def enlarged(
    probability: np.ndarray, height: int, width: int, scale: tuple[float, float]
) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Mask of original pixels, enlarged bilinearly inside the box of the blocks above 0.5 and one block around it.

    Args:
        probability: (h, w) of blocks, at least one of them above 0.5.
        height: of the image in original pixels.
        width: as height.
        scale: blocks per original pixel, by rows and columns.

    Returns:
        First row, first column, height and width, and the mask (height, width) bool: probability above 0.5; of an
        object that would have no pixel, the most probable ones.
    """
    above = probability > 0.5
    weights, starts = [], []
    for axis, side in enumerate((height, width)):
        found = np.flatnonzero(above.any(axis=1 - axis))
        first = max(int((found[0] - 1) / scale[axis]), 0)
        end = min(int(np.ceil((found[-1] + 2) / scale[axis])), side)
        weights.append(_interpolation(first, end, scale[axis], probability.shape[axis]))
        starts.append(first)
    value = weights[0] @ probability @ weights[1].T
    mask = value > 0.5
    if not mask.any():
        mask = value == value.max()
    rows, cols = (np.flatnonzero(mask.any(axis=1 - axis)) for axis in (0, 1))
    mask = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return (int(rows[0]) + starts[0], int(cols[0]) + starts[1], *mask.shape), mask


def rated(scores: Tensor, probability: Tensor) -> Tensor:
    """Scores (...) times the mean probability of the blocks above 0.5 of masks (..., h, w), as in the papers."""
    above = probability > 0.5
    inside = (probability * above).flatten(-2).sum(-1)
    return scores * inside / above.flatten(-2).sum(-1).clamp(min=1)


def in_planes(
    probability: Tensor, blocks: tuple[int, int], size: tuple[int, int], scale: tuple[float, float]
) -> Tensor:
    """The masks of `enlarged` as planes, (..., *size) bool.

    Args:
        probability: (..., h, w) of blocks; where none is above 0.5 there is no mask.
        blocks: rows and columns of the blocks that have pixels of the image; the others are 0.
        size: height and width of the image in original pixels.
        scale: blocks per original pixel, by rows and columns.
    """
    above, weights = probability > 0.5, []
    for axis, side in enumerate(size):
        first, end = limits(above.any(-1 - axis))
        first, end = (
            ((first - 1).double() / scale[axis]).long().clamp(min=0),
            ((end + 1).double() / scale[axis]).ceil().long(),
        )
        position = (torch.arange(side, device=above.device).double() + 0.5) * scale[axis] - 0.5
        position = position.clamp(0, blocks[axis] - 1)
        weights.append(interpolation(position, probability.shape[axis - 2], first, end))
    value = in_image(probability, *weights)
    # planes are large: one pass for the most probable pixel of each, and one for the masks
    most = value.flatten(-2).amax(-1)
    least = most.clamp(max=_ABOVE).where(above.flatten(-2).any(-1), torch.inf)
    return value >= least[..., None, None]


def _interpolation(first: int, end: int, scale: float, blocks: int) -> np.ndarray:
    """(end - first, blocks) weights of blocks at pixels."""
    position = ((np.arange(first, end) + 0.5) * scale - 0.5).clip(0, blocks - 1)
    distance = np.abs(position[:, None] - np.arange(blocks))
    return (1 - distance).clip(0).astype(np.float32)
