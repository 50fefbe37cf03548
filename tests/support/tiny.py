"""Builders of tiny data sets and parameters."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image

from segcore.params import Params, merge


def blobs(height: int, width: int, seed: int, share: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 with bright squares, and their mask (H, W) uint8 of 0 and 1."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    while mask.mean() < share:
        r, c, s = rng.integers(0, height - 6), rng.integers(0, width - 6), rng.integers(5, 14)
        mask[r : r + s, c : c + s] = 1
    image = rng.integers(40, 90, (height, width, 3)) + mask[..., None] * np.array([90, 60, 30])
    return image.astype(np.uint8), mask


def make_pairs(folder: Path, count: int = 12, size: tuple[int, int] = (48, 56)) -> Path:
    """images/a<i>.png and masks/a<i>.png with values 0 and 255."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, mask = blobs(*size, seed=i)
        Image.fromarray(image).save(folder / "images" / f"a{i}.png")
        Image.fromarray(mask * 255).save(folder / "masks" / f"a{i}.png")
    return folder


# section data of make_annotated
ANNOTATED = {"annotators": ["ann", "bob", "cyd"], "masks": "masks/{annotator}/{stem}.png"}


def make_annotated(folder: Path, count: int = 12) -> Path:
    """images/a<i>.png and masks/<annotator>/a<i>.png of three annotators, a tenth of whose pixels is wrong."""
    rng, names = np.random.default_rng(0), ANNOTATED["annotators"]
    for name in ("images", *(f"masks/{name}" for name in names)):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, mask = blobs(48, 56, seed=i)
        Image.fromarray(image).save(folder / f"images/a{i}.png")
        for name in names:
            drawn = np.where(rng.random(mask.shape) < 0.1, 1 - mask, mask).astype(np.uint8) * 255
            Image.fromarray(drawn).save(folder / f"masks/{name}/a{i}.png")
    return folder


def write_tif(path: Path, pixels: np.ndarray, **profile: Any) -> None:
    """(bands, H, W) as GeoTIFF, by default at 0.5 m in EPSG:32633."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {
        "driver": "GTiff",
        "count": pixels.shape[0],
        "height": pixels.shape[1],
        "width": pixels.shape[2],
        "dtype": pixels.dtype,
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(0.5, 0, 500000, 0, -0.5, 5000000),
    }
    with rasterio.open(path, "w", **{**options, **profile}) as out:
        out.write(pixels)


def make_scene(folder: Path, size: int = 256) -> Path:
    """One GeoTIFF scene with nodata (all bands 0) in its first 20 rows, and its mask of 0 and 255."""
    image, mask = blobs(size, size, seed=7, share=0.2)
    image[:20] = 0
    write_tif(folder / "images" / "scene.tif", np.moveaxis(image, -1, 0), nodata=0)
    write_tif(folder / "masks" / "scene.tif", mask[None] * 255)
    return folder


def values_for(source: Path | str, scene: bool = False, **over: Any) -> dict[str, Any]:
    """Values of params.yaml for a tiny run; `over` is merged into them."""
    ending = "tif" if scene else "png"
    values: dict[str, Any] = {
        "architectures": ["fcn", "unet"],
        "seeds": [0],
        "data": {
            "name": "tiny",
            "source": str(source),
            "images": f"images/*.{ending}",
            "masks": f"masks/{{stem}}.{ending}",
            "classes": ["background", "square"],
            "colors": [[0, 0, 0], [255, 200, 0]],
            "label_values": {0: 0, 255: 1},
        },
        "split": {
            "fractions": {"train": 0.5, "validation": 0.2, "test": 0.3},
            "block": 64 if scene else None,
            "buffer": 4 if scene else 0,
        },
        "prepare": {"window": 40, "stride": 8},
        "train": {
            "common": {
                "encoder": "resnet18",
                "weights": "none",
                "steps": 4,
                "batch": 2,
                "crop": 32,
                "validate_every": 2,
                "warmup_steps": 1,
            },
            "unet": {"model": {"encoder": "plain", "width": 4}},
        },
        "evaluate": {"tile": 64, "overlap": 16},
        "predict": {"overlap": 16},
        "compare": {"bootstrap": 50, "permutations": 50},
        "retrain": {"replan": False},
        "tracking": {"system_metrics": False},
    }
    data = over.get("data") or {}
    if isinstance(data.get("masks"), dict) and not data.get("label_values"):
        # A mapping of masks needs none.
        del values["data"]["label_values"]
    return merge(values, over)


def params_for(source: Path | str, scene: bool = False, **over: Any) -> Params:
    """Typed parameters of `values_for`."""
    return Params.model_validate(values_for(source, scene, **over))
