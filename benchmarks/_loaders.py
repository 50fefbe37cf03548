"""Training samples a second: this project's loader, a folder of PNGs, and TorchGeo on the GeoTIFFs.

All give crops of 256 pixels in batches of 8, scaled by up to 1.25, flipped, turned by quarters, and changed in
brightness and contrast; decoding is measured as it is in a training, with the files in the page cache.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from segcore.augment import Sampler, augment
from segcore.dataset import Patch, PreparedData
from segcore.params import TrainSettings

SETTINGS = TrainSettings(steps=1, batch=8, crop=256, validate_every=1)
WINDOW = 320
CUT = round(SETTINGS.crop * SETTINGS.augment.scale)  # pixels of the source that any augmented crop fits in


def _augmented(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random crop of (H, W, 3) and (H, W), augmented by this project's own function: only the loading differs."""
    zoom = float(np.exp(rng.uniform(-np.log(SETTINGS.augment.scale), np.log(SETTINGS.augment.scale))))
    side = round(SETTINGS.crop / zoom)
    row, col = (int(rng.integers(0, length - side + 1)) for length in mask.shape)
    area = (slice(row, row + side), slice(col, col + side))
    patch = Patch(image[area], mask[area], np.ones((side, side), bool))
    x, label, _ = augment(patch, SETTINGS, np.full(3, 40.0), rng)
    return x, label


class PngFolder(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual data set: decode image and mask, crop, augment."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("*.png"))
        self.masks = sorted((folder / "masks").glob("*.png"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        from PIL import Image

        image, mask = (np.asarray(Image.open(paths[index])) for paths in (self.images, self.masks))
        return _augmented(image, mask, np.random.default_rng(index))


def png_loader(folder: Path, workers: int) -> Iterator[Any]:
    """Batches of a PNG folder, shuffled."""
    return iter(
        DataLoader(
            PngFolder(folder), SETTINGS.batch, shuffle=True, num_workers=workers, drop_last=True,
            persistent_workers=False,
        )
    )  # fmt: skip


def _torchgeo_collate(samples: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = []
    for sample in samples:
        image = sample["image"].permute(1, 2, 0).numpy().astype(np.uint8)
        mask = sample["mask"].squeeze().numpy().astype(np.uint8)
        pairs.append(_augmented(image, mask, np.random.default_rng(int(image[0, 0, 0]))))
    images, labels = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(labels)


def torchgeo_loader(folder: Path, workers: int, samples: int) -> Iterator[Any]:
    """Batches of RandomGeoSampler on images and masks joined as TorchGeo's manual does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchgeo.datasets import RasterDataset
        from torchgeo.samplers import RandomGeoSampler

        class Masks(RasterDataset):  # type: ignore[misc, valid-type]
            is_image = False

        data = RasterDataset(paths=str(folder / "images")) & Masks(paths=str(folder / "masks"))
        sampler = RandomGeoSampler(data, size=CUT, length=samples)
    return iter(
        DataLoader(data, SETTINGS.batch, sampler=sampler, num_workers=workers, collate_fn=_torchgeo_collate)
    )


def own_loader(prepared: Path, workers: int) -> Iterator[Any]:
    """Batches of this project's sampler, drawn in this thread, or ahead by two as trainings do."""
    sampler = Sampler(PreparedData(prepared), SETTINGS, WINDOW, seed=0)
    if workers == 0:
        yield from map(sampler.batch, range(10**9))
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(sampler.batch, step) for step in range(2 * workers))
        for step in range(2 * workers, 10**9):
            yield ahead.popleft().result()
            ahead.append(pool.submit(sampler.batch, step))


def rate(loader: Callable[[], Iterator[Any]], batches: int, warm: int = 4) -> float:
    """Samples a second after the first batches, with torch on one thread a worker."""
    torch.set_num_threads(1)
    found = loader()
    for _ in range(warm):
        next(found)
    start = time.perf_counter()
    for _ in range(batches):
        next(found)
    return batches * SETTINGS.batch / (time.perf_counter() - start)
