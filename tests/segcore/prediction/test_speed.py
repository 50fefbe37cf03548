"""Speed of networks: what is timed, and what counts."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from segcore.inference.tiling import tile_starts
from segcore.models.base.factory import build_model
from segcore.models.base.instance import Outputs
from segcore.prediction.speed import Measured, measure_speed
from tests.support.toy_instance import Toy


class Watched(Toy):
    """Records the images that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Tensor] = []

    def heads(self, x: Tensor) -> Outputs:
        self.images.append(x)
        return super().heads(x)


def test_an_instance_network_is_timed_on_the_pixels_of_all_its_overlapping_windows() -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 255, (100, 80, 3)).astype(np.uint8)
    watched = Watched()
    unet = build_model("unet", 3, 2, encoder="plain", width=4).eval()
    instance = Measured(watched, "fp32", 32, 16, pixels)
    own, other = measure_speed([instance, Measured(unet, "fp32")], 64, rounds=3)
    starts = list(itertools.product(tile_starts(64, 32, 16), repeat=2))
    seen = [image for batch in watched.images for image in batch]
    # one pass before, and two in each round
    assert len(starts) == 9 and len(seen) == 7 * 9
    for image, (row, col) in zip(seen, starts * 7, strict=True):
        window = pixels[row : row + 32, col : col + 32].astype(np.float32)
        assert torch.equal(image, torch.from_numpy(window).permute(2, 0, 1))
    for cost in (own, other):
        assert cost["latency_tile"] == 64 and cost["latency_rounds"] == 3
        assert cost["ms_per_megapixel"] == pytest.approx(cost["latency_ms"] / (64**2 / 1e6))


def test_the_time_is_that_of_one_pass_over_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("segcore.prediction.speed.time.perf_counter", lambda: next(ticks) / 1000)
    for cost in measure_speed([Measured(Toy(), "fp32", side) for side in (None, 32)], 64, rounds=2):
        assert cost["latency_ms"] == pytest.approx(1)
