"""Bundles of random weights, and scenes for them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from segcore.models.base.bundle import save_bundle
from segcore.models.base.factory import SegmentationModel, build_model
from tests.support.instance_batches import network
from tests.support.tiny import values_for, write_tif

FACTS: dict[str, Any] = {
    "classes": ["background", "field", "water"],
    "colors": [[0, 0, 0], [255, 179, 0], [0, 0, 255]],
    "foreground": [1, 2],
    "tile": 64,
    "parameters": {"precision": "fp32"},
}
# entry `objects` of a bundle, as a training on data with objects makes it
_COUNTS = {name: [[5, 4], [6, 7], [8, 8]] for name in ("field", "water")}
_CHOSEN = {"score": 0.0, "f1": 0.9, "precision": 0.9, "recall": 0.9, "count_bias": 0.0, "counts": _COUNTS}
OBJECTS: dict[str, Any] = {
    "truth": "given",
    "touching": False,
    "classes": [1, 2],
    "components": _CHOSEN,
    "watershed": {**_CHOSEN, "seeds": "probability", "depth": 0.1},
    "side": 12.0,
}
# entries of model.json of an instance network
INSTANCE: dict[str, Any] = {
    "kind": "instance",
    "objects": {
        "truth": "given",
        "touching": False,
        "classes": [1, 2],
        "network": {**_CHOSEN, "score": 0.3},
        "side": 12.0,
    },
}


def make_bundle(
    folder: Path,
    bands: int = 3,
    seed: int = 0,
    touching: bool = False,
    architecture: str = "unet",
    **facts: Any,
) -> Path:
    """A network of random weights that predicts each of its three classes somewhere in `noise`.

    Args:
        folder: new folder.
        bands: of its images.
        seed: of the weights.
        touching: of a U-Net.
        architecture: "unet" or an instance network, whose bundle has an operating score.
        facts: further entries of model.json, or other values.
    """
    if architecture == "unet":
        model = _unet(bands, seed, touching)
    else:
        model, facts = _instance(architecture, bands, seed), {**INSTANCE, **facts}
    folder.mkdir(parents=True)
    save_bundle(folder, model.eval(), architecture, {**FACTS, **facts})
    return folder


def _unet(bands: int, seed: int, touching: bool) -> SegmentationModel:
    torch.manual_seed(seed)
    model = build_model("unet", bands, 3, touching=touching, encoder="plain", width=4)
    model.set_normalization([100.0] * bands, [50.0] * bands)
    _spread(model, model.score, bands)  # type: ignore[arg-type]
    return model


def _instance(architecture: str, bands: int, seed: int) -> SegmentationModel:
    model: Any = network((architecture, {}), seed, bands)
    layers = {
        "mask_rcnn": lambda: model.box_head.score,
        "yolact": lambda: model.head.outputs[0],
        "solo": lambda: model.category[-1],
    }
    _spread(model, layers[architecture](), bands)
    return model  # type: ignore[no-any-return]


@torch.no_grad()
def _spread(model: SegmentationModel, layer: nn.Conv2d | nn.Linear, bands: int) -> None:
    """Give the logits of a layer mean 0 and standard deviation 3 per class, so that every class is predicted."""
    logits: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda *call: logits.append(call[2].transpose(0, 1).flatten(1)))
    model.predict(torch.from_numpy(noise(96, 96, bands).astype(np.float32))[None])
    hook.remove()
    of_class = torch.cat(logits, dim=1)
    assert layer.bias is not None
    layer.bias -= of_class.mean(1)
    factor = 3 / of_class.std(1)
    layer.weight *= factor.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.bias *= factor


def make_project(folder: Path, scenes: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill a folder with params.yaml, a bundle and scenes, and make it the current one, without a tracking server."""
    (folder / "params.yaml").write_text(yaml.safe_dump(values_for("source")))
    make_bundle(folder / "bundle")
    for number in range(scenes):
        write_tif(folder / "scenes" / f"s{number}.tif", noise(70, 90, seed=number))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change model.json as the older format, in which it has no hash of itself."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["format"] = 2
    del description["content_sha256"]
    change(description)
    path.write_text(json.dumps(description))


def noise(height: int, width: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """(bands, H, W) uint8, values 1 to 254, constant in squares of 8 x 8 pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 255, (bands, -(-height // 8), -(-width // 8)), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
