"""What the stages before the report leave behind, made small from any patches: truth perturbed, scores counted."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from segcore.constants import IGNORE

TITLES = {"fcn": "FCN-8s", "unet": "U-Net", "deeplab": "DeepLabV3+"}
SIZES = {"fcn": (1.9e6, 0.61e9, 390, 32), "unet": (6.6e6, 3.4e9, 540, 2), "deeplab": (5.1e6, 1.42e9, 700, 16)}
SKILL = {"fcn": 0.35, "unet": 0.12, "deeplab": 0.18}


@dataclass
class FakePrepared:
    """The interface of segcore.dataset.PreparedData over arrays in memory."""

    regions: pd.DataFrame
    patches: dict[str, Any]
    classes: list[str]

    def read(self, region_id: str) -> Any:
        return self.patches[region_id]


def scene_patches(classes: int = 2, blocks: int = 4, side: int = 48) -> FakePrepared:
    """One synthetic scene divided in blocks x blocks regions, rectangles as objects, one nodata corner."""
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
    """Truth shifted, with objects' edges eaten and blobs added: more so the larger `badness`."""
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
    names = "item cluster class_index class_name tp fp fn ignored pixels boundary_predicted boundary_predicted_matched boundary_true boundary_true_matched"
    return pd.DataFrame(rows, columns=names.split())


def _scores(counts: pd.DataFrame) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    sums = counts.groupby("class_name", sort=False)[["tp", "fp", "fn"]].sum()
    ratios = {
        "iou": sums.tp / (sums.tp + sums.fp + sums.fn),
        "dice": 2 * sums.tp / (2 * sums.tp + sums.fp + sums.fn),
        "precision": sums.tp / (sums.tp + sums.fp),
        "recall": sums.tp / (sums.tp + sums.fn),
    }
    for metric, values in ratios.items():
        values = values.fillna(1.0)
        for aggregate, down in (("dataset", 0.0), ("image", 0.03)):
            named = dict(values) | {"foreground_mean": values.iloc[1:].mean(), "all_mean": values.mean()}
            for name, value in named.items():
                estimate = max(0.0, float(value) - down)
                scores[f"{metric}/{aggregate}/{name}"] = {
                    "estimate": estimate, "low": max(0.0, estimate - 0.035), "high": min(1.0, estimate + 0.03), "seed_std": None,
                }  # fmt: skip
    return scores


def _write_run(
    root: Path, name: str, prepared: FakePrepared, badness: float, first: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    architecture = name.split("-")[0]
    folder = root / "evaluations" / name
    (folder / "predictions").mkdir(parents=True)
    test = prepared.regions[prepared.regions["split"] == "test"]["id"]
    predictions = {
        r: perturbed(prepared.read(r).label, badness * (0.3 + i % 5 / 2.5), i) for i, r in enumerate(test)
    }
    confusion = np.zeros((len(prepared.classes),) * 2, int)
    for region, prediction in predictions.items():
        Image.fromarray(prediction).save(folder / "predictions" / f"{region}.png")
        patch = prepared.read(region)
        scored = patch.valid & (patch.label != IGNORE)
        np.add.at(confusion, (patch.label[scored], prediction[scored]), 1)
    counts = _counts(prepared, predictions)
    counts.to_parquet(folder / "counts.parquet")
    pd.DataFrame(confusion, pd.Index(prepared.classes, name="truth"), prepared.classes).to_csv(
        folder / "confusion.csv"
    )
    confidence = np.linspace(0.525, 0.985, 10)
    calibration = {"confidence": list(confidence), "accuracy": list(confidence - badness * 0.4 * (1 - confidence) * 2),
                   "count": [int(v) for v in np.geomspace(100, 9000, 10)], "ece": badness / 9}  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps(calibration))
    parameters, macs, field, stride = SIZES[architecture]
    summary = {"architecture": architecture, "title": TITLES[architecture], "seed": int(name.split("-")[1]), "parameters": int(parameters),
               "macs": int(macs), "receptive_field": field, "global_context": architecture == "deeplab", "encoder": "mobilenet_v2",
               "weights": "sample", "steps": 200, "best_step": 150, "batch": 8, "output_stride": stride}  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    steps = np.arange(25, 201, 25)
    rise = (0.8 - badness / 2) * (1 - np.exp(-steps / 50)) + 0.01 * np.sin(steps)
    table = {"step": steps, "train_loss": 0.2 + badness + np.exp(-steps / 60), "learning_rate": 1e-3,
             "val_loss": 0.28 + badness + np.exp(-steps / 60), "val_iou": rise, "best": rise >= np.maximum.accumulate(rise)}  # fmt: skip
    (root / "models" / name).mkdir(parents=True)
    pd.DataFrame(table).to_csv(root / "models" / name / "history.csv", index=False)
    if first:
        cost = {"train_seconds": 400 * badness + 200, "train_images_per_second": 6.1, "latency_ms": macs / 4e7, "latency_tile": 512, "latency_batch": 1,
                "ms_per_megapixel": macs / 1e7 + 90, "peak_memory_mb": 800.0, "precision": "fp32", "device": "cpu", "threads": 2}  # fmt: skip
        (root / "work" / "costs").mkdir(parents=True, exist_ok=True)
        (root / "work" / "costs" / f"{name}.json").write_text(json.dumps(cost))
    return _scores(counts), summary


