"""Masks as lists of points: those of all objects of a batch, each within its box, in one flat tensor."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Points of a grid within R boxes: box after box, each row by row.

    Attributes:
        owner: (L,) int64, place of the point's box.
        row: (L,) int64, of the grid.
        col: (L,) int64, of the grid.
        starts: (R,) int64, place of the first point of each box.
        ranges: (R, 4) int64, as of `cells`.
    """

    owner: Tensor
    row: Tensor
    col: Tensor
    starts: Tensor
    ranges: Tensor


def cells(boxes: Tensor, size: float, height: int, width: int, margin: int = 0) -> Tensor:
    """Range of grid cells that boxes overlap, (..., 4) int64: first column, first row, end column, end row.

    Args:
        boxes: (..., 4) float32 left, top, right, bottom.
        size: side of a cell in the unit of the boxes.
        height: rows of the grid, beyond which no range reaches.
        width: columns of the grid.
        margin: cells to add on each side.
    """
    first = (boxes[..., :2] / size).floor().long() - margin
    end = (boxes[..., 2:] / size).ceil().long() + margin
    left, right = (x[..., 0].clamp(0, width) for x in (first, end))
    top, bottom = (x[..., 1].clamp(0, height) for x in (first, end))
    return torch.stack([left, top, torch.maximum(left, right), torch.maximum(top, bottom)], dim=-1)


def areas(ranges: Tensor) -> Tensor:
    """(R,) int64 number of grid cells in each of (R, 4) ranges."""
    return (ranges[:, 2] - ranges[:, 0]) * (ranges[:, 3] - ranges[:, 1])


def points(ranges: Tensor) -> Points:
    """All grid points of (R, 4) ranges as of `cells`."""
    counts = areas(ranges)
    starts = counts.cumsum(0) - counts
    owner = torch.repeat_interleave(counts)
    place = torch.arange(len(owner), device=ranges.device) - starts[owner]
    width = (ranges[:, 2] - ranges[:, 0])[owner]
    row = torch.div(place, width, rounding_mode="floor")
    return Points(owner, ranges[owner, 1] + row, ranges[owner, 0] + place - row * width, starts, ranges)


def enlarged(values: Tensor, coarse: Points, fine: Points, factor: float) -> Tensor:
    """Values at the points of a finer grid, (L,) float32, bilinear as `interpolate` of the whole grid.

    Args:
        values: at the points `coarse`.
        coarse: points of the same boxes in the coarser grid.
        fine: where values are wanted; points beyond the cells of `coarse` get the value of the nearest one.
        factor: cells of the finer grid per cell of the coarser one.
    """
    left, top, right, below = coarse.ranges[fine.owner].unbind(1)
    start, width = coarse.starts[fine.owner], right - left
    x, y = ((place + 0.5) / factor - 0.5 for place in (fine.col, fine.row))
    x = x.clamp(min=left, max=right - 1)
    y = y.clamp(min=top, max=below - 1)
    col, row = x.floor().long(), y.floor().long()
    next_col, next_row = (col + 1).minimum(right - 1), (row + 1).minimum(below - 1)
    above, under = (start + (r - top) * width - left for r in (row, next_row))
    across, down = x - col, y - row
    upper = values[above + col].lerp(values[above + next_col], across)
    return upper.lerp(values[under + col].lerp(values[under + next_col], across), down)


def chunks(sizes: Tensor, most: int) -> Iterator[slice]:
    """Slices of consecutive boxes that have at most `most` points together, or are one box; waits for the device."""
    first, total = 0, 0
    for place, size in enumerate(sizes.tolist()):
        if place > first and total + size > most:
            yield slice(first, place)
            first, total = place, 0
        total += size
    if first < len(sizes):
        yield slice(first, len(sizes))


def cropped(inside: Tensor, grid: Points) -> list[tuple[tuple[int, int, int, int], np.ndarray]]:
    """Masks of the boxes, each of the smallest size that has all its points.

    Args:
        inside: (L,) bool at the points `grid`.
        grid: of pixels.

    Returns:
        R pairs of first row, first column, height and width, and the mask; all 0 for a mask without points.
    """
    flat, found = inside.cpu().numpy(), []
    for (left, top, right, below), start in zip(grid.ranges.tolist(), grid.starts.tolist(), strict=True):
        mask = flat[start : start + (below - top) * (right - left)].reshape(below - top, right - left)
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            found.append(((0, 0, 0, 0), np.zeros((0, 0), bool)))
            continue
        mask = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].copy()
        found.append(((top + int(rows[0]), left + int(cols[0]), *mask.shape), mask))
    return found
