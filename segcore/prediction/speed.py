"""Latency and peak memory of a model."""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segcore.inference.device import autocast
from segcore.inference.tta import passes, with_flips
from segcore.models.base.model import SegmentationModel


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        # resets VmHWM
        Path("/proc/self/clear_refs").write_text("5")


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
    """Latency of one tile after warm-up, synchronised, and peak memory during prediction.

    With `flips`, latency includes all passes over a tile, so that the cost of the better score is counted.

    Peak memory is that allocated on the device on CUDA, and that of the whole process on a CPU.

    Returns:
        latency_ms (median), latency_tile, latency_batch, latency_passes, ms_per_megapixel, peak_memory_mb, precision,
        device, threads.
    """
    device, model = next(model.parameters()).device, with_flips(model, flips)
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
