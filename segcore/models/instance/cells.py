"""Grid cells that an object is predicted from: SOLO's targets, and its choice of cells.

Wang et al. 2020, "SOLO: Segmenting Objects by Locations", arXiv 1912.04488.

A cell has a fixed side in pixels, so that a scene has the same cells whatever the size of the image. Cells of a batch
are in one list: level by level, finest first, and row by row.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.errors import ModelError
from segcore.models.base.instance import Truth
from segcore.models.base.object_sizes import ObjectSizes
from segcore.models.instance.exportable import by_score, ceil_div

# pixels, the end of the last range
_LARGEST = 4096
# positive cells are within this share of half the box around the centre of mass
_SIGMA = 0.2


def levels(
    cells: Sequence[int] | str, ranges: Sequence[Sequence[float]] | str, sizes: ObjectSizes
) -> tuple[list[int], list[list[float]]]:
    """Cells and ranges, as of `assign`, of which "auto" is replaced by values for objects of these sizes.

    The finest cells are about two thirds as wide as the smallest objects. The largest objects of a level are 4 times as
    large as its smallest, and the larger half of them also belongs to the next level.

    Raises:
        ModelError: cells or ranges that no network can have.
    """
    small, large = max(sizes.sides[0], 1.0), max(sizes.sides[-1], 1.0)
    finest = min(max(2 ** round(math.log2(small / 1.5)), 4), 32)
    first = max(small, finest)
    if isinstance(cells, str):
        number = min(max(math.ceil(math.log2(large / first / 4)) + 1, 1), 5)
        cells = [finest * 2**place for place in range(number)]
    if cells[0] not in (4, 8, 16, 32, 64) or any(b != 2 * a for a, b in pairwise(cells)):
        raise ModelError(
            f"cells {list(cells)} are impossible",
            "give powers of two, each twice the one before, the first from 4 to 64",
            "cells",
        )
    if isinstance(ranges, str):
        low = [round((first if cells[0] == finest else 1.5 * cells[0]) * 2**k) for k in range(len(cells))]
        ranges = [[1 if x == low[0] else x, _LARGEST if x == low[-1] else 4 * x] for x in low]
    if len(ranges) != len(cells):
        raise ModelError(
            f"ranges {list(ranges)} do not fit {len(cells)} levels",
            "give for each of the cells the smallest and the largest object",
            "ranges",
        )
    return list(cells), [list(pair) for pair in ranges]


def shapes(height: int, width: int, cells: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and columns of the grid of each level; the last ones may reach beyond the image."""
    return [(ceil_div(height, cell), ceil_div(width, cell)) for cell in cells]


