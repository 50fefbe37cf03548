"""Images for the benchmarks: GeoTIFFs that compress like aerial images, their masks, and the same as PNG folders."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

# grey levels; with deflate, a GeoTIFF then has about 70 % of its uncompressed size
NOISE = 6
# side in pixels of areas of similar colour
CELL = 64


def _strips(side: int, seed: int, rows: int = 1024) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """First row, image (3, h, side) uint8 and mask (h, side) of 0 and 1, strip by strip."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 230, (max(side // CELL, 8),) * 2 + (3,), dtype=np.uint8)
    ground = Image.fromarray(coarse)
    noise = rng.integers(-NOISE, NOISE + 1, (3, min(rows, side), side), dtype=np.int8)
    for row in range(0, side, rows):
        height = min(rows, side - row)
        scale = coarse.shape[0] / side
        box = (0, row * scale, coarse.shape[1], (row + height) * scale)
        smooth = np.asarray(ground.resize((side, height), Image.Resampling.BICUBIC, box))
        image = np.empty((3, height, side), np.uint8)
        for band in range(3):
            image[band] = np.clip(smooth[..., band].astype(np.int16) + noise[band, :height], 1, 255)
        yield row, image, (smooth[..., 0] > 150).astype(np.uint8)


def write_pair(folder: Path, number: int, side: int, tiled: bool) -> None:
    """images/<number>.tif (3 bands uint8) and masks/<number>.tif, deflate, each at another position."""
    import rasterio
    from rasterio.windows import Window

    blocks = {"tiled": True, "blockxsize": 256, "blockysize": 256} if tiled else {}
    transform = rasterio.Affine(
        0.5, 0, 300_000 + number % 64 * side, 0, -0.5, 6_000_000 - number // 64 * side
    )
    profile = {"driver": "GTiff", "height": side, "width": side, "dtype": "uint8", "compress": "deflate"}
    profile |= {"crs": "EPSG:32633", "transform": transform, "BIGTIFF": "IF_SAFER", **blocks}
    paths = [folder / kind / f"p{number:05d}.tif" for kind in ("images", "masks")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    with (
        rasterio.Env(GDAL_CACHEMAX=64_000_000),
        rasterio.open(paths[0], "w", count=3, **profile) as images,
        rasterio.open(paths[1], "w", count=1, **profile) as masks,
    ):
        for row, image, mask in _strips(side, number):
            window = Window(0, row, side, mask.shape[0])
            images.write(image, window=window)
            masks.write(mask[None], window=window)


def write_pairs(folder: Path, numbers: range, side: int, tiled: bool) -> Path:
    """Write many pairs with `write_pair`, on all cores."""
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(write_pair, folder, number, side, tiled) for number in numbers]
        for job in jobs:
            job.result()
    return folder


def _cut(path: Path, target: Path, tile: int) -> None:
    import rasterio
    from PIL import Image

    with rasterio.open(path) as source:
        pixels = source.read()
    image = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    for row in range(0, image.shape[0], tile):
        for col in range(0, image.shape[1], tile):
            name = f"{path.stem}_{row}_{col}.png"
            Image.fromarray(image[row : row + tile, col : col + tile]).save(target / path.parent.name / name)


def write_pngs(source: Path, target: Path, tile: int) -> Path:
    """Write the same images as PNG tiles: images/*.png and masks/*.png."""
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True)
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        jobs = [pool.submit(_cut, path, target, tile) for path in sorted(source.glob("*/*.tif"))]
        for job in jobs:
            job.result()
    return target
