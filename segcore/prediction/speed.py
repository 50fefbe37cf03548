"""Latency and peak memory of a model."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segcore.data.prepared import LabelledImage
from segcore.inference.device import autocast, machine_name
from segcore.inference.objects import predict_objects
from segcore.inference.tta import passes, with_flips
from segcore.models.base.instance import InstanceModel
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


@dataclass(frozen=True)
class Measured:
    """A model whose speed is measured.

    Attributes:
        model: on its device.
        precision: "fp32" or "bf16".
        window: side in pixels of the windows in which an instance network predicts; None: the tile.
        overlap: of these windows in pixels.
        pixels: (H, W, C) raw pixels of a typical image, at least as large as the tile: the time that an instance
            network takes depends on what it finds; None: noise.
    """

    model: SegmentationModel
    precision: str
    window: int | None = None
    overlap: int = 0
    pixels: np.ndarray | None = None


class _Timed:
    """A model and a tile; calling it predicts the tile and returns the milliseconds, device synchronised.

    Instance networks predict it in all their overlapping windows.
    """

    def __init__(self, one: Measured, tile: int, flips: bool) -> None:
        self.device, self.precision = next(one.model.parameters()).device, one.precision
        self.model, self.pixels = with_flips(one.model, flips), one.pixels
        self.tile, self.windows = tile, (one.window or tile, one.overlap)
        self.image = torch.rand(1, one.model.in_channels, tile, tile, device=self.device) * 255
        self.times: list[float] = []

    def __call__(self) -> float:
        start = time.perf_counter()
        if isinstance(self.model, InstanceModel):
            # with all that follows the network: objects, and one object per pixel
            predict_objects(self.model, self._patch(), *self.windows, self.precision)
        else:
            with autocast(self.device, self.precision):
                self.model.predict(self.image)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - start) * 1000

    def _patch(self) -> LabelledImage:
        pixels = self.image[0].permute(1, 2, 0).cpu().numpy() if self.pixels is None else self.pixels
        part = pixels[: self.tile, : self.tile]
        return LabelledImage(part, np.zeros(part.shape[:2], np.uint8), np.ones(part.shape[:2], bool))

    def turn(self) -> None:
        """One pass that is timed, after one that is not: the models before it have displaced its data from caches."""
        self()
        self.times.append(self())


def measure_speed(
    models: Sequence[Measured], tile: int, rounds: int = 9, flips: bool = False
) -> list[dict[str, Any]]:
    """Latency of one tile of each model, and peak memory during prediction.

    The models take turns, round after round, so that other load of the machine affects all of them alike.

    Args:
        models: all on one device.
        tile: side of the tile in pixels.
        rounds: timed passes of each model.
        flips: latency includes all passes over a tile, so that the cost of the better score is counted.

    Returns:
        Per model: latency_ms (median over the rounds), latency_low_ms and latency_high_ms (quartiles), latency_rounds,
        latency_tile, latency_batch, latency_passes, ms_per_megapixel, peak_memory_mb (allocated on the device on CUDA,
        of the whole process on a CPU, with several models of all together), precision, device, machine, threads.
    """
    timed = [_Timed(one, tile, flips) for one in models]
    device = timed[0].device
    for one in timed:
        one()
    _reset_peak(device)
    for _ in range(rounds):
        for one in timed:
            one.turn()
    return [_figures(one, tile, flips) for one in timed]


def _figures(timed: _Timed, tile: int, flips: bool) -> dict[str, Any]:
    low, latency, high = (float(v) for v in np.percentile(timed.times, (25, 50, 75)))
    device = timed.device
    return {
        "latency_ms": latency,
        "latency_low_ms": low,
        "latency_high_ms": high,
        "latency_rounds": len(timed.times),
        "latency_tile": tile,
        "latency_batch": 1,
        "latency_passes": passes(flips),
        "ms_per_megapixel": latency / (tile**2 / 1e6),
        "peak_memory_mb": _peak_mb(device),
        "precision": timed.precision,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "machine": machine_name(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
    }
