"""Scenes of buildings with a number each, many of which touch: GeoTIFFs of images and of numbers."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

# objects per megapixel, about a hundredth of which are large
DENSITY = 300


def scene(side: int, seed: int = 0) -> np.ndarray:
    """Numbers of objects (side, side) uint32: rows of touching houses at any angle, and some large buildings."""
    rng = np.random.default_rng(seed)
    numbers = np.zeros((side, side), np.uint32)
    count = 0
    for row in range(round(side * side / 1e6 * DENSITY / 4)):
        large = row % 25 == 0
        centre, angle = rng.uniform(0, side, 2), rng.uniform(0, np.pi)
        half = rng.uniform([60, 20], [240, 60]) if large else rng.uniform([6, 8], [14, 26])
        # the houses of a row share walls
        for _ in range(1 if large else 5):
            count += _paint(numbers, count + 1, centre, half, angle)
            centre = centre + 2 * half[0] * np.array([np.sin(angle), np.cos(angle)])
    return numbers


def _paint(numbers: np.ndarray, number: int, centre: np.ndarray, half: np.ndarray, angle: float) -> bool:
    """Paint a turned rectangle if all its pixels are free; whether it was."""
    reach = int(np.hypot(*half)) + 1
    top, left = (max(int(at) - reach, 0) for at in centre)
    part = numbers[top : int(centre[0]) + reach + 1, left : int(centre[1]) + reach + 1]
    if 0 in part.shape:
        return False
    rows, cols = np.ogrid[: part.shape[0], : part.shape[1]]
    down, right = rows + top - centre[0], cols + left - centre[1]
    along = right * np.cos(angle) + down * np.sin(angle)
    across = down * np.cos(angle) - right * np.sin(angle)
    inside = (along >= -half[0]) & (along < half[0]) & (abs(across) <= half[1])
    if not inside.any() or part[inside].any():
        return False
    part[inside] = number
    return True


def _write(folder: Path, number: int, side: int) -> None:
    import rasterio

    numbers = scene(side, number)
    rng = np.random.default_rng(number)
    roof = rng.integers(110, 240, (numbers.max() + 1, 3), dtype=np.uint8)
    roof[0] = rng.integers(40, 90, 3)
    image = roof[numbers].transpose(2, 0, 1) + rng.integers(-12, 13, (3, side, side))
    transform = rasterio.Affine(0.5, 0, 300_000 + number * side, 0, -0.5, 6_000_000)
    profile = {"driver": "GTiff", "height": side, "width": side, "crs": "EPSG:32633", "transform": transform}
    profile |= {"tiled": True, "compress": "deflate"}
    for kind, bands in (("images", image.astype(np.uint8)), ("masks", numbers[None].astype(np.uint16))):
        with rasterio.open(
            folder / kind / f"p{number:05d}.tif", "w", count=len(bands), dtype=bands.dtype, **profile
        ) as file:
            file.write(bands)


def write_pairs(folder: Path, count: int, side: int) -> Path:
    """Write images/p*.tif, 3 bands of 8 bits, and masks/p*.tif, the numbers of objects, on all cores."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for job in [pool.submit(_write, folder, number, side) for number in range(count)]:
            job.result()
    return folder
