"""Whether an exported model computes what its network computes: differences, score and latency of both."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from segcore.data.prepared import PreparedData
from segcore.evaluation.evaluate import evaluate, fitted
from segcore.evaluation.objects import find_settings
from segcore.export._graph import Source, eager
from segcore.export._runtime import Runner, exported, objects_of
from segcore.inference.device import Precision, autocast, machine_name
from segcore.metrics import METRICS
from segcore.metrics.scores import scores
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.objects.found import Objects
from segcore.params import Evaluate

# sides that are no multiple of a network's stride, smaller than it, and far from square
_SIZES = ((1, 256, 256), (3, 97, 131), (1, 200, 260), (1, 31, 33), (2, 5, 70))
_ROUNDS = 5
# masks of an object that both found are the same but for this share of their pixels, or this number of pixels whose
# probability is near .5
_LEAST_IOU = 0.95
_OTHER_PIXELS = 2


class Pixels(Protocol):
    """What gives raw pixels (N, C, height, width) float32, NaN where there are none."""

    title: str

    def __call__(self, number: int, height: int, width: int) -> np.ndarray:
        """Pixels of images, each other ones."""


class HeldOut:
    """Pixels of test regions, in turn.

    Args:
        data: prepared data.
        regions: rows of the region table.
    """

    title = "regions of the test split"

    def __init__(self, data: PreparedData, regions: pd.DataFrame) -> None:
        self.data, self.regions, self.next = data, list(regions.itertuples()), 0

    def __call__(self, number: int, height: int, width: int) -> np.ndarray:
        """See `Pixels`; images are cut from the middle of regions."""
        images = []
        for _ in range(number):
            region = self.regions[self.next % len(self.regions)]
            self.next += 1
            row = region.row + max(0, (region.height - height) // 2)
            col = region.col + max(0, (region.width - width) // 2)
            patch = self.data.crop(region.item, row, col, height, width)
            pixels = np.moveaxis(patch.image, -1, 0).astype(np.float32)
            images.append(np.where(patch.valid, pixels, np.float32(np.nan)))
        return np.stack(images)


class Noise:
    """Random pixels with the mean and standard deviation of the training images, of bytes if these are of bytes."""

    title = "random pixels"

    def __init__(self, source: Source) -> None:
        self.random = np.random.default_rng(0)
        self.mean, self.std = source.model.mean.numpy(), source.model.std.numpy()
        self.is_of_bytes = source.bundle.description.get("input", {}).get("dtype") == "uint8"

    def __call__(self, number: int, height: int, width: int) -> np.ndarray:
        """See `Pixels`."""
        noise = self.random.standard_normal((number, len(self.mean), height, width), np.float32)
        pixels: np.ndarray = self.mean[:, None, None] + self.std[:, None, None] * noise
        return pixels.round().clip(0, 255) if self.is_of_bytes else pixels


@dataclass
class Differences:
    """How the outputs of two computations differ.

    Attributes:
        largest: difference of a probability or of the score of an object that both found.
        compared: number of pixels; of an instance network, of objects that either found.
        changed: number of pixels whose most probable class differs; of objects that only one found, or whose masks or
            boxes differ.
        unit: "pixels" or "objects".
        least_iou: of the masks of an object that both found; None for pixels.
        inputs: shape of each input, with what is special about it, and its differences.
    """

    largest: float = 0.0
    compared: int = 0
    changed: int = 0
    unit: str = "pixels"
    least_iou: float | None = None
    inputs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of what is compared that differs."""
        return self.changed / max(self.compared, 1)

    def add(self, name: str, of_input: tuple[float, int, int]) -> None:
        """Add what `pixels` or `objects` returned for an input."""
        largest, compared, changed = of_input
        self.largest, self.compared = max(self.largest, largest), self.compared + compared
        self.changed += changed
        self.inputs.append({"input": name, "difference": largest, "changed": changed})

    def pixels(self, expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> tuple[float, int, int]:
        """Compare probabilities, by name; a format may leave out some."""
        largest = max(_difference(expected[key], found[key]) for key in found)
        classes = [values["probabilities"].argmax(axis=1) for values in (expected, found)]
        return largest, classes[0].size, int((classes[0] != classes[1]).sum())

    def objects(self, expected: list[Objects], found: dict[str, np.ndarray]) -> tuple[float, int, int]:
        """Compare the objects of each image with the outputs of a file."""
        self.unit, largest, compared, changed = "objects", 0.0, 0, 0
        if not all(np.isfinite(found[key]).all() for key in ("scores", "boxes")):
            return float("inf"), 0, 0
        for one, other in zip(expected, objects_of(found), strict=True):
            matched = _matched(one, other)
            for i, j, iou, is_same in matched:
                largest = max(largest, abs(float(one.scores[i]) - float(other.scores[j])))
                self.least_iou = min(1.0 if self.least_iou is None else self.least_iou, iou)
                changed += not (is_same and _fits(other, j))
            compared += len(one) + len(other) - len(matched)
            changed += len(one) + len(other) - 2 * len(matched)
        return largest, compared, changed


def _fits(objects: Objects, index: int) -> bool:
    """Whether an object's box has its mask in the first and last row and column."""
    mask = objects.masks[index]
    return mask.size > 0 and all(edge.any() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))


