"""Time and memory of scoring objects on one core: `make bench WHAT=objects`; `OPTIONS=--quick`.

30,000 true objects in images of 1,024 pixels are compared with about as many predicted ones:

- table: the object table from number maps, with boundaries;
- scores: every score of that table, of all metrics, aggregates and classes;
- bootstrap: 2,000 draws of AP, which the others do not have;
- pycocotools and faster-coco-eval: their COCOeval of the same objects as run lengths, without a limit of detections.

Each contestant runs in its own process on one core. Times are of the processor, so that other programs do not count;
memory is the peak of the process less that before it scored. The table shows a missed goal; the exit code is 0 in any
case.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.data import machine
from segcore.comparison.cluster_sums import cluster_sums
from segcore.comparison.statistics import bootstrap
from segcore.metrics.scores import scores
from segcore.objects.found import Objects, from_numbers
from segcore.objects.pairs import pairs
from segcore.tables.counts import count, counts_table
from segcore.tables.objects import objects_table

CLASSES = ["background", "object"]
KEY = "ap/dataset/foreground_mean"
# seconds for 30,000 objects
GOAL = 10.0


class Sizes(NamedTuple):
    """Number of images, their side in pixels, and distance of the objects."""

    images: int
    side: int
    step: int


FULL, QUICK = Sizes(30, 1024, 32), Sizes(3, 1024, 32)


class Picture(NamedTuple):
    """True object numbers (H, W), and predicted objects."""

    numbers: np.ndarray
    predicted: Objects


def picture(seed: int, sizes: Sizes) -> Picture:
    """Ellipses on a grid; predicted ones are moved and resized, some are missing, and some are false."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, sizes.side, sizes.side), np.uint32)
    half = sizes.step // 2
    rows, cols = np.mgrid[:half, :half] - half / 2
    number = 0
    for row in range(0, sizes.side, sizes.step):
        for col in range(0, sizes.side, sizes.step):
            number += 1
            radii = rng.uniform(0.25, 0.45, 2) * half
            grown = radii * rng.uniform(0.75, 1.2, 2)
            present = rng.random(2) > (0.05, 0.1)
            for index, (size, moved) in enumerate(
                ((radii, np.zeros(2, int)), (grown, rng.integers(0, 3, 2)))
            ):
                inside = (rows / size[0]) ** 2 + (cols / size[1]) ** 2 <= 1
                top, left = int(row + 4 + moved[0]), int(col + 4 + moved[1])
                maps[index, top : top + half, left : left + half][inside & present[index]] = number
    found = np.unique(maps[1])[1:]
    dense = np.searchsorted(found, maps[1]) + 1
    dense[maps[1] == 0] = 0
    values = rng.random(len(found)).astype(np.float32)
    return Picture(maps[0], from_numbers(dense, np.ones(len(found)), values))


def of_table(pictures: list[Picture]) -> pd.DataFrame:
    """The object table of all pictures."""
    parts = []
    for index, (numbers, predicted) in enumerate(pictures):
        ids, areas = np.unique(numbers[numbers > 0], return_counts=True)
        known = pd.DataFrame({"id": ids.astype(np.int64), "class_index": 1, "area": areas})
        label = (numbers > 0).astype(np.uint8)
        compared = pairs(numbers, label, known, predicted, 2)
        image = pd.DataFrame({"pixels": [label.size]})
        rows = {
            "image": image,
            "truth": compared.truths,
            "prediction": compared.predictions,
            "pair": compared.pairs,
        }
        parts += [
            frame.assign(kind=kind, item=f"{index:03d}", cluster=f"{index:03d}")
            for kind, frame in rows.items()
        ]
    return objects_table(parts)


def ours(pictures: list[Picture], clock: "Clock") -> float:
    """Table, all scores, and the bootstrap of AP."""
    empty = np.zeros((8, 8), np.uint8)
    one = count(empty, empty, 2)
    counts = counts_table([(f"{i:03d}", f"{i:03d}", one) for i in range(len(pictures))], CLASSES)
    with clock.timed("table"):
        table = of_table(pictures)
    with clock.timed("scores"):
        value = scores(counts, [1], table)[KEY]
    with clock.timed("bootstrap"):
        bootstrap([cluster_sums(counts, [1], table)], 2000, keys=[KEY])
    return value


