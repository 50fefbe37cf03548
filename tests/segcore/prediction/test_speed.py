"""Speed of networks: what is timed, and what counts."""

import numpy as np
import pytest
import torch
from torch import Tensor

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


def test_an_instance_network_is_timed_on_the_pixels_of_one_of_its_windows() -> None:
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 255, (100, 80, 3)).astype(np.uint8)
    watched = Watched()
    unet = build_model("unet", 3, 2, encoder="plain", width=4).eval()
    own, other = measure_speed([Measured(watched, "fp32", 32, pixels), Measured(unet, "fp32")], 64, rounds=3)
    # one pass before, and two in each round
    assert len(watched.images) == 7
    expected = torch.from_numpy(pixels[:32, :32].astype(np.float32)).permute(2, 0, 1)
    assert all(torch.equal(image[0], expected) for image in watched.images)
    for cost in (own, other):
        assert cost["latency_tile"] == 64 and cost["latency_rounds"] == 3
        assert cost["ms_per_megapixel"] == pytest.approx(cost["latency_ms"] / (64**2 / 1e6))


def test_a_window_counts_as_often_as_its_pixels_are_in_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("segcore.prediction.speed.time.perf_counter", lambda: next(ticks) / 1000)
    whole, quarter = measure_speed([Measured(Toy(), "fp32", side) for side in (None, 32)], 64, rounds=2)
    assert whole["latency_ms"] == pytest.approx(1) and quarter["latency_ms"] == pytest.approx(4)
