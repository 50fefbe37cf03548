"""Small outputs of the stages before the report: predictions are perturbed labels, scores are counted from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import cycle
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from scipy.ndimage import binary_closing, binary_dilation, shift

from segcore.comparison.compare import Contestant, compare
from segcore.constants import IGNORE
from segcore.evaluation.objects import save_objects
from segcore.objects.components import components
from segcore.objects.found import Objects, from_numbers
from segcore.objects.pairs import pairs
from segcore.params import Params
from segcore.tables.objects import objects_table
from segcore.tables.slices import PREFIX
from tasks.costs import merge_cost

TITLES = {"fcn": "FCN-8s", "unet": "U-Net", "deeplab": "DeepLabV3+"}
INSTANCE_TITLES = {"mask_rcnn": "Mask R-CNN", "solo": "SOLOv2"}
SIZES = {
    "fcn": (1.9e6, 0.61e9, 390, 32),
    "unet": (6.6e6, 3.4e9, 540, 2),
    "deeplab": (5.1e6, 1.42e9, 700, 16),
    "mask_rcnn": (3.1e6, 1.5e9, 640, 32),
    "solo": (2.9e6, 1.2e9, 620, 32),
}
# instance networks, and settings in their model.json
INSTANCE: dict[str, dict[str, Any]] = {
    "mask_rcnn": {
        "encoder": "mobilenet_v2",
        "weights": "imagenet",
        "width": 64,
        "anchors": [16, 32],
        "proposals": 200,
    },
    "solo": {
        "encoder": "mobilenet_v2",
        "weights": "imagenet",
        "width": 64,
        "cells": [8, 16],
        "variant": "v2",
    },
}
# operating score of objects
SCORE = 0.5
SKILL = {"fcn": 0.35, "unet": 0.12, "deeplab": 0.18}
BOTH_KINDS = {"unet": 0.12, "mask_rcnn": 0.18, "solo": 0.35}


@dataclass
class FakePrepared:
    """In-memory stand-in with the interface of segcore.data.prepared.PreparedData."""

    regions: pd.DataFrame
    patches: dict[str, Any]
    classes: list[str]
    baselines: tuple[str, ...] = ("human",)
    # region -> (H, W) uint32 numbers of the true objects; empty for data without objects
    instances: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def colors(self) -> list[list[int]]:
        return [[40 * i, 255 - 40 * i, 120] for i in range(len(self.classes))]

    @property
    def foreground(self) -> list[int]:
        return list(range(1, len(self.classes)))

    @cached_property
    def objects(self) -> pd.DataFrame:
        """Index of the true objects; an item is also a region here."""
        rows = []
        for item, numbers in self.instances.items():
            label = self.patches[item].label
            for number in np.unique(numbers[numbers > 0]):
                inside = numbers == number
                kind, area = int(np.bincount(label[inside]).argmax()), int(inside.sum())
                rows.append((item, item, int(number), kind, area))
        return pd.DataFrame(rows, columns=["item", "region", "id", "class_index", "area"])

    def region(self, region_id: str) -> dict[str, str]:
        return {"item": region_id}

    def read_instances(self, region_id: str) -> np.ndarray:
        return self.instances[region_id]

    def read_baseline(self, name: str, region_id: str) -> np.ndarray:
        return perturbed(self.patches[region_id].label, 0.05, 1)

    def read(self, region_id: str) -> Any:
        return self.patches[region_id]


def scene_patches(
    classes: int = 2, blocks: int = 4, side: int = 48, has_objects: bool = False
) -> FakePrepared:
    """One synthetic scene of blocks x blocks regions with rectangles, numbered if asked for, and a nodata corner."""
    random = np.random.default_rng(0)
    rows, patches, instances = [], {}, {}
    for i in range(blocks * blocks):
        image = random.integers(60, 120, (side, side, 3), dtype=np.uint8)
        label, numbers = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint32)
        for k in range(1 + i % 3):
            top, left = random.integers(2, side - 18, 2)
            label[top : top + 14, left : left + 12] = 1 + k % (classes - 1)
            # with gaps
            numbers[top : top + 14, left : left + 12] = 10 * k + 5
        image[label > 0] += 90
        valid = np.ones((side, side), bool)
        if i == 0:
            valid[:6, :6], label[:6, :6], numbers[:6, :6] = False, IGNORE, 0
        name = f"scene-{i // blocks}-{i % blocks}"
        split = ("train", "train", "validation", "test")[i % 4]
        rows.append(
            (
                name,
                "scene",
                split,
                f"group{i % 4}",
                f"block{i}",
                i // blocks * (side + 4),
                i % blocks * (side + 4),
                side,
                side,
            )
        )
        patches[name] = SimpleNamespace(image=image, label=label, valid=valid)
        if has_objects:
            instances[name] = numbers
    columns = ["id", "item", "split", "group", "cluster", "row", "col", "height", "width"]
    names = ["background", "building", "road", "water"][:classes]
    return FakePrepared(pd.DataFrame(rows, columns=columns), patches, names, instances=instances)


def perturbed(label: np.ndarray, badness: float, seed: int) -> np.ndarray:
    """Labels shifted and overlaid with random squares, the more the larger `badness`."""
    random = np.random.default_rng(seed)
    truth = np.where(label == IGNORE, 0, label)
    shift = max(1, round(badness * 4))
    shown = np.roll(truth, (shift, -shift), (0, 1)) if random.random() < badness * 2 else truth.copy()
    height, width = label.shape
    for _ in range(round(badness * 30)):
        size = max(2, round(badness * height / 8 * random.random() + 2))
        top, left = random.integers(0, height - size), random.integers(0, width - size)
        value = int(truth.max()) if random.random() < 0.3 else 0
        shown[top : top + size, left : left + size] = value
    return shown.astype(np.uint8)


def damaged(numbers: np.ndarray, badness: float, seed: int) -> np.ndarray:
    """Number map with objects dropped, joined, divided, shifted and added, the more the larger `badness`."""
    random = np.random.default_rng(seed)
    shown, new = np.zeros(numbers.shape, np.uint32), 0
    left = [int(n) for n in np.unique(numbers) if n]
    while left:
        inside, fate, new = numbers == left.pop(0), random.random() / badness, new + 1
        around = numbers[binary_dilation(inside, iterations=2)]
        near = [n for n in left if (around == n).any()]
        if fate < 0.2:
            continue
        if fate < 0.9 and near:
            left.remove(near[0])
            shown[binary_closing(inside | (numbers == near[0]), iterations=3)] = new
        elif fate < 1.1:
            middle = int(np.nonzero(inside)[1].mean())
            shown[inside] = new
            shown[:, middle + 1 :][inside[:, middle + 1 :]] = new + 1
            shown[:, middle][inside[:, middle]] = 0
            new += 1
        else:
            step = random.integers(-1, 2, 2) * round(1 + badness * 3)
            shown[shift(inside, step, order=0)] = new
    for _ in range(round(badness * 8)):
        top, start = random.integers(0, numbers.shape[0] - 8), random.integers(0, numbers.shape[1] - 8)
        if not shown[top : top + 7, start : start + 7].any():
            new += 1
            shown[top : top + 7, start : start + 7] = new
    return shown


def _counts(prepared: FakePrepared, predictions: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    clusters = dict(zip(prepared.regions["id"], prepared.regions["cluster"], strict=True))
    for item, prediction in predictions.items():
        patch = prepared.read(item)
        scored = patch.valid & (patch.label != IGNORE)
        for index, name in enumerate(prepared.classes):
            p, t = (prediction == index) & scored, (patch.label == index) & scored
            tp, fp, fn = int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum())
            rows.append(
                (
                    item,
                    clusters[item],
                    index,
                    name,
                    tp,
                    fp,
                    fn,
                    int((~scored).sum()),
                    int(scored.sum()),
                    9,
                    7,
                    9,
                    8,
                )
            )
    names = (
        "item cluster class_index class_name tp fp fn ignored pixels "
        "boundary_predicted boundary_predicted_matched boundary_true boundary_true_matched"
    )
    return pd.DataFrame(rows, columns=names.split())


def _write_predictions(
    folder: Path, prepared: FakePrepared, badness: float, words: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, list[pd.DataFrame]]:
    test = prepared.regions[prepared.regions["split"] == "test"]["id"]
    predictions = {
        region: perturbed(prepared.read(region).label, badness * (0.3 + i % 5 / 2.5), i)
        for i, region in enumerate(test)
    }
    (folder / "predictions").mkdir(parents=True)
    tables, objects = [], []
    if prepared.instances:
        for i, region in enumerate(test):
            found = _objects(prepared, region, badness * (0.3 + i % 5 / 2.5), i)
            tables.append(_object_rows(prepared, region, found))
            save_objects(folder / "predictions" / f"{region}_objects.tif", found, SCORE)
            predictions[region] = np.append(np.uint8(0), found.classes)[found.numbers()]
        objects = [objects_table(tables)]
        objects[0].to_parquet(folder / "objects.parquet", index=False)
    confusion = np.zeros((len(prepared.classes),) * 2, int)
    for region, prediction in predictions.items():
        Image.fromarray(prediction).save(folder / "predictions" / f"{region}.png")
        patch = prepared.read(region)
        scored = patch.valid & (patch.label != IGNORE)
        np.add.at(confusion, (patch.label[scored], prediction[scored]), 1)
    table = pd.DataFrame(confusion, pd.Index(prepared.classes, name="truth"), prepared.classes)
    table.to_csv(folder / "confusion.csv")
    counts = _counts(prepared, predictions)
    for word, texts in words.items():
        turns = dict(zip(predictions, cycle(texts), strict=False))
        counts[PREFIX + word] = counts["item"].map(turns)
    counts.to_parquet(folder / "counts.parquet")
    return counts, objects


def _objects(prepared: FakePrepared, region: str, badness: float, seed: int) -> Objects:
    """Damaged true objects with a score, of which some are below the operating score."""
    numbers, label = prepared.instances[region], prepared.read(region).label
    shown = np.unique(damaged(numbers, badness, seed), return_inverse=True)[1].reshape(label.shape)
    count, random = int(shown.max()), np.random.default_rng(seed)
    classes = [np.bincount(label[(shown == n) & (label != IGNORE)], minlength=2) for n in range(1, count + 1)]
    found = from_numbers(
        shown, np.array([1 + c[1:].argmax() for c in classes], int), random.uniform(0.46, 1, count)
    )
    return pairs(numbers, label, _index(prepared, region), found, 2).predicted


def _object_rows(prepared: FakePrepared, region: str, found: Objects) -> pd.DataFrame:
    label = prepared.read(region).label
    compared = pairs(prepared.instances[region], label, _index(prepared, region), found, 2)
    scored = int((label != IGNORE).sum())
    image = pd.DataFrame({"pixels": [scored], "ignored_pixels": [label.size - scored]})
    frames = {"image": image, "truth": compared.truths, "prediction": compared.predictions}
    frames["pair"] = compared.pairs
    cluster = prepared.regions.set_index("id").loc[region, "cluster"]
    rows = objects_table(frame.assign(kind=kind) for kind, frame in frames.items())
    return rows.assign(item=region, cluster=cluster)


def _index(prepared: FakePrepared, region: str) -> pd.DataFrame:
    return prepared.objects[prepared.objects["item"] == region]


def _title(architecture: str) -> str:
    return (TITLES | INSTANCE_TITLES)[architecture]


def _summary(architecture: str, has_objects: bool = False) -> dict[str, Any]:
    method = "network" if architecture in INSTANCE else "components"
    parameters, macs, field, stride = SIZES[architecture]
    sizes = {
        "parameters": int(parameters),
        "macs": int(macs),
        "receptive_field": field,
        "output_stride": stride,
    }
    names = {"architecture": architecture, "title": _title(architecture), "encoder": "mobilenet_v2"}
    budget = {"seed": 0, "weights": "imagenet", "steps": 200, "best_step": 150, "batch": 8}
    operating = {"score": SCORE, "precision": 0.91, "recall": 0.84, "count_bias": -0.05}
    counts = {name: [[9, 8], [12, 10], [7, 8]] for name in ("building", "road", "water")}
    found = {"method": method, "truth": "given", "counts": counts} | operating
    objects = {"objects": found} if has_objects else {}
    if architecture in INSTANCE:
        counted = {"proposals": 200} if "proposals" in INSTANCE[architecture] else {}
        names |= {"kind": "instance", "macs_with": counted}
    return names | sizes | budget | {"global_context": architecture == "deeplab"} | objects


def _calibration(badness: float) -> dict[str, Any]:
    confidence = np.linspace(0.525, 0.985, 10)
    accuracy = confidence - badness * 0.8 * (1 - confidence)
    counts = [int(v) for v in np.geomspace(100, 9000, 10)]
    return {"confidence": list(confidence), "accuracy": list(accuracy), "count": counts, "ece": badness / 9}


def _history(badness: float, score: str) -> pd.DataFrame:
    steps = np.arange(25, 201, 25)
    iou = (0.8 - badness / 2) * (1 - np.exp(-steps / 50)) + 0.01 * np.sin(steps)
    loss = badness + np.exp(-steps / 60)
    columns = {"step": steps, "train_loss": loss + 0.2, "learning_rate": 1e-3, "val_loss": loss + 0.28}
    return pd.DataFrame(columns | {f"val_{score}": iou, "best": iou >= np.maximum.accumulate(iou)})


def _cost(architecture: str, badness: float) -> dict[str, Any]:
    macs = SIZES[architecture][1]
    speed = {"latency_ms": macs / 4e7, "ms_per_megapixel": macs / 1e7 + 90, "peak_memory_mb": 800.0}
    setting = {"latency_tile": 512, "latency_batch": 1, "precision": "fp32", "device": "cpu", "threads": 2}
    return speed | setting | {"train_seconds": 400 * badness + 200, "train_images_per_second": 6.1}


def _limit(prepared: FakePrepared) -> Contestant:
    """Components of the true masks."""
    test = prepared.regions[prepared.regions["split"] == "test"]["id"]
    labels = {region: np.where((label := prepared.read(region).label) == IGNORE, 0, label) for region in test}
    tables = []
    for region, label in labels.items():
        numbers = components(label, prepared.foreground)
        first = np.unique(numbers, return_index=True)[1][int((numbers == 0).any()) :]
        found = from_numbers(numbers, label.ravel()[first], np.ones(len(first)))
        tables.append(_object_rows(prepared, region, found))
    counts = _counts(prepared, labels)
    title = "Perfect mask, components"
    return Contestant("components-of-truth", title, "limit", [counts], objects=[objects_table(tables)])


def build_project(
    root: Path,
    prepared: FakePrepared,
    params: Params,
    measured: bool = True,
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
    skill: Mapping[str, float] = MappingProxyType(SKILL),
) -> None:
    """Write evaluations, models, costs, comparison and dvc.lock under `root` for three architectures.

    The texts of a word are given to the test regions in turn. `skill` has the architectures and how bad each is.
    """
    contestants = []
    for architecture, badness in skill.items():
        folder = root / "evaluations" / f"{architecture}-0"
        counts, objects = _write_predictions(folder, prepared, badness, words)
        summary = _summary(architecture, bool(objects))
        (folder / "calibration.json").write_text(json.dumps(_calibration(badness)))
        (folder / "summary.json").write_text(json.dumps(summary))
        models = root / "models" / folder.name
        models.mkdir(parents=True)
        history = _history(badness, "pq" if architecture in INSTANCE else "iou")
        history.to_csv(models / "history.csv", index=False)
        description: dict[str, Any] = {"weights_sha256": architecture.ljust(64, "0")}
        if architecture in INSTANCE:
            description |= {"kind": "instance", "settings": INSTANCE[architecture] | {"foreground": [1]}}
        (models / "model.json").write_text(json.dumps(description))
        if measured:
            merge_cost(root, folder.name, _cost(architecture, badness))
        contestants.append(
            Contestant(
                *(architecture, _title(architecture), "model", [counts], [summary], objects),
                histories=[history],
            )
        )
    if prepared.instances:
        contestants.append(_limit(prepared))
    for name in prepared.baselines:
        labels = {item: prepared.read_baseline(name, item) for item in dict.fromkeys(counts["item"])}
        contestants.append(Contestant(name, "Second annotator", "human", [_counts(prepared, labels)]))
    (root / "comparison").mkdir()
    (root / "comparison" / "comparison.json").write_text(
        json.dumps(compare(contestants, params, "block").to_json())
    )
    outs = [{"path": "data/prepared", "md5": "0123abc.dir"}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"prepare": {"outs": outs}}}))
