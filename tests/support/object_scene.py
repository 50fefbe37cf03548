"""A scene of objects, and an oracle that predicts it in place of a network."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segcore.data.prepared import PreparedData
from segcore.models.base.semantic import SemanticModel
from segcore.params import Params
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import params_for, write_tif

SIDE, BLOCK = 192, 48


class Oracle(SemanticModel):
    """Probability of class 1 from the first band, in 1/200."""

    def __init__(self) -> None:
        super().__init__(3, 2, "Oracle", 1)
        self.anchor = nn.Parameter(torch.zeros(1))

    def segment(self, x: Tensor) -> Tensor:
        raise AssertionError("it answers without a network")

    def predict(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        foreground = images[:, 0] / 200
        return torch.stack([1 - foreground, foreground], 1)


def _numbers(rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE) of objects that touch, with gaps in their numbers; most are cut by blocks."""
    numbers = np.zeros((SIDE, SIDE), np.uint16)
    for number in range(1, 60):
        r, c = rng.integers(0, SIDE - 12, 2)
        numbers[r : r + rng.integers(1, 22), c : c + rng.integers(1, 22)] = number * 7
    return numbers


def object_scene(folder: Path) -> tuple[Params, PreparedData, np.ndarray]:
    """Parameters, prepared data, and the prediction of `Oracle` (SIDE, SIDE), which is shifted against the truth.

    The scene has blocks of BLOCK pixels, of 0.5 m; its first 10 rows have no data.
    """
    rng = np.random.default_rng(0)
    numbers = _numbers(rng)
    sure = np.roll(numbers > 0, (2, 1), (0, 1)) & (rng.random(numbers.shape) < 0.98)
    predicted = np.where(sure, rng.integers(110, 190, numbers.shape), rng.integers(5, 90, numbers.shape))
    bands = np.stack([predicted, np.full_like(predicted, 9), np.full_like(predicted, 9)]).astype(np.uint8)
    bands[:, :10] = 0
    write_tif(folder / "source/images/scene.tif", bands, nodata=0)
    write_tif(folder / "source/masks/scene.tif", numbers[None])
    p = params_for(
        folder / "source",
        scene=True,
        data={"instances": True, "label_values": {0: 0, "others": 1}},
        split={"block": BLOCK, "buffer": 0},
        prepare={"window": 32, "stride": 16},
    )
    ingest(p.data, folder / "ingested")
    return p, PreparedData(prepare(p, folder / "ingested", folder / "prepared")), predicted
