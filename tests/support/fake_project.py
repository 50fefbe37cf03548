"""Small outputs of the stages before the report: predictions are perturbed labels, scores are counted from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from segcore.comparison.compare import Contestant, compare
from segcore.constants import IGNORE
from segcore.params import Params
from segcore.tables.slices import PREFIX
from tasks.costs import merge_cost

TITLES = {"fcn": "FCN-8s", "unet": "U-Net", "deeplab": "DeepLabV3+"}
SIZES = {"fcn": (1.9e6, 0.61e9, 390, 32), "unet": (6.6e6, 3.4e9, 540, 2), "deeplab": (5.1e6, 1.42e9, 700, 16)}
SKILL = {"fcn": 0.35, "unet": 0.12, "deeplab": 0.18}


@dataclass
class FakePrepared:
    """In-memory stand-in with the interface of segcore.data.prepared.PreparedData."""

    regions: pd.DataFrame
    patches: dict[str, Any]
    classes: list[str]
    baselines: tuple[str, ...] = ("human",)

    def read_baseline(self, name: str, region_id: str) -> np.ndarray:
        return perturbed(self.patches[region_id].label, 0.05, 1)

    def read(self, region_id: str) -> Any:
        return self.patches[region_id]


def scene_patches(classes: int = 2, blocks: int = 4, side: int = 48) -> FakePrepared:
    """One synthetic scene of blocks x blocks regions with rectangles as objects and a nodata corner."""
    random = np.random.default_rng(0)
    rows, patches = [], {}
    for i in range(blocks * blocks):
        image = random.integers(60, 120, (side, side, 3), dtype=np.uint8)
        label = np.zeros((side, side), np.uint8)
        for k in range(1 + i % 3):
            top, left = random.integers(2, side - 18, 2)
            label[top : top + 14, left : left + 12] = 1 + k % (classes - 1)
        image[label > 0] += 90
        valid = np.ones((side, side), bool)
        if i == 0:
            valid[:6, :6], label[:6, :6] = False, IGNORE
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
    columns = ["id", "item", "split", "group", "cluster", "row", "col", "height", "width"]
    names = ["background", "building", "road", "water"][:classes]
    return FakePrepared(pd.DataFrame(rows, columns=columns), patches, names)


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
) -> pd.DataFrame:
    test = prepared.regions[prepared.regions["split"] == "test"]["id"]
    predictions = {
        region: perturbed(prepared.read(region).label, badness * (0.3 + i % 5 / 2.5), i)
        for i, region in enumerate(test)
    }
    confusion = np.zeros((len(prepared.classes),) * 2, int)
    (folder / "predictions").mkdir(parents=True)
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
    return counts


def _summary(architecture: str) -> dict[str, Any]:
    parameters, macs, field, stride = SIZES[architecture]
    sizes = {
        "parameters": int(parameters),
        "macs": int(macs),
        "receptive_field": field,
        "output_stride": stride,
    }
    names = {"architecture": architecture, "title": TITLES[architecture], "encoder": "mobilenet_v2"}
    budget = {"seed": 0, "weights": "imagenet", "steps": 200, "best_step": 150, "batch": 8}
    return names | sizes | budget | {"global_context": architecture == "deeplab"}


def _calibration(badness: float) -> dict[str, Any]:
    confidence = np.linspace(0.525, 0.985, 10)
    accuracy = confidence - badness * 0.8 * (1 - confidence)
    counts = [int(v) for v in np.geomspace(100, 9000, 10)]
    return {"confidence": list(confidence), "accuracy": list(accuracy), "count": counts, "ece": badness / 9}


def _history(badness: float) -> pd.DataFrame:
    steps = np.arange(25, 201, 25)
    iou = (0.8 - badness / 2) * (1 - np.exp(-steps / 50)) + 0.01 * np.sin(steps)
    loss = badness + np.exp(-steps / 60)
    columns = {"step": steps, "train_loss": loss + 0.2, "learning_rate": 1e-3, "val_loss": loss + 0.28}
    return pd.DataFrame(columns | {"val_iou": iou, "best": iou >= np.maximum.accumulate(iou)})


def _cost(architecture: str, badness: float) -> dict[str, Any]:
    macs = SIZES[architecture][1]
    speed = {"latency_ms": macs / 4e7, "ms_per_megapixel": macs / 1e7 + 90, "peak_memory_mb": 800.0}
    setting = {"latency_tile": 512, "latency_batch": 1, "precision": "fp32", "device": "cpu", "threads": 2}
    return speed | setting | {"train_seconds": 400 * badness + 200, "train_images_per_second": 6.1}


def build_project(
    root: Path,
    prepared: FakePrepared,
    params: Params,
    measured: bool = True,
    words: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> None:
    """Write evaluations, models, costs, comparison and dvc.lock under `root` for three architectures.

    The texts of a word are given to the test regions in turn.
    """
    contestants = []
    for architecture, badness in SKILL.items():
        folder = root / "evaluations" / f"{architecture}-0"
        counts, summary = _write_predictions(folder, prepared, badness, words), _summary(architecture)
        (folder / "calibration.json").write_text(json.dumps(_calibration(badness)))
        (folder / "summary.json").write_text(json.dumps(summary))
        models = root / "models" / folder.name
        models.mkdir(parents=True)
        _history(badness).to_csv(models / "history.csv", index=False)
        (models / "model.json").write_text(json.dumps({"weights_sha256": architecture.ljust(64, "0")}))
        if measured:
            merge_cost(root, folder.name, _cost(architecture, badness))
        contestants.append(Contestant(architecture, TITLES[architecture], "model", [counts], [summary]))
    for name in prepared.baselines:
        labels = {item: prepared.read_baseline(name, item) for item in dict.fromkeys(counts["item"])}
        contestants.append(Contestant(name, "Second annotator", "human", [_counts(prepared, labels)]))
    (root / "comparison").mkdir()
    (root / "comparison" / "comparison.json").write_text(
        json.dumps(compare(contestants, params, "block").to_json())
    )
    outs = [{"path": "data/prepared", "md5": "0123abc.dir"}]
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"prepare": {"outs": outs}}}))
