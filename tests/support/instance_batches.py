"""Batches with objects made in code, and instance networks of small width to train on them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcore.constants import IGNORE
from segcore.models.base.factory import build_model, fitted, kind, names
from segcore.models.base.instance import InstanceModel
from segcore.models.base.object_sizes import ObjectSizes
from segcore.objects.found import Objects
from tests.support.toy_instance import Toy

WIDTH = 16
# discs and squares of 8 to 24 pixels
SIZES = ObjectSizes(sides=(8, 12, 16, 20, 24), ratios=(0.9, 1.0, 1.1), most=12, crop=64)
_VARIANTS: dict[str, list[dict[str, Any]]] = {
    "solo": [{}, {"variant": "v1"}],
    "yolact": [{}, {"mask_iou": True}],
}


def cases() -> list[tuple[str, dict[str, Any]]]:
    """(architecture, keywords) of all instance networks and their variants, and the network of the tests."""
    found = [
        (name, keywords)
        for name in names()
        if kind(name) == "instance"
        for keywords in _VARIANTS.get(name, [{}])
    ]
    return [*found, ("toy", {})]


def case_id(case: tuple[str, dict[str, Any]]) -> str:
    """Name of a case in the output of pytest."""
    return "-".join([case[0], *map(str, case[1].values())])


def network(
    case: tuple[str, dict[str, Any]],
    seed: int = 0,
    in_channels: int = 3,
    num_classes: int = 3,
    foreground: tuple[int, ...] = (1, 2),
    sizes: ObjectSizes = SIZES,
    **changes: Any,
) -> InstanceModel:
    """A new network of a case, with raw pixels of 0 to 255 normalised."""
    name, keywords = case
    torch.manual_seed(seed)
    if name == "toy":
        model: Any = Toy(in_channels, num_classes, foreground)
        model.magnify = changes.get("magnify", 1)
    else:
        own = {"encoder": "mobilenet_v2", "weights": "none", "width": WIDTH, **keywords}
        own = fitted(name, {**own, **{k: v for k, v in changes.items() if k != "magnify"}}, sizes)
        magnify = changes.get("magnify", 1)
        model = build_model(name, in_channels, num_classes, magnify, foreground=foreground, **own)
    model.set_normalization([110.0] * in_channels, [60.0] * in_channels)
    return model  # type: ignore[no-any-return]


def scene(
    seed: int, side: int = 64, count: int = 5, bands: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (side, side, bands) uint8 of bright discs (class 1) and squares (class 2), label uint8, instance int64."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[:side, :side]
    label, instance = np.zeros((side, side), np.uint8), np.zeros((side, side), np.int64)
    for number in range(1, count + 1):
        row, col, radius = *rng.integers(0, side, 2), rng.uniform(4, 12)
        shape = int(rng.integers(1, 3))
        distance = np.hypot(rows - row, cols - col)
        if shape == 2:
            distance = np.maximum(abs(rows - row), abs(cols - col)) * 1.1
        # objects may touch, but are not covered
        if not (instance[distance <= radius] > 0).any():
            instance[distance <= radius], label[distance <= radius] = number, shape
    level = rng.uniform(90, 130, count + 1)
    # squares are brighter, so that a network learns the classes in few steps
    bright = (level[instance] + 60 * (label == 2)) * (instance > 0)
    grey = rng.normal(60, 12, (side, side, bands)) + bright[..., None]
    return grey.clip(0, 255).astype(np.uint8), label, instance


def stacked(scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
    """Scenes of one size as a training batch."""
    image = torch.stack([torch.from_numpy(i.astype(np.float32)).permute(2, 0, 1) for i, _, _ in scenes])
    label = torch.stack([torch.from_numpy(label.astype(np.int64)) for _, label, _ in scenes])
    instance = torch.stack([torch.from_numpy(numbers) for _, _, numbers in scenes])
    return {
        "image": image,
        "valid": torch.ones_like(label, dtype=torch.bool),
        "label": label,
        "instance": instance,
    }


def crowd(seed: int, count: int, side: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene of up to `count` objects of 1 to 9 pixels, with pixels of no data and of no label."""
    rng = np.random.default_rng(seed)
    label, instance = np.zeros((side, side), np.uint8), np.zeros((side, side), np.int64)
    for number in range(1, count + 1):
        (row, col), (tall, wide) = rng.integers(0, side, 2), rng.integers(1, 4, 2)
        place = (slice(row, row + tall), slice(col, col + wide))
        instance[place], label[place] = number, rng.integers(1, 3)
    unlabelled = rng.random(label.shape) < 0.02
    label[unlabelled], instance[unlabelled] = IGNORE, 0
    grey = rng.normal(60, 12, (side, side, 3)) + 100 * (instance > 0)[..., None]
    return grey.clip(0, 255).astype(np.uint8), label, instance


