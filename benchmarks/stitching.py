"""Time and memory of the objects of a scene: `make bench WHAT=stitching`; `OPTIONS=--quick`.

A scene with 300 objects per megapixel, some of which touch, whose class probabilities are given, so that no network
runs.

- time: the outputs objects and counts, from the first block to the last file, compared with the forward passes of the
  demo's U-Net on as many pixels (some windows are timed); in seconds of one core, whatever else runs;
- instances: the objects of windows that an instance network would find, from the first window to the class map,
  compared with its forward passes, likewise;
- memory: peak of the largest scene, compared with the smallest;
- equality: the numbers of the largest scene, compared with the components of the whole class map.

All files are written to a temporary folder. The table shows missed goals; the exit code is 0 in any case.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from torch import Tensor

from benchmarks.data import Line, machine
from benchmarks.predict import FACTS, NETWORKS, OVERLAP, PACKAGES, TILE, make_bundle
from segcore.data.raster import Info
from segcore.inference.device import autocast, choose_precision
from segcore.inference.tiling import tile_starts
from segcore.models.base.bundle import load_bundle
from segcore.models.base.factory import build_model, kind, names
from segcore.models.base.model import SegmentationModel
from segcore.objects.components import components
from segcore.objects.find import FindSettings
from segcore.objects.found import from_numbers
from segcore.objects.stitching import Stitcher
from segcore.objects.windows import Windows
from segcore.params import Predict
from segcore.prediction.instance_store import InstanceStore
from segcore.prediction.mosaic import Block
from segcore.prediction.object_outputs import ObjectOutputs
from segcore.prediction.scene_objects import ObjectStore
from segcore.prediction.scene_writer import SceneWriter
from segcore.prediction.writers.cog import writing

SIDES, QUICK = (2_500, 5_000, 10_000), (600, 1_200)
# side in pixels of the square around an object, and share of objects that fill it
CELL, FULL = 58, 0.1
# side in pixels of the scene and of the windows of instance networks
SCENE, CROP = 4_000, 256
PANEL, ROWS = 32 * CELL, 11 * CELL
WINDOWS, ROUNDS = 8, 3
DESCRIPTION: dict[str, Any] = {
    **FACTS,
    "weights_sha256": "none",
    "objects": {
        "truth": "given",
        "touching": False,
        "components": {"score": 0.3, "counts": {"object": [[9, 10], [21, 20], [14, 15]]}},
        "side": 50,
    },
}
OUTPUTS = {"none": ["classes"], "objects": ["classes", "objects", "counts"]}


def cells(row: int, col: int, height: int, width: int) -> np.ndarray:
    """Class map (height, width) uint8 of a part of the scene that starts at a corner of four cells."""
    offsets = np.arange(CELL) - CELL / 2 + 0.5
    classes = np.zeros((height + CELL, width + CELL), np.uint8)
    for top in range(0, height, CELL):
        for left in range(0, width, CELL):
            rng = np.random.default_rng([row + top, col + left])
            radii = rng.uniform(6, CELL / 2 - 1, 2)
            inside = (offsets[:, None] / radii[0]) ** 2 + (offsets / radii[1]) ** 2 <= 1
            classes[top : top + CELL, left : left + CELL] = inside | (rng.random() < FULL)
    return classes[:height, :width]


def predicted(side: int, outputs: str, folder: Path) -> None:
    """Write the outputs of a scene and print its seconds and peak memory in MB."""
    settings = Predict.model_validate({"outputs": OUTPUTS[outputs]})
    info = Info(side, side, 3, "uint8", "EPSG:32633", (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    seconds, objects = 0.0, None
    if outputs == "objects":
        find = FindSettings.of(DESCRIPTION, "components")
        store = ObjectStore(info, DESCRIPTION, find, folder)
        objects = ObjectOutputs(DESCRIPTION, settings, find, store, None, info, "scene.tif", "scene", folder)
    with SceneWriter(DESCRIPTION, settings, info, "scene", folder, objects) as writer:
        # panels and rows of windows as large as those of a prediction
        for col, row in product(range(0, side, PANEL), range(0, side, ROWS)):
            classes = cells(row, col, min(ROWS, side - row), min(PANEL, side - col)).astype(np.float32)
            scores = torch.from_numpy(np.stack([0.9 - 0.8 * classes, 0.1 + 0.8 * classes]))
            seconds -= time.process_time()
            writer.put(Block(0, row, col, scores, None, 1))
            seconds += time.process_time()
        seconds -= time.process_time()
    # with the small cache of a prediction
    with writing(folder / "scene"):
        writer.finish()
    seconds += time.process_time()
    print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def script(side: int, outputs: str, folder: Path) -> tuple[float, float]:
    """Least seconds of several rounds and the largest peak in MB, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.stitching", "--scene", str(side), outputs, str(folder)]
    found = [
        json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        )
        for _ in range(ROUNDS)
    ]
    return min(seconds for seconds, _ in found), max(peak for _, peak in found)