def _matched(one: Objects, other: Objects) -> list[tuple[int, int, float, bool]]:
    """Places of objects of one class with an IoU above .5, most similar first, the IoU, and if masks are the same."""
    pairs = []
    for i, (row, col, height, width) in enumerate(one.boxes.tolist()):
        meets = (
            (other.boxes[:, 0] < row + height)
            & (other.boxes[:, 0] + other.boxes[:, 2] > row)
            & (other.boxes[:, 1] < col + width)
            & (other.boxes[:, 1] + other.boxes[:, 3] > col)
            & (other.classes == one.classes[i])
        )
        for j in np.flatnonzero(meets).tolist():
            both, either = _pixels_of(one, i, other, j)
            if both > 0.5 * either:
                is_same = both >= _LEAST_IOU * either or either - both <= _OTHER_PIXELS
                # of equal masks, as of two classes of score, the ones of similar score
                pairs.append((-both / either, abs(float(one.scores[i] - other.scores[j])), i, j, is_same))
    chosen: list[tuple[int, int, float, bool]] = []
    for negative, _, i, j, is_same in sorted(pairs):
        if all(i != a and j != b for a, b, *_ in chosen):
            chosen.append((i, j, -negative, is_same))
    return chosen


def _pixels_of(one: Objects, i: int, other: Objects, j: int) -> tuple[int, int]:
    """Number of pixels in both of two objects, and in either."""
    planes = []
    for objects, index in ((one, i), (other, j)):
        row, col, height, width = objects.boxes[index]
        plane = np.zeros((objects.height, objects.width), bool)
        plane[row : row + height, col : col + width] = objects.masks[index]
        planes.append(plane)
    return int((planes[0] & planes[1]).sum()), int((planes[0] | planes[1]).sum())


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(expected.astype(np.float64) - found).max(initial=0))


def inputs_of(pixels: Pixels, side: int | None) -> list[tuple[str, np.ndarray]]:
    """Inputs that are compared: of several sizes and numbers of images, with areas without data, and mirrored.

    Args:
        pixels: of the images.
        side: height and width of the file's input; None: any.
    """
    sizes: Sequence[tuple[int, int, int]] = _SIZES if side is None else ((1, side, side), (3, side, side))
    made = []
    for number, height, width in sizes:
        images, name = pixels(number, height, width), f"{number} x {height} x {width}"
        made.append((name, images))
        if height >= 97:
            hole = images.copy()
            hole[..., height // 4 : height // 2, : width // 2] = np.nan
            hole[:, 0, : height // 8] = np.inf
            made.append((f"{name}, parts without data", hole))
            made.append((f"{name}, mirrored", np.ascontiguousarray(images[..., ::-1, ::-1])))
    if side is None:
        made.append(("1 x 64 x 64, all without data", np.full_like(pixels(1, 64, 64), np.nan)))
    return made


def differences(source: Source, run: Runner, inputs: Sequence[tuple[str, np.ndarray]]) -> Differences:
    """Compare an exported file with the network it was made of."""
    result, model = Differences(), source.model
    for name, images in inputs:
        if isinstance(model, InstanceModel):
            # not by the graph, whose form of the network is made for export
            wanted = model.predict(*source.graph.prepared(torch.from_numpy(images)))
            result.add(name, result.objects(wanted, run(images)))
        else:
            result.add(name, result.pixels(eager(source.graph, images), run(images)))
    return result


def loss(metric: str, eager: float, exported: float) -> float:
    """How much worse the score of an exported file is than that of its network; below 0: better."""
    row = METRICS[metric]
    difference: float = row.compared(eager) - row.compared(exported)
    return difference if row.higher_is_better else -difference


def latencies(
    source: Source, run: Runner, images: np.ndarray, precision: Precision, side: int | None
) -> dict[str, Any]:
    """Median milliseconds of predictions by the network and by the exported file, in turn, for the same input.

    Args:
        source: of the network.
        run: the file.
        images: (N, C, H, W) raw pixels.
        precision: that the network predicts in; the file computes in float32, or with its 8-bit weights.
        side: height and width of the file's input; None: any.
    """
    device, given = torch.device("cpu"), source.graph.prepared(torch.from_numpy(images))
    models = {"eager": (source.model, precision), "exported": (exported(source.model, run, side), "fp32")}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_ROUNDS + 1):
        for name, (model, used) in models.items():
            start = time.perf_counter()
            with autocast(device, used):
                model.predict(*given)
            times[name].append((time.perf_counter() - start) * 1000)
    # the first round fills caches
    return {name: float(np.median(values[1:])) for name, values in times.items()} | {
        "precision": precision,
        "threads": torch.get_num_threads(),
        "machine": machine_name(device),
    }


def score(
    model: SegmentationModel,
    data: PreparedData,
    regions: pd.DataFrame,
    settings: Evaluate,
    description: dict[str, Any],
    metric: str,
) -> float:
    """A pooled score of a network on test regions, mean of the foreground classes.

    Args:
        model: the network of a bundle, or an exported file as one.
        data: prepared data.
        regions: rows of the region table.
        settings: tile, overlap, and how objects are found.
        description: model.json.
        metric: a metric of pixels or objects.

    Raises:
        ModelError: an instance network without operating score.
    """
    finding = find_settings(description, settings.objects, data)
    used = fitted(settings, model, description).model_copy(update={"flips": False})
    found = evaluate(model, data, used, "fp32", objects=finding, regions=regions)
    least = finding.score if finding else 0.0
    return scores(found.counts, data.foreground, found.objects, least)[f"{metric}/dataset/foreground_mean"]
