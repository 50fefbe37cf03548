"""Training samples per second: this project's loader, a folder of PNGs, and TorchGeo on the GeoTIFFs.

All give crops of 256 pixels in batches of 8, scaled by up to 1.25, flipped, rotated by quarter turns, and changed in
brightness and contrast. Decoding is measured as in a training, with the files in the page cache.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import tv_tensors

from segcore.data.prepared import PreparedData
from segcore.params import TrainSettings
from segcore.training.sampler import Sampler

SETTINGS = TrainSettings(steps=1, batch=8, crop=256, validate_every=1)
ZOOM = SETTINGS.augment.scale
WINDOW = 320
# side in source pixels that contains any augmented crop
CUT = round(SETTINGS.crop * ZOOM)


@lru_cache(maxsize=2)
def transforms_of(side: int) -> Any:
    """The same kinds of augmentation, composed as in torchvision's manual, on 8-bit values (the fastest way).

    Args:
        side: of the input images in pixels.
    """
    from torchvision.transforms import v2

    scale = tuple((SETTINGS.crop / side * zoom) ** 2 for zoom in (1 / ZOOM, ZOOM))
    return v2.Compose(
        [
            v2.RandomResizedCrop(SETTINGS.crop, scale=scale, ratio=(1, 1)),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomChoice([partial(_turned, turns=turns) for turns in range(4)]),
            v2.ColorJitter(brightness=SETTINGS.augment.brightness, contrast=SETTINGS.augment.contrast),
            v2.ToDtype({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64}),
        ]
    )


def _turned(*values: Any, turns: int) -> Any:
    return tuple(tv_tensors.wrap(torch.rot90(value, turns, (-2, -1)), like=value) for value in values)


class PngFolder(Dataset[Any]):
    """The usual dataset: decode image and mask, crop, augment."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("*.png"))
        self.masks = sorted((folder / "masks").glob("*.png"))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        from torchvision.transforms.v2.functional import pil_to_tensor

        image = tv_tensors.Image(pil_to_tensor(Image.open(self.images[index])))
        mask = tv_tensors.Mask(pil_to_tensor(Image.open(self.masks[index])))
        return transforms_of(image.shape[-1])(image, mask)


def png_loader(folder: Path, workers: int) -> Iterator[Any]:
    """Endless batches of a PNG folder in random order."""
    data = PngFolder(folder)
    sampler = RandomSampler(data, replacement=True, num_samples=10**6)
    return iter(DataLoader(data, SETTINGS.batch, sampler=sampler, num_workers=workers))


def _torchgeo_collate(samples: list[dict[str, Any]]) -> Any:
    augment = transforms_of(CUT)
    pairs = [
        augment(tv_tensors.Image(s["image"].to(torch.uint8)), tv_tensors.Mask(s["mask"].to(torch.uint8)))
        for s in samples
    ]
    return [torch.stack(parts) for parts in zip(*pairs, strict=True)]


def torchgeo_parts(folder: Path) -> tuple[Any, Any, Callable[[list[dict[str, Any]]], Any]]:
    """Dataset, sampler and collation: images and masks combined as in TorchGeo's manual."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchgeo.datasets import RasterDataset
        from torchgeo.samplers import RandomGeoSampler

        masks: Any = type("Masks", (RasterDataset,), {"is_image": False})

        data = RasterDataset(paths=str(folder / "images")) & masks(paths=str(folder / "masks"))
        return data, RandomGeoSampler(data, size=CUT, length=10**5), _torchgeo_collate


def torchgeo_loader(folder: Path, workers: int) -> Iterator[Any]:
    """Batches of RandomGeoSampler."""
    data, sampler, collate = torchgeo_parts(folder)
    return iter(DataLoader(data, SETTINGS.batch, sampler=sampler, num_workers=workers, collate_fn=collate))


def own_loader(prepared: Path, workers: int) -> Iterator[Any]:
    """Batches of this project's sampler, made ahead by threads as in a training with loader threads."""
    sampler = Sampler(PreparedData(prepared), SETTINGS, WINDOW, seed=0)
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(sampler.batch, step) for step in range(2 * workers))
        for step in range(2 * workers, 10**9):
            yield ahead.popleft().result()
            ahead.append(pool.submit(sampler.batch, step))


def rate(loader: Callable[[], Iterator[Any]], batches: int, warmup: int = 4) -> float:
    """Samples per second after `warmup` batches, with one torch thread per worker."""
    torch.set_num_threads(1)
    iterator = loader()
    for _ in range(warmup):
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return batches * SETTINGS.batch / (time.perf_counter() - start)
