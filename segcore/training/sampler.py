"""Training batches: sampling of crops, and augmentation of image and mask together.

A batch is a pure function of the seed and the step. Every architecture therefore gets the same crops in the same
order, and a resumed training needs no sampler state.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from segcore.data.prepared import LabelledImage, PreparedData
from segcore.params import TrainSettings
from segcore.training.augmentation import StrongAugmentation, change_intensities, warped_patch
from segcore.training.cut_objects import CutObjects
from segcore.training.soft_labels import decoded


class Sampler:
    """Draws windows: a fraction by the foreground classes that they contain, the rest uniformly.

    Where the data have objects and windows without any, the last `empty_share` of a batch (rounded up) is drawn among
    those, but no item that the foreground has.

    Args:
        data: prepared data with its training windows.
        settings: batch, crop, foreground_share, objects, augment.
        window: side of the windows in pixels.
        seed: of the training.
        instances: batches are for an instance network: they also have object numbers, cut objects are ignored
            (`CutObjects`), and pixels near two objects are no class.
    """

    def __init__(
        self,
        data: PreparedData,
        settings: TrainSettings,
        window: int,
        seed: int,
        *,
        instances: bool = False,
    ) -> None:
        self.data, self.settings, self.window, self.seed = data.for_training(), settings, window, seed
        self.instances = instances
        windows: pd.DataFrame = data.windows
        self.places = list(zip(windows["item"], windows["row"], windows["col"], strict=True))
        counts = windows[[f"class_{k}" for k in data.foreground]].to_numpy(np.float64)
        present = counts[:, counts.sum(axis=0) > 0]
        # Each class has the same total weight, so that rare classes are drawn as often as common ones.
        weights = (present / present.sum(axis=0)).sum(axis=1) if present.size else np.ones(len(windows))
        self.weights = np.cumsum(weights / weights.sum())
        # of windows without objects
        self.empty = np.flatnonzero(counts.sum(axis=1) == 0) if data.instances else np.zeros(0, np.int64)
        self._cut = CutObjects(data, settings.objects, torch.device("cpu")) if instances else None

    def batch(self, step: int, part: slice = slice(None)) -> dict[str, Tensor]:
        """The batch of a step: image (N, C, crop, crop) float32 raw values, label int64, valid bool.

        With several annotators, label is (N, K, crop, crop) float32, the mean of theirs, all 0 where ignored. With
        `instances`, it also has instance (N, crop, crop) int64, the object numbers of the items, 0 for none.

        Args:
            step: from 0.
            part: only these items; they are equal to those of the whole batch.
        """
        drawn = self.draws(step)[part]
        std = np.asarray(self.data.of_channels(self.data.statistics["std"]))
        batch, present = _Crops.empty(0, 0, self.settings.crop, self.instances), []
        for index, (window, changes) in enumerate(drawn):
            patch = self._patch(window, changes.strong)
            if index == 0:
                bands = patch.image.shape[-1]
                batch = _Crops.empty(len(drawn), bands, self.settings.crop, self.instances)
            _augment_into(batch.at(index), patch, self.settings, std, changes)
            if patch.instances is not None:
                present.append(torch.from_numpy(patch.instances.astype(np.int64)))
        if self._cut is not None and batch.instance is not None and drawn:
            items = [window.item for window, _ in drawn]
            label, instance = self._cut.ignored(items, batch.label, batch.instance, present)
            batch = batch._replace(label=label, instance=instance)
        found = {name: tensor for name, tensor in batch._asdict().items() if tensor is not None}
        if self.data.annotators:
            found["label"] = decoded(found["label"], len(self.data.annotators), len(self.data.classes))
        return found

    def _patch(self, window: "CropWindow", strong: StrongAugmentation | None) -> LabelledImage:
        """Pixels of a crop window; rotated ones are taken from its whole training window, and nothing beyond it."""
        warp, place = None if strong is None else strong.warp, window
        if warp is not None:
            corner = (window.row - warp.top, window.col - warp.left)
            place = CropWindow(window.item, *corner, self.window, self.window)
        patch = self.data.crop(*place, instances=self.instances, touching=not self.instances, soft=True)
        return patch if warp is None else warped_patch(patch, warp, window.height)

    def draws(self, step: int) -> list[tuple["CropWindow", "Augmentation"]]:
        """Crop window and augmentation of each item of a step's batch; no pixel is read."""
        rng = np.random.default_rng([self.seed, step])
        # numbers of its own, so that crops are the same for every strength
        strong = np.random.default_rng([self.seed, step, 1]) if self.settings.augment.strength else None
        batch = self.settings.batch
        by_class = round(batch * self.settings.foreground_share)
        # small batches have one too; rounded first, because 20 * 0.15 is a little above 3
        empty = math.ceil(round(batch * self.settings.objects.empty_share, 6)) if len(self.empty) else 0
        return [self._draw(index < by_class, index >= batch - empty, rng, strong) for index in range(batch)]

    def _draw(
        self, foreground: bool, empty: bool, rng: np.random.Generator, strong: np.random.Generator | None
    ) -> tuple["CropWindow", "Augmentation"]:
        draw = rng.random()
        if foreground:
            place = int(np.searchsorted(self.weights, draw))
        elif empty:
            place = int(self.empty[int(draw * len(self.empty))])
        else:
            place = int(draw * len(self.places))
        item, row, col = self.places[min(place, len(self.places) - 1)]
        crop, scale = self.settings.crop, self.settings.augment.scale
        zoom = float(np.exp(rng.uniform(-np.log(scale), np.log(scale))))
        side = min(round(crop / zoom), self.window)
        down, right = (int(rng.integers(0, self.window - side + 1)) for _ in range(2))
        window = CropWindow(item, int(row) + down, int(col) + right, side, side)
        changes = Augmentation.draw(self.settings, rng)
        if strong is not None:
            drawn = StrongAugmentation.draw(self.settings.augment, (down, right), strong)
            changes = changes._replace(strong=drawn)
        return window, changes