def forward(folder: Path, side: int) -> float:
    """Seconds of the forward passes of the demo's U-Net on the windows of a scene, from some of them."""
    model = load_bundle(make_bundle(folder, "unet", **NETWORKS["unet"]))
    each = _seconds_per_window(model, TILE, lambda images: model(images).sum().item())
    return each * (side / (TILE - OVERLAP)) ** 2


def _seconds_per_window(model: SegmentationModel, tile: int, run: Callable[[Tensor], object]) -> float:
    """Least seconds of several rounds in which `run` predicts a window of random pixels."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).to(memory_format=torch.channels_last).eval()
    images = torch.randint(0, 255, (1, 3, tile, tile), device=device).float()
    with torch.inference_mode(), autocast(device, choose_precision("auto", device)):
        run(images)
        times = []
        for _ in range(ROUNDS):
            start = time.process_time()
            for _ in range(WINDOWS):
                run(images)
            times.append(time.process_time() - start)
    return min(times) / WINDOWS


def instances(folder: Path, side: int, architecture: str) -> Line:
    """Seconds in which the objects of windows become those of the scene, compared with the forward passes."""
    starts = tile_starts(side, CROP, CELL)
    windows, classes = Windows(side, side, starts, starts, CROP, CROP), cells(0, 0, side, side)
    store, seconds = InstanceStore(Info(side, side, 3, "uint8"), [1], 0, 0.0, folder), 0.0
    stitcher = Stitcher(windows, store.canvas(0).paint)
    for i, j in product(range(len(starts)), repeat=2):
        numbers = components(classes[starts[i] : starts[i] + CROP, starts[j] : starts[j] + CROP], [1])
        count = int(numbers.max())
        found = from_numbers(numbers, np.ones(count), np.full(count, 0.5))
        seconds -= time.process_time()
        stitcher.add(i, j, found)
        seconds += time.process_time()
    seconds -= time.process_time()
    stitcher.finish()
    for _ in store.blocks(0):
        pass
    seconds += time.process_time()
    model = build_model(architecture, 3, 2, foreground=[1], weights="none").eval()
    passes = _seconds_per_window(model, CROP, model.predict) * len(starts) ** 2
    what = f"instances: {len(store.objects(0)):,} objects of {side:,} x {side:,} pixels / passes of {architecture}"
    share = seconds / passes
    return Line(what, f"{seconds:.1f} s", f"{passes:.1f} s", share, "≤ 0.15", share <= 0.15)


def equality(side: int, folder: Path) -> Line:
    """Numbers of the scene that `script` wrote last, compared with the components of the whole."""
    whole = components(cells(0, 0, side, side), [1])
    with rasterio.open(folder / "scene_objects.tif") as file:
        stitched = file.read(1)
    same = bool(np.array_equal(stitched, whole))
    what = f"equality: objects of {side:,} x {side:,} pixels / components of the whole"
    return Line(
        what, f"{stitched.max():,}", f"{whole.max():,}", float(stitched.max() / whole.max()), "same", same
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stitching",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that it runs")
    parser.add_argument("--scene", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.scene:
        side, outputs, place = arguments.scene
        predicted(int(side), outputs, Path(place))
        return
    sides = QUICK if arguments.quick else SIDES
    print(
        *machine(PACKAGES),
        "",
        "| what | segflow | other | ratio | goal | |\n|---|---|---|---|---|---|",
        sep="\n",
    )
    root = Path(tempfile.mkdtemp(prefix="segflow-bench-"))
    try:
        plain = script(sides[-1], "none", root / "out")[0]
        found = {side: script(side, "objects", root / "out") for side in sides}
        passes = forward(root / "unet", sides[-1])
        for architecture in (name for name in names() if kind(name) == "instance"):
            print(instances(root, SCENE if sides is SIDES else sides[-1], architecture).text(), flush=True)
        extra = found[sides[-1]][0] - plain
        what = f"time: objects of {sides[-1]:,} x {sides[-1]:,} pixels / forward passes"
        share = extra / passes
        print(Line(what, f"{extra:.1f} s", f"{passes:.1f} s", share, "≤ 0.15", share <= 0.15).text())
        for side in sides[1:]:
            peaks = found[side][1], found[sides[0]][1]
            ratio = peaks[0] / peaks[1]
            what = f"memory: peak of a scene, side {side:,} pixels / {sides[0]:,}"
            print(Line(what, f"{peaks[0]:.0f} MB", f"{peaks[1]:.0f} MB", ratio, "≤ 1.1", ratio <= 1.1).text())
        print(equality(sides[-1], root / "out").text())
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