def _coco(pictures: list[Picture], clock: "Clock", name: str) -> float:
    """AP of a COCOeval; run lengths are made before the clock starts."""
    from pycocotools import mask as rle

    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image, (numbers, predicted) in enumerate(pictures, 1):
        ids = np.unique(numbers[numbers > 0])
        true = from_numbers(np.searchsorted(ids, numbers) * (numbers > 0) + (numbers > 0), ids * 0 + 1, ids)
        for objects, rows in ((true, annotations), (predicted, detections)):
            for box, mask, score in zip(objects.boxes, objects.masks, objects.scores, strict=True):
                whole = np.zeros(numbers.shape, np.uint8, order="F")
                whole[box[0] : box[0] + box[2], box[1] : box[1] + box[3]] = mask
                row = {
                    "image_id": image,
                    "category_id": 1,
                    "segmentation": rle.encode(whole),
                    "score": float(score),
                }
                if rows is annotations:
                    row |= {"id": len(rows) + 1, "iscrowd": 0, "area": int(mask.sum())}
                    row |= {"bbox": [int(n) for n in (box[1], box[0], box[3], box[2])]}
                rows.append(row)
    size = {"height": pictures[0].numbers.shape[0], "width": pictures[0].numbers.shape[1]}
    content = {
        "images": [{"id": index + 1, **size} for index in range(len(pictures))],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }
    if name == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        found = truth.loadRes(detections)
        with clock.timed("scores"):
            evaluation = COCOeval(truth, found, "segm")
            evaluation.params.maxDets = [1, 10, 100_000]
            evaluation.evaluate()
            evaluation.accumulate()
    return float(np.mean(np.asarray(evaluation.eval["precision"])[:, :, 0, 0, -1]))


class Clock:
    """Seconds of processor time by name, and the memory in MiB that the timed parts added to the peak."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.megabytes = 0.0

    @contextlib.contextmanager
    def timed(self, name: str) -> Any:
        """Time a part."""
        before, start = _peak(), time.process_time()
        yield
        self.seconds[name] = time.process_time() - start
        self.megabytes += _peak() - before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


CONTESTANTS: dict[str, Callable[[list[Picture], Clock], float]] = {
    "segflow": ours,
    "pycocotools": lambda pictures, clock: _coco(pictures, clock, "pycocotools"),
    "faster-coco-eval": lambda pictures, clock: _coco(pictures, clock, "faster-coco-eval"),
}


def measure(name: str, sizes: Sizes) -> dict[str, Any]:
    """AP, seconds and memory of one contestant, in this process on one core."""
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    pictures = [picture(seed, sizes) for seed in range(sizes.images)]
    clock = Clock()
    value = CONTESTANTS[name](pictures, clock)
    true = sum(len(np.unique(one.numbers)) - 1 for one in pictures)
    return {
        "ap": value,
        "seconds": clock.seconds,
        "megabytes": clock.megabytes,
        "objects": (true, sum(len(one.predicted) for one in pictures)),
    }


def _measured(name: str, quick: bool) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.objects",
        "--contestant",
        name,
        *(["--quick"] if quick else []),
    ]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def table(results: dict[str, dict[str, Any]], quick: bool) -> list[str]:
    """The table in Markdown."""
    mine = results["segflow"]
    true, predicted = mine["objects"]
    lines = [f"{true:,} true and {predicted:,} predicted objects, one core.", ""]
    lines += [
        "| | processor seconds | relative to segflow's scores | peak memory (MiB) | AP |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        for part, seconds in result["seconds"].items():
            title = f"{name}: {part}" if name == "segflow" else f"{name}: AP"
            ratio = seconds / mine["seconds"]["scores"]
            shown = part == "scores"
            memory, value = (f"{result['megabytes']:,.0f}", f"{result['ap']:.9f}") if shown else ("", "")
            lines.append(f"| {title} | {seconds:.2f} | {ratio:.2f} | {memory} | {value} |")
    total = mine["seconds"]["table"] + mine["seconds"]["scores"]
    met = "met" if total <= GOAL else "MISSED"
    goal = "" if quick else f", goal: at most {GOAL:g} s: {met}"
    return [*lines, "", f"Table and scores: {total:.2f} s{goal}."]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the objects")
    parser.add_argument("--contestant", choices=list(CONTESTANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        print(json.dumps(measure(arguments.contestant, QUICK if arguments.quick else FULL)))
        return
    peers = {"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}
    there = [name for name, module in peers.items() if importlib.util.find_spec(module)]
    print("\n".join(machine(["numpy", "pandas", *there])), flush=True)
    results = {name: _measured(name, arguments.quick) for name in ("segflow", *there)}
    print("\n".join(table(results, arguments.quick)))


if __name__ == "__main__":
    main()