def whole(seed: int, side: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene that is one object."""
    image, label, instance = scene(seed, side, 0)
    return image, np.ones_like(label), np.ones_like(instance)


def mixed(seed: int, side: int = 64, images: int = 2) -> dict[str, Tensor]:
    """A random batch: scenes of no object, of one pixel, of the whole image, of 400 objects, of some, or ignored."""
    rng, scenes = np.random.default_rng(seed), []
    for content in rng.integers(0, 6, images):
        one = int(rng.integers(2**31))
        if content == 0:
            scenes.append(scene(one, side, 0))
        elif content == 1:
            image, label, instance = scene(one, side, 0)
            row, col = rng.integers(0, side, 2)
            label[row, col], instance[row, col] = 1, 7
            scenes.append((image, label, instance))
        elif content == 2:
            scenes.append(whole(one, side))
        elif content == 3:
            scenes.append(crowd(one, 400, side))
        elif content == 4:
            scenes.append(scene(one, side, 6))
        else:
            image, label, instance = scene(one, side, 4)
            scenes.append((image, np.full_like(label, IGNORE), instance))
    return stacked(scenes)


def quality(found: list[Objects], scenes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """PQ of both classes together at the best score of the grid."""
    from segcore.training.validate_objects import best_quality

    rows, true = [], 0
    for objects, (_, label, instance) in zip(found, scenes, strict=True):
        numbers = np.unique(instance[instance > 0])
        true += len(numbers)
        places = objects.numbers()
        for place in range(len(objects)):
            inside, best = places == place + 1, 0.0
            for number in np.unique(instance[inside & (instance > 0)]):
                other = instance == number
                if label[other][0] == objects.classes[place]:
                    best = max(best, float((inside & other).sum() / (inside | other).sum()))
            if inside.any():
                rows.append((objects.scores[place], best > 0.5, best if best > 0.5 else 0))
    return best_quality(np.array(rows, np.float64).reshape(-1, 3), true)


def trained(
    model: InstanceModel,
    steps: int,
    side: int = 64,
    batch: int = 8,
    rate: float = 2e-3,
    scenes: int | None = None,
) -> InstanceModel:
    """The network after some steps on discs and squares, with a one-cycle learning rate, in evaluation mode.

    Args:
        model: changed.
        steps: number of steps.
        side: of the scenes in pixels.
        batch: scenes of a step, of which the first is empty.
        rate: highest learning rate.
        scenes: number of different scenes; None: each step has new ones.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    model.train()
    for step in range(steps):
        seeds = range(step * batch, (step + 1) * batch)
        seen = [
            scene(seed % (scenes or len(seeds) * steps), side, 5 if seed % batch else 0) for seed in seeds
        ]
        optimizer.zero_grad(set_to_none=True)
        model.loss(stacked(seen))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def able(model: InstanceModel) -> InstanceModel:
    """The untrained network, changed so that it finds objects; in evaluation mode.

    Classes begin with a low probability (focal loss), which is raised, and batch norm with statistics of no image.
    """
    for parameter in model.parameters():
        parameter[parameter < -4] = 0
    model.train()
    for seed in range(20):
        model(stacked([scene(seed), scene(seed + 1000)])["image"])
    return model.eval()
