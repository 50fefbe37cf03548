"""Scores of a model on held-out regions, from which every figure of the report derives."""

import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from segcore.data.prepared import PreparedData, test_regions
from segcore.evaluation.calibration import Calibration
from segcore.evaluation.metrics import confusion, count, counts_table, require_all
from segcore.inference.tiling import autocast, predict_patch
from segcore.inference.tta import passes, seen
from segcore.models.base.model import SegmentationModel
from segcore.params import Evaluate


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation gives: the evaluation table, (K, K) confusion (rows truth), and calibration curve."""

    counts: pd.DataFrame
    confusion: np.ndarray
    calibration: dict[str, Any]


def evaluate(
    model: SegmentationModel,
    data: PreparedData,
    settings: Evaluate,
    precision: str,
    keep: Callable[[str, np.ndarray], None] = lambda region, prediction: None,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> Evaluated:
    """Predict every test region at full resolution and count against its untouched labels.

    Args:
        model: of a bundle, on its device.
        precision: "fp32" or "bf16".
        keep: receives each region's id and (H, W) uint8 prediction.

    Raises:
        DataError: a region has no counts.
    """
    regions = test_regions(data)
    classes = len(data.classes)
    model = seen(model, settings.flips)
    images, matrix, calibration = [], np.zeros((classes, classes), dtype=np.int64), Calibration()
    for region in progress(list(regions.itertuples())):
        patch = data.read_input(region.id)
        probabilities = predict_patch(model, patch, settings.tile, settings.overlap, precision)
        prediction = probabilities.argmax(axis=0).astype(np.uint8)
        images.append(
            (region.id, region.cluster, count(prediction, patch.label, classes, settings.boundary_tolerance))
        )
        matrix += confusion(prediction, patch.label, classes)
        calibration.update(probabilities, patch.label)
        keep(region.id, prediction)
    table = counts_table(images, data.classes)
    require_all(table, regions["id"])
    return Evaluated(table, matrix, calibration.result())


def save_prediction(path: Path, prediction: np.ndarray, colors: list[list[int]]) -> None:
    """Write (H, W) class indices as a palette PNG in the classes' colours."""
    picture = Image.fromarray(prediction, mode="P")
    picture.putpalette([value for color in colors for value in color])
    picture.save(path)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # makes VmHWM start anew


def _peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_speed(
    model: SegmentationModel, tile: int, precision: str, repeats: int = 5, flips: bool = False
) -> dict[str, Any]:
    """Latency of one tile after warm-up, synchronised, and peak memory while predicting.

    With `flips` all passes over a tile count, so that a better score never comes without its price.

    Peak memory is the device's allocation on CUDA, and that of the whole process on a CPU.

    Returns:
        latency_ms (median), latency_tile, latency_batch, latency_passes, ms_per_megapixel, peak_memory_mb, precision,
        device, threads.
    """
    device, model = next(model.parameters()).device, seen(model, flips)
    image = torch.rand(1, model.in_channels, tile, tile, device=device) * 255
    times = []

    def once() -> float:
        start = time.perf_counter()
        with autocast(device, precision):
            model.predict(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) * 1000

    once(), once()
    _reset_peak(device)
    times = [once() for _ in range(repeats)]
    latency = float(np.median(times))
    return {
        "latency_ms": latency,
        "latency_tile": tile,
        "latency_batch": 1,
        "latency_passes": passes(flips),
        "ms_per_megapixel": latency / (tile**2 / 1e6),
        "peak_memory_mb": _peak_mb(device),
        "precision": precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
    }
