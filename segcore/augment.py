"""Training batches: which crops, and how image and mask are altered together.

A batch is a pure function of the seed and the step. Every architecture therefore sees the same crops in the same
order, and a resumed training needs no sampler state.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from segcore.dataset import Patch, PreparedData
from segcore.params import TrainSettings


class Sampler:
    """Draws windows: a share of them for the foreground classes in them, the rest evenly.

    Args:
        data: prepared data; its training windows are drawn from.
        settings: batch, crop, foreground_share, augment.
        window: side of the windows in pixels.
        seed: of the training.
    """

    def __init__(self, data: PreparedData, settings: TrainSettings, window: int, seed: int) -> None:
        self.data, self.settings, self.window, self.seed = data, settings, window, seed
        windows: pd.DataFrame = data.windows
        self.places = list(zip(windows["item"], windows["row"], windows["col"], strict=True))
        counts = windows[[f"class_{k}" for k in data.foreground]].to_numpy(np.float64)
        present = counts[:, counts.sum(axis=0) > 0]
        # Each class weighs the same, so that a rare one is seen as often as a common one.
        weights = (present / present.sum(axis=0)).sum(axis=1) if present.size else np.ones(len(windows))
        self.weights = np.cumsum(weights / weights.sum())

    def batch(self, step: int) -> dict[str, Tensor]:
        """The batch of a step: image (N, C, crop, crop) float32 raw values, label int64, valid bool."""
        rng = np.random.default_rng([self.seed, step])
        wanted = round(self.settings.batch * self.settings.foreground_share)
        patches = []
        for index in range(self.settings.batch):
            draw = rng.random()
            place = (
                int(np.searchsorted(self.weights, draw)) if index < wanted else int(draw * len(self.places))
            )
            patches.append(self._crop(min(place, len(self.places) - 1), rng))
        image, label, valid = (torch.stack(parts) for parts in zip(*patches, strict=True))
        return {"image": image, "label": label, "valid": valid}

    def _crop(self, place: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        item, row, col = self.places[place]
        crop, scale = self.settings.crop, self.settings.augment.scale
        zoom = float(np.exp(rng.uniform(-np.log(scale), np.log(scale))))
        side = min(round(crop / zoom), self.window)
        down, right = (int(rng.integers(0, self.window - side + 1)) for _ in range(2))
        patch = self.data.crop(item, int(row) + down, int(col) + right, side, side)
        return augment(patch, self.settings, np.asarray(self.data.statistics["std"]), rng)


def augment(
    patch: Patch, settings: TrainSettings, std: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Resize to the crop, flip, turn, and shift brightness and contrast.

    Labels and validity are resampled by nearest neighbour, because they are `tv_tensors.Mask`.

    Args:
        patch: square of any side.
        settings: crop and augment.
        std: (C,) of the training split; brightness is shifted in units of it.
        rng: source of all choices.

    Returns:
        image (C, crop, crop) float32, label (crop, crop) int64, valid (crop, crop) bool.
    """
    options, size = settings.augment, [settings.crop, settings.crop]
    pixels = np.ascontiguousarray(np.moveaxis(patch.image, -1, 0)).astype(np.float32)
    image = tv_tensors.Image(torch.from_numpy(pixels))
    masks = tv_tensors.Mask(torch.from_numpy(np.stack([patch.label, patch.valid.astype(np.uint8)])))
    if image.shape[-1] != settings.crop:
        image, masks = F.resize(image, size, antialias=True), F.resize(masks, size)
    choices = rng.random(3)
    if options.flip and choices[0] < 0.5:
        image, masks = F.horizontal_flip(image), F.horizontal_flip(masks)
    if options.flip and choices[1] < 0.5:
        image, masks = F.vertical_flip(image), F.vertical_flip(masks)
    turns = int(choices[2] * 4) if options.rotate90 else 0
    x, y = (torch.rot90(t.as_subclass(torch.Tensor), turns, (-2, -1)) for t in (image, masks))
    gain = 1 + options.contrast * rng.uniform(-1, 1)
    shift = torch.from_numpy(std * options.brightness * rng.uniform(-1, 1)).float()[:, None, None]
    centre = x.mean(dim=(1, 2), keepdim=True)
    x = (x - centre) * gain + centre + shift
    return x.contiguous(), y[0].long(), y[1] > 0