def places(height: int, width: int, cells: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres (cells, 2), x and y, and sides (cells,) of all cells of an image in pixels, float32."""
    centres, sides = [], []
    for (rows, cols), cell in zip(shapes(height, width, cells), cells, strict=True):
        y, x = (torch.arange(count, device=device).float() + 0.5 for count in (rows, cols))
        pairs = [x.expand(rows, cols), y[:, None].expand(rows, cols)]
        centres.append(torch.stack(pairs, dim=-1).flatten(0, 1) * cell)
        sides.append(torch.full((rows * cols,), float(cell), device=device))
    return torch.cat(centres), torch.cat(sides)


def by_level(x: Tensor, grids: Sequence[tuple[int, int]]) -> Iterator[Tensor]:
    """(..., cells, K) as one (..., K, rows, columns) per level."""
    parts = x.split([rows * cols for rows, cols in grids], dim=-2)
    return (part.mT.contiguous().unflatten(-1, grid) for part, grid in zip(parts, grids, strict=True))


def assign(truth: Truth, cells: Sequence[int], ranges: Sequence[Sequence[float]]) -> Tensor:
    """The object of each cell, at most one.

    An object has, at each level of its size, the cells within 0.2 of half its box around its centre of mass, at most
    3 x 3 around the cell of its centre. Of several objects the one whose centre is nearest to that of the cell has it
    (larger of row and column distance: an object whose centre is in the cell comes first), then the larger, then the
    first in the list.

    Args:
        truth: of the batch.
        cells: side of the cells of each level in pixels.
        ranges: smallest and largest object of each level, as square root of height times width of the box; an object
            outside all ranges is of the nearest.

    Returns:
        (N, cells) int64: 1 + place of the object in `truth`, 0 for none.
    """
    centre, size = _centres(truth), (truth.boxes[:, 2:] - truth.boxes[:, :2]).double()
    of_level = _levels(size.prod(1).sqrt(), ranges)
    levels = [_assign(truth, centre, size, of_level[:, place], cell) for place, cell in enumerate(cells)]
    return torch.cat(levels, dim=1)


def ignored(truth: Truth, cells: Sequence[int]) -> Tensor:
    """(N, cells) bool: whether more than half of the area of each cell is ignored or beyond the image."""
    height, width = truth.ignored.shape[1:]
    levels = []
    for cell in cells:
        mask = F.pad(truth.ignored.float()[:, None], (0, -width % cell, 0, -height % cell), value=1)
        levels.append(F.avg_pool2d(mask, cell).flatten(1) > 0.5)
    return torch.cat(levels, dim=1)


def _centres(truth: Truth) -> Tensor:
    """(M, 2) float64 x and y of the objects' centres of mass; that of one pixel is in its middle."""
    height, width = truth.instance.shape[1:]
    flat = truth.instance.flatten()
    sums = []
    for values in (
        torch.arange(width, device=flat.device)[None],
        torch.arange(height, device=flat.device)[:, None],
    ):
        total = torch.zeros(len(truth) + 1, dtype=torch.int64, device=flat.device)
        sums.append(total.index_add(0, flat, values.expand_as(truth.instance).flatten())[1:])
    return torch.stack(sums, dim=1).double() / truth.areas[:, None] + 0.5


def _levels(sides: Tensor, ranges: Sequence[Sequence[float]]) -> Tensor:
    """(M, levels) bool: whether objects of these sides (M,) belong to each level."""
    low, high = sides.new_tensor([list(pair) for pair in ranges]).log().unbind(1)
    logarithm = sides.log()[:, None]
    distance = torch.maximum(low - logarithm, logarithm - high).clamp(min=0)
    nearest = distance.argmin(dim=1, keepdim=True)
    return (distance == 0) | (torch.arange(len(ranges), device=sides.device) == nearest)


def _assign(truth: Truth, centre: Tensor, size: Tensor, of_level: Tensor, cell: int) -> Tensor:
    """As `assign`, for one level."""
    device, (items, height, width) = centre.device, truth.instance.shape
    rows, cols = shapes(height, width, [cell])[0]
    count = items * rows * cols
    step = torch.cartesian_prod(*[torch.arange(-1, 2, device=device)] * 2)
    # (M, 9, 2) column and row of each candidate
    position = (centre / cell).floor().long()[:, None] + step
    first, last = (((centre + sign * _SIGMA / 2 * size) / cell).floor()[:, None] for sign in (-1, 1))
    inside = (position >= 0) & (position < torch.tensor([cols, rows], device=device))
    candidate = (inside & (position >= first) & (position <= last)).all(-1) & of_level[:, None]
    distance = ((position + 0.5) * cell - centre[:, None]).abs().amax(-1)
    index = (truth.item[:, None] * rows + position[..., 1]) * cols + position[..., 0]
    # those that are none are gathered in one place more
    index = index.where(candidate, torch.full_like(index, count))
    number = torch.arange(1, len(truth) + 1, device=device)[:, None].expand_as(index)
    for values in (distance, -truth.areas[:, None].expand_as(index), number):
        least = values.new_full((count + 1,), torch.iinfo(torch.int64).max // 2)
        least = least.scatter_reduce(0, index.flatten(), values.flatten(), "amin", include_self=False)
        candidate = candidate & (values == least[index])
        index = index.where(candidate, torch.full_like(index, count))
    found = torch.zeros(count + 1, dtype=torch.int64, device=device)
    found = found.scatter(0, index.flatten(), number.flatten())
    return found[:count].view(items, -1)


def peaks(scores: Tensor) -> Tensor:
    """Whether each score (..., rows, columns) is the highest of its 3 x 3 neighbours; of equal ones the first is.

    The symmetric form of the papers' suppression of points. Scores are not below 0.
    """
    rows, cols = scores.shape[-2:]
    padded = F.pad(scores, (1, 1, 1, 1))
    around = [padded[..., y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
    before, after = (torch.stack(part).amax(0) for part in (around[:4], around[5:]))
    return torch.logical_and(scores > before, scores >= after)


def highest_peaks(
    scores: Tensor, grids: Sequence[tuple[int, int]], count: int, threshold: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells and classes that are `peaks` of their level, by score, and equal ones by cell.

    Args:
        scores: (..., cells, K).
        grids: rows and columns of each level.
        count: peaks of an image at most.
        threshold: score from which a peak is taken.

    Returns:
        Cell, class and score (..., R), and whether each is such a peak; those that are none come last.
    """
    peak = torch.cat([peaks(level).flatten(-2).mT for level in by_level(scores, grids)], dim=-2)
    of_peaks = (scores * peak).flatten(-2)
    order = by_score(of_peaks, count)
    real = of_peaks.gather(-1, order) >= threshold
    classes = scores.shape[-1]
    return order // classes, order % classes, scores.flatten(-2).gather(-1, order), real


def matrix_nms(masks: Tensor, scores: Tensor, sigma: float = 2.0) -> Tensor:
    """Scores, lowered for objects that overlap a better one: Matrix NMS with a Gaussian.

    Wang et al. 2020, "SOLOv2: Dynamic and Fast Instance Segmentation", arXiv 2003.10152.
    Not only of one class as there, since a pixel has one class.

    Args:
        masks: (..., R, P) bool, pixels of each object.
        scores: (..., R) descending.
        sigma: of the Gaussian.

    Returns:
        (..., R) scores.
    """
    if not scores.shape[-1]:
        return scores
    pixels = masks.float()
    overlap, area = pixels @ pixels.mT, pixels.sum(-1)
    # [i, j]: of a better i on j
    iou = (overlap / (area[..., None, :] + area[..., None] - overlap).clamp(min=1)).triu(1)
    most = iou.amax(-2)
    decay: Tensor = (sigma * (most[..., None] ** 2 - iou**2)).exp().amin(-2)
    return scores * decay
