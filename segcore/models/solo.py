"""SOLO and SOLOv2.

v1: Wang, Kong, Shen, Jiang and Li 2020, "SOLO: Segmenting Objects by Locations", arXiv 1912.04488, in its decoupled
form. v2: Wang, Zhang, Kong, Li and Shen 2020, "SOLOv2: Dynamic and Fast Instance Segmentation", arXiv 2003.10152.

An image is divided into grids of several levels. The cell at an object's centre of mass predicts the object's class and
its mask. The mask of v2 is a 1x1 convolution of mask features, with weights that the cell predicts; that of v1 is the
product of two maps, of which one belongs to the cell's column, and one to its row.
Differences from the papers: cells have a fixed side in pixels, and coordinates extend over a fixed window, so that
neither depends on the size of the image; one object per cell; all masks have stride 4; Dice is weighted by pixels that
are not ignored; no filter of small masks. Branches have `width` channels, as in the light networks of the papers. A
cell of v2 also predicts a paraboloid around its centre, which is added to the logits of its mask: features alone need
thousands of steps to learn to tell one object from another of the same looks elsewhere (docs/notes/tuning.md).
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import sigmoid_focal_loss

from segcore.models.base.encoders import Encoder, build_encoder
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.models.base.keywords import require_list, require_pairs, require_share, require_whole
from segcore.models.base.model import choose, upsample
from segcore.models.base.object_sizes import ObjectSizes
from segcore.models.instance.block_masks import (
    BLOCK,
    around,
    block_targets,
    dice,
    enlarged,
    in_planes,
    rated,
)
from segcore.models.instance.branches import (
    MaskFeatures,
    branch,
    conv_gn_relu,
    listed,
    on_grid,
    with_coordinates,
)
from segcore.models.instance.cells import assign, highest_peaks, ignored, levels, matrix_nms, places, shapes
from segcore.models.instance.exportable import at, by_score, ceil_div
from segcore.models.instance.pyramid import Pyramid
from segcore.objects.found import Objects

KIND = "instance"
# blocks of masks that are computed at once
_CHUNK = 1 << 23
# value at the centre, slopes, and curvature before softplus of v2's masks at first: 0 at 1.5 cells from the centre
_AROUND = [2.0, 0.0, 0.0, 0.36]


def build(
    in_channels: int,
    num_classes: int,
    foreground: Sequence[int],
    *,
    encoder: str = "mobilenet_v2",
    weights: str = "none",
    variant: str = "v2",
    width: int = 64,
    convs: int | str = "auto",
    cells: Sequence[int] | str = "auto",
    ranges: Sequence[Sequence[float]] | str = "auto",
    window: int | str = "auto",
    candidates: int | str = "auto",
    threshold: float = 0.05,
    min_area: int = 0,
) -> InstanceModel:
    """A SOLO; values "auto" are replaced by `fit`.

    Args:
        in_channels: bands of the image.
        num_classes: classes, background included.
        foreground: indices of the classes that have objects.
        encoder: one of `ENCODERS` or "timm:NAME".
        weights: of the encoder, see `load_encoder_weights`.
        variant: "v2" or "v1".
        width: channels of the pyramid, the branches, and v2's mask features; 256 in the papers.
        convs: convolutions of each branch; 4 for v2 and 7 for v1 in the papers.
        cells: side of the cells of each level in pixels, the first 4, 8, 16, 32 or 64, each further one twice as large.
        ranges: smallest and largest object of each level in pixels, the square root of the area of its box.
        window: side in pixels over which coordinates go from -1 to 1, that of the training crops.
        candidates: largest number of cells per image of that size whose masks are computed.
        threshold: score from which cells are candidates, and objects are kept.
        min_area: pixels of the image that an object has at least.

    Raises:
        ModelError: an unknown value, or weights that do not fit.
    """
    assert not any(isinstance(value, str) for value in (convs, cells, ranges, window, candidates))
    return SOLO(
        in_channels,
        num_classes,
        foreground,
        build_encoder(encoder, in_channels, weights),
        variant=variant,
        width=width,
        convs=int(convs),
        cells=[int(cell) for cell in cells],
        ranges=[[float(x) for x in pair] for pair in ranges],
        window=int(window),
        candidates=int(candidates),
        threshold=threshold,
        min_area=min_area,
    )


def fit(keywords: Mapping[str, Any], sizes: ObjectSizes) -> dict[str, Any]:
    """Keywords with "auto" replaced by values for objects of these sizes, see `levels`.

    Raises:
        ModelError: cells or ranges that no network can have.
    """
    choose("variant", keywords["variant"], ("v2", "v1"))
    require_whole(keywords, "width", least=2)
    require_whole(keywords, "convs", "window", "candidates", auto=True)
    require_whole(keywords, "min_area", least=0)
    require_list(keywords, "cells", least=4, largest=1024, ascending=True)
    require_pairs(keywords, "ranges")
    require_share(keywords, "threshold")
    fitted = dict(keywords)
    fitted["cells"], fitted["ranges"] = levels(fitted["cells"], fitted["ranges"], sizes)
    automatic = {
        "convs": 2 if fitted["width"] < 128 else {"v2": 4, "v1": 7}[fitted["variant"]],
        "window": sizes.crop,
        # an object is often found by several cells
        "candidates": min(max(4 * sizes.most, 100), 4096),
    }
    return fitted | {name: value for name, value in automatic.items() if fitted[name] == "auto"}


class SOLO(InstanceModel):
    """SOLO or SOLOv2 on the feature maps of an encoder; arguments as those of `build`."""

    coefficients = MappingProxyType({"category": 1.0, "mask": 3.0})
    why_unplaced = (
        "are no targets, because larger ones have their cells; smaller model.cells or a larger magnify leave "
        "fewer out"
    )
    is_position_dependent = True

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        foreground: Sequence[int],
        encoder: Encoder,
        *,
        variant: str,
        width: int,
        convs: int,
        cells: list[int],
        ranges: list[list[float]],
        window: int,
        candidates: int,
        threshold: float,
        min_area: int,
    ) -> None:
        title = "SOLOv2" if variant == "v2" else "SOLO"
        super().__init__(in_channels, num_classes, title, encoder.strides[-1], foreground)
        self.cells, self.ranges, self.window, self.is_v2 = cells, ranges, window, variant == "v2"
        self.candidates, self.threshold, self.min_area = candidates, threshold, min_area
        self.encoder = encoder
        # a map has two pixels per cell, where there is such a map
        self.strides = [min(max(cell // 2, 4), 32) for cell in cells]
        strides = [4, 8, 16, 32] if self.is_v2 else sorted(set(self.strides))
        self.pyramid = Pyramid(encoder, width, strides)
        # as in the pyramid, of cells
        self.least_multiple = 1 + max(cells[-1] // encoder.strides[-1], 1)
        self.category = branch(width, width, convs, len(foreground))
        self.class_layers = (f"category.{len(self.category) - 1}",)
        nn.init.constant_(self.category[-1].bias, -math.log(99))  # type: ignore[arg-type]
        if self.is_v2:
            self.kernel = branch(width + 2, width, convs, width + len(_AROUND))
            # masks begin as discs around their cells, of any features
            nn.init.normal_(self.kernel[-1].weight, std=0.01)  # type: ignore[arg-type]
            with torch.no_grad():
                self.kernel[-1].bias.copy_(torch.tensor([0.0] * width + _AROUND))  # type: ignore[operator]
            self.features = MaskFeatures(width, width)
        else:
            self.sides = [-(-window // cell) for cell in cells]
            self.mask = nn.Sequential(
                *[conv_gn_relu(width + 2 * (place == 0), width) for place in range(convs)]
            )
            self.axes = nn.ModuleList(nn.Conv2d(width, 2 * side, 1) for side in self.sides)

    def heads(self, x: Tensor) -> Outputs:
        """Logits of classes (N, cells, classes), and what masks are made of.

        v2: kernels (N, cells, width + 4) and features (N, width, h / 4, w / 4). v1: maps of columns and rows of each
        level, (N, maps, h / 4, w / 4).
        """
        maps = self.pyramid(self.encoder(x))
        of_level = [maps[self.pyramid.strides.index(stride)] for stride in self.strides]
        in_cells = [on_grid(*level) for level in zip(of_level, self.strides, self.cells, strict=True)]
        category = listed([self.category(level) for level in in_cells])
        if self.is_v2:
            maps[-1] = with_coordinates(maps[-1], 32, self.window)
            kernels = [
                self.kernel(with_coordinates(level, cell, self.window))
                for level, cell in zip(in_cells, self.cells, strict=True)
            ]
            return category, listed(kernels), self.features(maps)
        axes = [
            upsample(
                layer(self.mask(with_coordinates(level, stride, self.window))),
                [side // BLOCK for side in x.shape[-2:]],
            )
            for layer, level, stride in zip(self.axes, of_level, self.strides, strict=True)
        ]
        return category, torch.cat(axes, dim=1)

    def masks(self, outputs: Outputs, chosen: Tensor) -> Tensor:
        """(..., R, h / 4 * w / 4) float32 probability of each block to be of the object of cells (..., R).

        Args:
            outputs: of an image, without the first axis, or of a batch.
            chosen: (R,) int64 cells of the image, or (N, R) of each image.
        """
        with torch.autocast(chosen.device.type, enabled=False):
            if self.is_v2:
                _, kernels, features = outputs
                (weights, place), blocks = self._split(at(kernels, chosen).float()), features.shape[-2:]
                height, width = (length * BLOCK for length in blocks)
                centre, side = (x[chosen] for x in places(height, width, self.cells, chosen.device))
                logits = weights @ features.flatten(-2).float()
                return (logits + around(place, centre, side, *blocks)).sigmoid()
            maps = outputs[1].flatten(-2)
            columns, rows = self._axes(outputs)
            return at(maps, columns[chosen]).float().sigmoid() * at(maps, rows[chosen]).float().sigmoid()

    def _split(self, kernels: Tensor) -> tuple[Tensor, Tensor]:
        """Weights of the mask features, and arguments of `around`."""
        return kernels[..., : -len(_AROUND)], kernels[..., -len(_AROUND) :]

    def _axes(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Places (cells,) of the two maps of each cell in v1's outputs; they repeat beyond the window."""
        height, width = (side * BLOCK for side in outputs[-1].shape[-2:])
        first, columns, rows = 0, [], []
        for (down, across), side in zip(shapes(height, width, self.cells), self.sides, strict=True):
            x, y = (torch.arange(length, device=outputs[0].device) % side for length in (across, down))
            columns.append((first + x).expand(down, across).flatten())
            rows.append((first + side + y)[:, None].expand(down, across).flatten())
            first += 2 * side
        return torch.cat(columns), torch.cat(rows)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """Number of cells with an object, and for the category one more per image that is not ignored."""
        positive = (assign(truth, self.cells, self.ranges) > 0).sum().float()
        images = (~truth.ignored).flatten(1).any(1).sum()
        return {"category": positive + images, "mask": positive}

    def unplaced(self, truth: Truth) -> Tensor:
        """Number of objects that have no cell, since others have theirs; they are no target."""
        given = torch.zeros(len(truth) + 1, dtype=torch.bool, device=truth.areas.device)
        given[assign(truth, self.cells, self.ranges)] = True
        return (~given[1:]).sum()

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """Focal loss of the cells that are not ignored, and Dice of the masks of cells with an object."""
        cells = assign(truth, self.cells, self.ranges)
        classes = F.pad(truth.classes, (1, 0), value=-1)[cells]
        wanted = classes[..., None] == torch.arange(len(self.foreground), device=cells.device)
        neutral = ignored(truth, self.cells) & (cells == 0)
        focal = sigmoid_focal_loss(outputs[0].float(), wanted.float(), alpha=0.25, gamma=2)
        focal = focal.masked_fill(neutral[..., None], 0)
        return {"category": focal.sum(), "mask": self._mask_sum(outputs, truth, cells)}

    def _mask_sum(self, outputs: Outputs, truth: Truth, cells: Tensor) -> Tensor:
        """Sum of the Dice loss over cells that have an object, (N, cells) as of `assign`."""
        placed = cells > 0
        # one wait for the device
        counts = torch.stack([torch.bincount(truth.item, minlength=len(cells)), placed.sum(1)]).tolist()
        place = placed.nonzero()[:, 1].split(counts[1])
        total, first = torch.zeros((), device=cells.device), 0
        for index, count in enumerate(counts[0]):
            target, weight = block_targets(truth, index, slice(first, first + count))
            row = cells[index, place[index]] - 1 - first
            # a chunk is computed again for its gradient, so that its masks are not kept
            size = max(_CHUNK // len(weight), 1)
            for chosen, rows in zip(place[index].split(size), row.split(size), strict=True):
                arguments = (outputs, index, chosen, target[rows], weight)
                total = total + (
                    self._dice(*arguments)
                    if len(row) <= size
                    else checkpoint(self._dice, *arguments, use_reentrant=False, preserve_rng_state=False)
                )
            first += count
        return total

    def _dice(self, outputs: Outputs, index: int, chosen: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return dice(self.masks(tuple(x[index] for x in outputs), chosen), target, weight).sum()

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """Objects of the cells of the highest scores, which Matrix NMS lowers where masks overlap."""
        with torch.autocast(outputs[0].device.type, enabled=False):
            return [self._detect(outputs, index, height, width) for index in range(len(outputs[0]))]

    def _detect(self, outputs: Outputs, index: int, height: int, width: int) -> Objects:
        outputs, scale = tuple(x[index] for x in outputs), self._scale(height, width)
        cell, place, score, real = self._candidates(outputs)
        cell, place, score = cell[real], place[real], score[real]
        (rows, cols), blocks = self._blocks(height, width), outputs[-1].shape[-2:]
        probability = self.masks(outputs, cell).unflatten(-1, blocks)[:, :rows, :cols]
        score, above = rated(score, probability), probability.flatten(1) > 0.5
        order = by_score(score)
        order = order[above.any(1)[order]]
        score = matrix_nms(above[order], score[order])
        kept = score >= self.threshold
        order, score = order[kept], score[kept]
        return self._objects(
            probability[order].cpu().numpy(),
            np.array(self.foreground, np.uint8)[place[order].cpu().numpy()],
            score.cpu().numpy(),
            (height, width, scale),
        )

    def detect_tensors(self, outputs: Outputs, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """As of `InstanceModel`; D is `candidates` for an image of the size of the window."""
        with torch.autocast(outputs[0].device.type, enabled=False):
            cell, place, score, real = self._candidates(outputs)
            size, blocks = self._blocks(height, width), outputs[-1].shape[-2:]
            rows, cols = (
                torch.arange(n, device=cell.device) < end for n, end in zip(blocks, size, strict=True)
            )
            probability = self.masks(outputs, cell).unflatten(-1, blocks) * (rows[:, None] & cols)
            score, above = rated(score, probability), probability.flatten(-2) > 0.5
            # those that are none come last, so that they lower no score
            score = score.where(real & above.any(-1), -1)
            order = by_score(score)
            score, place = score.gather(1, order), place.gather(1, order)
            lowered = matrix_nms(at(above, order), score)
            kept = (lowered >= self.threshold) & (score >= 0)
            probability = at(probability.flatten(-2), order).unflatten(-1, probability.shape[-2:])
            masks = in_planes(probability, size, (height, width), self._scale(height, width))
            if self.min_area > 1:
                kept = kept & (masks.sum((-2, -1)) >= self.min_area)
            return lowered * kept, place, masks

    def _scale(self, height: int, width: int) -> tuple[float, float]:
        """Blocks per pixel of an image, by rows and columns."""
        if self.magnify >= 1:
            return self.magnify / BLOCK, self.magnify / BLOCK
        rows, cols = (round(side * self.magnify) / side / BLOCK for side in (height, width))
        return rows, cols

    def _blocks(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the blocks that have pixels of the image."""
        sides = (
            side * round(self.magnify) if self.magnify >= 1 else round(side * self.magnify)
            for side in (height, width)
        )
        rows, cols = (ceil_div(side, BLOCK) for side in sides)
        return rows, cols

    def _candidates(self, outputs: Outputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`highest_peaks` of an image or a batch, `candidates` of an image of the size of the window."""
        height, width = (side * BLOCK for side in outputs[-1].shape[-2:])
        window = self.window**2
        count = ceil_div(self.candidates * torch.sym_max(height * width, window), window)
        grids = shapes(height, width, self.cells)
        return highest_peaks(outputs[0].float().sigmoid(), grids, count, self.threshold)

    def _objects(
        self,
        probability: np.ndarray,
        classes: np.ndarray,
        scores: np.ndarray,
        size: tuple[int, int, tuple[float, float]],
    ) -> Objects:
        """Objects of masks in blocks, at the pixels of the image."""
        height, width, scale = size
        found = [enlarged(mask, height, width, scale) for mask in probability]
        boxes = np.array([box for box, _ in found], np.int32).reshape(-1, 4)
        objects = Objects(height, width, classes, scores, boxes, [mask for _, mask in found])
        return objects.select(objects.areas >= self.min_area)

    def costed(self, images: Tensor) -> dict[str, int]:
        """As of `InstanceModel`, with masks of as many cells as there are candidates."""
        outputs = self(images)
        count = min(self.candidates, outputs[0].shape[1])
        if self.is_v2:
            _, kernels, features = outputs
            # as `masks`, which needs a device with autocast
            self._split(kernels[:, :count])[0] @ features.flatten(2)
        return {"masks": count}
