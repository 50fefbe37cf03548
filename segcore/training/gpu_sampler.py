"""Training data on the device: batches are cut and augmented there, all items of a batch at once.

Draws are those of `Sampler`, so that every training gets the same crops in the same order on any device. Labels,
validity, flips and quarter turns are identical; resized pixels differ by one level at most, because here both axes are
resampled before one rounding.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segcore.constants import IGNORE
from segcore.training.augmentation import change_intensities, copied, nearest_pixels, positions, warped
from segcore.training.cut_objects import CutObjects
from segcore.training.sampler import Augmentation, CropWindow, Sampler, nearest
from segcore.training.soft_labels import decoded

_WIDER = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.float64): np.float32}


class _Warped(NamedTuple):
    """A warped item: where its training window is among all pixels, and (2, side, side) positions in it."""

    start: int
    width: int
    height: int
    row: int
    col: int
    at: Tensor


class _Drawn(NamedTuple):
    """For each item of a batch, (N,) each: where its crop window is among all pixels, and its augmentation.

    `warped` has the warped items by their index in the batch.
    """

    warped: dict[int, _Warped]
    start: Tensor
    width: Tensor
    height: Tensor
    row: Tensor
    col: Tensor
    side: Tensor
    across: Tensor
    down: Tensor
    turns: Tensor


class GpuSampler:
    """Batches of a sampler's draws, cut from items that are copied to the device once.

    Args:
        sampler: of the training.
        device: with at least `PreparedData.training_bytes(sampler.instances)` of free memory.
    """

    def __init__(self, sampler: Sampler, device: torch.device) -> None:
        self.sampler, self.device = sampler, device
        settings, window = sampler.settings, sampler.window
        self.crop = settings.crop
        self.least = min(round(self.crop / settings.augment.scale), window)
        self.most = min(round(self.crop * settings.augment.scale), window)
        self._copy_data()
        self.resize, self.nearest = (table.to(device) for table in _tables(self.least, self.most, self.crop))
        std = np.asarray(sampler.data.of_channels(sampler.data.statistics["std"]))
        self.std = torch.from_numpy(std).float().to(device)
        self.brightness = torch.from_numpy(std * settings.augment.brightness).float().to(device)
        self.cut = CutObjects(sampler.data, settings.objects, device) if sampler.instances else None

    def _copy_data(self) -> None:
        data, self.places = self.sampler.data, {}
        pixels, labels, valid, numbers, start = [], [], [], [], 0
        for item in self.sampler.data.windows["item"].unique():
            instances = self.sampler.instances
            patch = data.whole(item, instances=instances, touching=not instances, soft=True)
            height, width = patch.label.shape
            image = patch.image.reshape(height * width, -1)
            image = np.array(image, dtype=_WIDER.get(image.dtype, image.dtype))
            pixels.append(torch.from_numpy(image).to(self.device))
            labels.append(torch.from_numpy(np.array(patch.label).ravel()).to(self.device))
            valid.append(torch.from_numpy(np.array(patch.valid).ravel()).to(self.device))
            if patch.instances is not None:
                # the same bits, because torch indexes no unsigned numbers of 32 bits
                bits = np.array(patch.instances).ravel().view(np.int32)
                numbers.append(torch.from_numpy(bits).to(self.device))
            self.places[item] = (start, width, height)
            start += height * width
        self.pixels, self.labels, self.valid = (torch.cat(parts) for parts in (pixels, labels, valid))
        self.numbers = torch.cat(numbers) if self.sampler.instances else None

    def batch(self, step: int, part: slice = slice(None)) -> dict[str, Tensor]:
        """As `Sampler.batch`, on the device; the CPU waits for it only where there are object numbers."""
        draws, rows, factors = self.sampler.draws(step)[part], [], []
        for window, changes in draws:
            place = self.places[window.item]
            rows.append(
                (*place, window.row, window.col, window.height, changes.across, changes.down, changes.turns)
            )
            factors.append((changes.gain, changes.shift))
        where = copied(torch.tensor(rows, dtype=torch.int64), self.device).unbind(1)
        drawn = _Drawn(self._warped(draws), *where)
        gain, shift = copied(torch.tensor(factors, dtype=torch.float32), self.device)[:, :, None].unbind(1)
        maps = {name: _turned(values, drawn) for name, values in self._maps(drawn).items()}
        maps["label"] = maps["label"].long()
        if annotators := self.sampler.data.annotators:
            maps["label"] = decoded(maps["label"], len(annotators), len(self.sampler.data.classes))
        if self.cut is not None:
            items = [window.item for window, _ in draws]
            maps["label"], maps["instance"] = self.cut.ignored(
                items, maps["label"], maps["instance"], list(self._present(drawn))
            )
        image = _turned(self._image(drawn), drawn)
        centre = image.mean((2, 3), keepdim=True)
        moved = (shift * self.brightness)[:, :, None, None]
        image = (image - centre) * gain[:, :, None, None] + centre + moved
        for index, (_, changes) in enumerate(draws):
            if changes.strong is not None:
                change_intensities(image[index], maps["valid"][index], self.std, changes.strong)
        return {"image": image, **maps}

    def _warped(self, draws: list[tuple[CropWindow, Augmentation]]) -> dict[int, _Warped]:
        found = {}
        for index, (window, changes) in enumerate(draws):
            if changes.strong is not None and changes.strong.warp is not None:
                warp = changes.strong.warp
                corner = (window.row - warp.top, window.col - warp.left)
                at = positions(warp, window.height, self.device)
                found[index] = _Warped(*self.places[window.item], *corner, at)
        return found

    def _at(self, drawn: _Drawn, rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
        """Index of each pixel and whether it is inside its item, (N, H, W) both.

        Args:
            drawn: of the batch.
            rows: (N, H) or (1, H) of the crop windows.
            cols: (N, W) or (1, W) of them.
        """
        row, col = rows + drawn.row[:, None], cols + drawn.col[:, None]
        at, inside = _index(
            drawn.start[:, None, None],
            drawn.width[:, None, None],
            drawn.height[:, None, None],
            row[:, :, None],
            col[:, None],
        )
        for index, item in drawn.warped.items():
            # beyond the side of the crop window, what is found is not used
            last = item.at.shape[-1] - 1
            r, c = (lines.expand(len(row), -1)[index].clamp(max=last) for lines in (rows, cols))
            row_in, col_in, within = nearest_pixels(item.at[:, r[:, None], c], self.sampler.window)
            at[index], found = _index(
                item.start, item.width, item.height, row_in + item.row, col_in + item.col
            )
            inside[index] = found & within
        return at, inside

    def _image(self, drawn: _Drawn) -> Tensor:
        """(N, C, crop, crop) float32, antialiased; 8-bit values stay whole numbers."""
        along = torch.arange(self.most, device=self.device)
        at, inside = self._at(drawn, along[None], along[None])
        windows = self.pixels[at].permute(0, 3, 1, 2).float().masked_fill(~inside[:, None], 0)
        for index, item in drawn.warped.items():
            side = item.at.shape[-1]
            windows[index, :, :side, :side] = self._warped_image(item)
        # (N, 1, crop, most), 0 beyond the window
        weights = self.resize[drawn.side - self.least][:, None]
        image = weights @ windows @ weights.mT
        return image.round_() if self.pixels.dtype == torch.uint8 else image

    def _warped_image(self, item: _Warped) -> Tensor:
        """(C, side, side) float32 of a warped crop window; 8-bit values stay whole numbers."""
        along = torch.arange(self.sampler.window, device=self.device)
        at, inside = _index(
            item.start, item.width, item.height, (along + item.row)[:, None], along + item.col
        )
        planes = torch.cat([self.pixels[at].float(), self.valid[at][..., None].float()], dim=-1)
        image = warped((planes * inside[..., None]).permute(2, 0, 1), item.at)
        return image.round_() if self.pixels.dtype == torch.uint8 else image

    def _maps(self, drawn: _Drawn) -> dict[str, Tensor]:
        """Labels, validity and object numbers before turns, (N, crop, crop) each."""
        chosen = self.nearest[drawn.side - self.least]
        at, inside = self._at(drawn, chosen, chosen)
        maps = {"label": self.labels[at].masked_fill(~inside, IGNORE), "valid": self.valid[at] & inside}
        if self.numbers is not None:
            maps["instance"] = (self.numbers[at].long() & 0xFFFFFFFF).masked_fill(~inside, 0)
        return maps

    def _present(self, drawn: _Drawn) -> Tensor:
        """(N, most, most) object numbers of the windows before they are resized, 0 beyond them."""
        assert self.numbers is not None
        along = torch.arange(self.most, device=self.device)
        at, inside = self._at(drawn, along[None], along[None])
        within = along < drawn.side[:, None]
        inside = inside & within[:, :, None] & within[:, None]
        return (self.numbers[at].long() & 0xFFFFFFFF).masked_fill(~inside, 0)


def _index(
    start: Tensor | int, width: Tensor | int, height: Tensor | int, row: Tensor, col: Tensor
) -> tuple[Tensor, Tensor]:
    """Index among all pixels of rows and columns of items, and whether they are inside; all are broadcast."""
    inside_rows, inside_cols = (row >= 0) & (row < height), (col >= 0) & (col < width)
    at = start + torch.where(inside_rows, row, 0) * width + torch.where(inside_cols, col, 0)
    return at, inside_rows & inside_cols


def _tables(least: int, most: int, crop: int) -> tuple[Tensor, Tensor]:
    """For each side from least to most: (crop, most) weights of antialiased bilinear resizing, (crop,) nearest pixels.

    Resizing is linear, so its weights are the resized unit vectors.
    """
    weights = torch.zeros(most - least + 1, crop, most)
    for side in range(least, most + 1):
        unit = torch.eye(side)[None, None]
        resized = functional.interpolate(
            unit, size=(crop, side), mode="bilinear", align_corners=False, antialias=True
        )
        weights[side - least, :, :side] = torch.eye(crop) if side == crop else resized[0, 0]
    chosen = np.stack([nearest(side, crop) for side in range(least, most + 1)])
    return weights, torch.from_numpy(chosen.astype(np.int64))


def _turned(x: Tensor, drawn: _Drawn) -> Tensor:
    """Flip and turn each item of (N, ..., H, W) as drawn."""

    def each(which: Tensor, changed: Tensor) -> Tensor:
        return torch.where(which.bool().view(-1, *[1] * (x.ndim - 1)), changed, x)

    x = each(drawn.across, x.flip(-1))
    x = each(drawn.down, x.flip(-2))
    x = each(drawn.turns >= 2, x.flip(-1, -2))
    return each(drawn.turns % 2, torch.rot90(x, 1, (-2, -1)))