class CropWindow(NamedTuple):
    """The square that a crop is cut from, in pixels; it may reach beyond the item."""

    item: str
    row: int
    col: int
    height: int
    width: int


class Augmentation(NamedTuple):
    """Random augmentation of one crop.

    Attributes:
        across: whether it is flipped horizontally.
        down: whether it is flipped vertically.
        turns: number of quarter turns, 0 to 3.
        gain: factor of contrast.
        shift: of brightness, in -1..1.
        strong: further changes, where `strength` is above 0.
    """

    across: bool
    down: bool
    turns: int
    gain: float
    shift: float
    strong: StrongAugmentation | None = None

    @classmethod
    def draw(cls, settings: TrainSettings, rng: np.random.Generator) -> "Augmentation":
        """Draw an augmentation within the limits of `settings.augment`."""
        options, changes = settings.augment, rng.random(3)
        across = bool(options.flip and changes[0] < 0.5)
        down = bool(options.flip is True and changes[1] < 0.5)
        turns = int(changes[2] * 4) if options.rotate90 else 0
        gain = 1 + options.contrast * rng.uniform(-1, 1)
        return cls(across, down, turns, gain, rng.uniform(-1, 1))


class _Crops(NamedTuple):
    """Tensors of one crop or of a batch: image (..., C, crop, crop), label, valid and instance (..., crop, crop)."""

    image: Tensor
    label: Tensor
    valid: Tensor
    instance: Tensor | None

    @classmethod
    def empty(cls, count: int, bands: int, side: int, instances: bool = False) -> "_Crops":
        image = torch.empty(count, bands, side, side)
        return cls(
            image,
            torch.empty(count, side, side, dtype=torch.int64),
            torch.empty(count, side, side, dtype=torch.bool),
            torch.empty(count, side, side, dtype=torch.int64) if instances else None,
        )

    def at(self, index: int) -> "_Crops":
        instance = None if self.instance is None else self.instance[index]
        return _Crops(self.image[index], self.label[index], self.valid[index], instance)


@lru_cache(maxsize=4096)
def nearest(side: int, crop: int) -> np.ndarray:
    """(crop,) source index in 0..side-1 of each pixel in torch's nearest-neighbour resize from side to crop."""
    pixels = torch.arange(side, dtype=torch.float32)[None, None]
    return functional.interpolate(pixels, size=crop, mode="nearest")[0, 0].numpy().astype(np.intp)


def _resized(image: np.ndarray, crop: int) -> Tensor:
    """(H, W, C) to float32 (C, crop, crop), antialiased; 8-bit values stay integers, which is six times as fast."""
    if image.shape[0] != crop and image.dtype == np.uint8:
        x = torch.from_numpy(image).permute(2, 0, 1)
    else:
        pixels = np.empty((image.shape[-1], *image.shape[:2]), np.float32)
        for band in range(len(pixels)):
            pixels[band] = image[..., band]
        x = torch.from_numpy(pixels)
    if image.shape[0] != crop:
        x = functional.interpolate(
            x[None], size=(crop, crop), mode="bilinear", align_corners=False, antialias=True
        )[0]
    return x.to(torch.float32, memory_format=torch.contiguous_format)


def augment(
    patch: LabelledImage, settings: TrainSettings, std: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize to the crop, flip, turn, and change brightness and contrast.

    Labels and validity are resampled by nearest neighbour.

    Args:
        patch: square of any side.
        settings: crop and augment.
        std: (C,) of the training split; brightness is shifted in units of it.
        rng: random generator.

    Returns:
        image (C, crop, crop) float32, label (crop, crop) int64, valid (crop, crop) bool.
    """
    crops = _Crops.empty(1, patch.image.shape[-1], settings.crop).at(0)
    _augment_into(crops, patch, settings, std, Augmentation.draw(settings, rng))
    return crops.image, crops.label, crops.valid


def _augment_into(
    out: _Crops, patch: LabelledImage, settings: TrainSettings, std: np.ndarray, changes: Augmentation
) -> None:
    """`augment` without copies; most of a loader's time is spent here."""
    across, down, turns, gain, *_ = changes
    crop, side = settings.crop, patch.image.shape[1]
    shift = torch.from_numpy(std * settings.augment.brightness * changes.shift).float()[:, None, None]

    chosen = nearest(side, crop)
    rows, cols = (chosen[::-1] if flipped else chosen for flipped in (down, across))
    maps = [(out.label, patch.label), (out.valid, patch.valid), (out.instance, patch.instances)]
    for target, mask in maps:
        if target is None or mask is None:
            continue
        target.numpy()[:] = np.rot90(mask.take(rows, axis=0).take(cols, axis=1), turns)

    x = _resized(patch.image, crop)
    x = x.flip(-1) if across else x
    x = x.flip(-2) if down else x
    x = torch.rot90(x, turns, (-2, -1))
    centre = x.mean(dim=(1, 2), keepdim=True)
    x.sub_(centre).mul_(gain).add_(centre).add_(shift)
    # band by band, which copies turned images twice as fast
    for target, band in zip(out.image, x, strict=True):
        target.copy_(band)
    if changes.strong is not None:
        change_intensities(out.image, out.valid, torch.from_numpy(std).float(), changes.strong)
