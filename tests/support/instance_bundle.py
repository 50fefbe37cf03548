"""Bundles of instance networks: of a given one, of one that is always right, and of architectures by name."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcore.models.base.bundle import Bundle, save_bundle
from segcore.models.base.instance import InstanceModel, Outputs
from segcore.objects.found import Objects, from_numbers
from tests.support.bundles import FACTS
from tests.support.instance_batches import network
from tests.support.toy_instance import Toy

_COUNTS = {name: [[5, 4], [6, 7], [8, 8]] for name in ("field", "water")}


class Oracle(Toy):
    """Objects of a window are those of the scene clipped to it: band 0 has their numbers, band 1 their classes.

    The score of an object follows from its number.
    """

    def __init__(
        self,
        is_position_dependent: bool = False,
        foreground: tuple[int, ...] = (1, 2),
        score: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        super().__init__(in_channels=2, num_classes=len(foreground) + 1, foreground=foreground)
        self.is_position_dependent = is_position_dependent
        self.score = score or score_of
        self.windows: list[tuple[int, int]] = []

    def heads(self, x: Tensor) -> Outputs:
        return x[:, 0], x[:, 1]

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        found = []
        for image, classes in zip(*outputs, strict=True):
            self.windows.append((height, width))
            part = image[:height, :width].numpy().round().astype(np.int64)
            present, first = np.unique(part, return_index=True)
            new = np.zeros(int(part.max()) + 1, np.uint32)
            new[present] = np.arange(len(present)) + int(present[0] > 0)
            of_object = classes[:height, :width].numpy().ravel()[first][present > 0]
            found.append(from_numbers(new[part], of_object, self.score(present[present > 0])))
        return found


def score_of(numbers: np.ndarray) -> np.ndarray:
    """Score of the oracle's objects, from .3 on."""
    scores: np.ndarray = (0.3 + 0.1 * (numbers % 7)).astype(np.float32)
    return scores


@dataclass(frozen=True)
class ModelBundle(Bundle):
    """A bundle in memory."""

    network: InstanceModel | None = field(default=None, repr=False)

    def model(self, device: torch.device | str = "cpu") -> InstanceModel:
        assert self.network is not None
        return self.network.to(device).eval()


def bundle_of(network: InstanceModel, score: float = 0.0, **facts: Any) -> ModelBundle:
    """A bundle of a network, with operating score and further entries of model.json."""
    chosen = {
        "score": score,
        "f1": 0.9,
        "precision": 0.9,
        "recall": 0.9,
        "count_bias": 0.0,
        "counts": _COUNTS,
    }
    description = {
        **FACTS,
        "kind": "instance",
        "architecture": "toy",
        "in_channels": network.in_channels,
        "weights_sha256": "0" * 64,
        "objects": {"truth": "given", "touching": False, "classes": [1, 2], "network": chosen, "side": 12.0},
        **facts,
    }
    content = json.dumps(description).encode()
    return ModelBundle(Path("toy"), description, content, bytearray(), None, network)  # type: ignore[arg-type]


def make_instance_bundle(folder: Path, case: tuple[str, dict[str, Any]] = ("solo", {}), **facts: Any) -> Path:
    """A bundle of an architecture with random weights that finds objects in `noise`."""
    model = network(case)
    for name, parameter in model.named_parameters():
        # high scores, and in YOLACT masks that are not empty
        if name.endswith(("category.2.bias", "score.bias", "head.outputs.0.bias")):
            parameter.data += 4.0
        if name.endswith(("head.outputs.2.weight", "protonet.last.weight")):
            parameter.data *= 10
    description = bundle_of(model, **facts).description
    own = ("architecture", "in_channels", "weights_sha256", "kind")
    folder.mkdir(parents=True)
    save_bundle(folder, model.eval(), case[0], {k: v for k, v in description.items() if k not in own})
    return folder