def build_project(root: Path, prepared: FakePrepared, colors: list[list[int]], measured: bool = True) -> None:
    """Write evaluations, models, costs, comparison and dvc.lock under `root` for the three architectures."""
    board = []
    for architecture, badness in SKILL.items():
        scores, summary = _write_run(root, f"{architecture}-0", prepared, badness, measured)
        board.append(
            {
                "architecture": architecture,
                "title": TITLES[architecture],
                "kind": "model",
                "seeds": 1,
                "scores": scores,
                "summary": summary,
            }
        )
    board.sort(key=lambda row: -row["scores"]["iou/dataset/foreground_mean"]["estimate"])
    board = [row | {"rank": i} for i, row in enumerate(board, start=1)]
    human = {k: v | {"estimate": min(1.0, v["estimate"] + 0.02)} for k, v in board[0]["scores"].items()}
    names = [row["architecture"] for row in board]
    best = [row["scores"]["iou/dataset/foreground_mean"]["estimate"] for row in board]
    tests = [
        {"a": names[i], "b": names[j], "difference": best[i] - best[j], "low": best[i] - best[j] - 0.03, "high": best[i] - best[j] + 0.03,
         "p": 0.0004 if j == 2 else 0.21, "p_holm": 0.0012 if j == 2 else 0.21, "significant": j == 2}
        for i, j in ((0, 1), (0, 2), (1, 2))
    ]  # fmt: skip
    comparison = {
        "dataset": "buildings", "metric": "iou", "headline": "iou/dataset/foreground_mean", "classes": prepared.classes, "colors": colors,
        "test_images": int((prepared.regions["split"] == "test").sum()), "clusters": int((prepared.regions["split"] == "test").sum()),
        "cluster_kind": "block", "seeds": [0], "confidence": 0.95, "bootstrap": 2000,
        "empty_policy": "a class absent from truth and prediction scores 1.0",
        "verdict": f"{board[0]['title']} leads with an IoU of {best[0] * 100:.1f} %, but no difference to {board[1]['title']} is shown.",
        "notes": ["One seed only: the spread between trainings is unknown."],
        "leaderboard": [*board, {"architecture": "human", "title": "Second annotator", "kind": "human", "rank": None, "seeds": 0, "scores": human, "summary": None}],
        "tests": tests,
        "differences": {"learning_rate": {"fcn": 0.001, "unet": 0.002, "deeplab": 0.001}},
    }  # fmt: skip
    (root / "comparison").mkdir()
    (root / "comparison" / "comparison.json").write_text(json.dumps(comparison))
    (root / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  prepare:\n    outs:\n    - path: data/prepared\n      md5: 0123abc.dir\n"
    )
