"""Speed and memory of prediction, compared with the network alone and a plain script: `make bench WHAT=predict`.

- forward: megapixels per second of the whole prediction (read, windows, blending, COG), compared with the forward
  passes of the same windows on tensors in memory;
- plain: the same, compared with a script that reads all, loops and stitches, with equal network, windows and blending;
- memory: peak for a scene with a side of 40,000 pixels, compared with 2,000;
- limit: the large scene under a memory limit that the plain script exceeds;
- objects: a detector that is always right, on windows of a scene: what merging its objects gets wrong and how long it
  takes, compared with SAHI (benchmarks/_sliced.py).

The scenes of `memory` and `limit` have pixels along their diagonal and nodata elsewhere: all pixels are read, blended
and written as usual, but windows without data are not predicted, so that it takes minutes instead of hours.

All files are written to a temporary folder. The table shows missed goals; the exit code is 0 in any case.
"""

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
import torch
from rasterio.windows import Window

from benchmarks import _pictures, _plain, _sliced
from benchmarks.data import Line, machine
from segcore.inference.device import autocast
from segcore.models.base.bundle import save_bundle
from segcore.models.base.factory import build_model
from segcore.params import Predict
from segcore.prediction.grid import Grid
from segcore.prediction.predictor import Predictor

# as in params.yaml
TILE, OVERLAP = 704, 64
FACTS = {
    "classes": ["ground", "object"],
    "colors": [[0, 0, 0], [255, 179, 0]],
    "foreground": [1],
    "parameters": {"precision": "auto"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "fcn": {"variant": "8s"},
    "unet": {"decoder_channels": [96, 64, 48, 32], "upsampling": "nearest"},
    "deeplab": {},
}
PACKAGES = ("numpy", "rasterio", "torch", "torchvision")
# side in pixels
CELL = 512


class Sizes(NamedTuple):
    """Sides of scenes: for speed, two for memory, and of objects; and the memory limit in bytes."""

    timed: int
    memory: tuple[int, int]
    objects: int
    limit: int


FULL = Sizes(4_000, (2_000, 40_000), 4_000, 4 * 10**9)
QUICK = Sizes(1_500, (1_000, 4_000), 1_200, 10**9)


def make_bundle(folder: Path, architecture: str, **keywords: Any) -> Path:
    """Write a bundle with random weights."""
    torch.manual_seed(0)
    folder.mkdir()
    model = build_model(architecture, 3, 2, **keywords).eval()
    model.set_normalization([128.0] * 3, [60.0] * 3)
    save_bundle(folder, model, architecture, FACTS)
    return folder


def scene_of(root: Path, side: int) -> Path:
    """A tiled, deflated GeoTIFF with 3 bands of 8 bits."""
    _pictures.write_pair(root / f"scene{side}", 0, side, tiled=True)
    return root / f"scene{side}" / "images" / "p00000.tif"


def diagonal(root: Path, side: int) -> Path:
    """A tiled scene with 3 bands of 8 bits: nodata 0 except in every fourth cell of its diagonal."""
    path = root / f"diagonal{side}.tif"
    profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "nodata": 0}
    profile |= {
        "tiled": True,
        "blockxsize": CELL,
        "blockysize": CELL,
        "compress": "deflate",
        "sparse_ok": True,
    }
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 300_000, 0, -0.5, 6_000_000)}
    pixels = np.random.default_rng(0).integers(1, 255, (3, CELL, CELL), dtype=np.uint8)
    with rasterio.open(path, "w", **profile) as file:
        for at in range(0, side - CELL, 4 * CELL):
            file.write(pixels, window=Window(at, at, CELL, CELL))
    return path


def forward(bundle: Path, side: int) -> float:
    """Seconds of the forward passes of a scene's windows on tensors in memory, after warm-up, synchronised."""
    predictor = Predictor(bundle, Predict(tile=TILE, overlap=OVERLAP))
    model, grid = predictor.model, Grid(side, side, TILE, OVERLAP, side)
    device = next(model.parameters()).device
    batch = 1 if device.type == "cpu" else 8
    images = torch.rand(batch, 3, grid.tall, grid.wide, device=device) * 255
    with torch.inference_mode(), autocast(device, predictor.precision):
        model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        for _ in range(-(-len(grid) // batch)):
            model(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - start


def script(mode: str, bundle: Path, scene: Path, output: Path, limit: int = 0) -> tuple[float, float] | None:
    """Seconds and peak memory in MB of a prediction in a separate process; None if it ran out of memory."""
    command = [sys.executable, "-m", "benchmarks._plain", mode, bundle, scene, output, TILE, OVERLAP, limit]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    shutil.rmtree(output, ignore_errors=True)
    if done.returncode == 0:
        seconds, peak = map(float, done.stdout.split())
        return seconds, peak
    if "MemoryError" in done.stderr or "allocate" in done.stderr:
        return None
    raise RuntimeError(f"{mode} failed:\n{done.stderr[-3000:]}")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(root: Path, side: int, architecture: str, rounds: int) -> list[Line]:
    """Lines `forward` and `plain` of one network; each figure is the best of several rounds, run in turn."""
    bundle = make_bundle(root / architecture, architecture, **NETWORKS[architecture])
    scene, out, millions = scene_of(root, side), root / "out", side**2 / 1e6
    predictor = Predictor(bundle, Predict(tile=TILE, overlap=OVERLAP))
    out.mkdir(exist_ok=True)
    timed = [
        (
            forward(bundle, side),
            _seconds(lambda: predictor.predict_file(scene, out, "segflow")),
            _seconds(lambda: _plain.plain(bundle, scene, out / "plain.tif", TILE, OVERLAP)),
        )
        for _ in range(rounds)
    ]
    alone, ours, plain = (millions / min(times) for times in zip(*timed, strict=True))
    what = f"{architecture}, side {side:,} pixels, megapixels per second"
    per_forward, per_plain = ours / alone, ours / plain
    return [
        Line(f"{what} / forward only", f"{ours:.2f}", f"{alone:.2f}", per_forward, "≥ 0.9", per_forward >= 0.9),
        Line(f"{what} / plain script", f"{ours:.2f}", f"{plain:.2f}", per_plain, "≥ 1.5", per_plain >= 1.5),
    ]  # fmt: skip


def memory(root: Path, sides: tuple[int, int], limit: int) -> list[Line]:
    """Peak memory of a small and a large scene, and the plain script on the large one under a memory limit."""
    bundle = make_bundle(root / "memory", "unet", **NETWORKS["unet"])
    small = script("segflow", bundle, scene_of(root, sides[0]), root / "out", limit)
    scene = diagonal(root, sides[1])
    plain = script("plain", bundle, scene, root / "out", limit)
    large = script("segflow", bundle, scene, root / "out", limit)
    assert small is not None and large is not None
    ratio = large[1] / small[1]
    peak = f"memory: peak of a scene, side {sides[1]:,} pixels / {sides[0]:,}"
    plain_result = "out of memory" if plain is None else f"{plain[0]:.0f} s, {plain[1]:,.0f} MB"
    return [
        Line(peak, f"{large[1]:.0f} MB", f"{small[1]:.0f} MB", ratio, "≤ 1.1", ratio <= 1.1),
        Line(
            f"limit of {limit / 1e9:.0f} GB: side {sides[1]:,} pixels / plain script",
            f"{large[0]:.0f} s, {large[1]:,.0f} MB",
            plain_result,
            (plain[0] if plain else float("inf")) / large[0],
            "plain script fails",
            plain is None,
        ),
    ]


def _parts(root: Path, sizes: Sizes, arguments: argparse.Namespace) -> Iterator[list[Line]]:
    """Lines of the chosen parts, as they are measured."""
    if arguments.only in (None, "speed"):
        for architecture in arguments.networks:
            yield speed(root, sizes.timed, architecture, arguments.rounds)
    if arguments.only in (None, "memory"):
        yield memory(root, sizes.memory, sizes.limit)
    if arguments.only in (None, "objects") and importlib.util.find_spec("sahi"):
        yield _sliced.merging(sizes.objects)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.predict",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, only to check that it runs")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (12 GB needed)")
    parser.add_argument("--only", choices=("speed", "memory", "objects"), help="one part")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=3, help="more on a busy machine (default: 3)")
    parser.add_argument("--side", type=int, help="of the scene for speed, in pixels")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else FULL
    sizes = sizes._replace(timed=arguments.side or sizes.timed)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    peers = ["sahi"] if importlib.util.find_spec("sahi") else []
    print(
        "\n".join(machine([*PACKAGES, *peers])),
        f"Networks run on: {device}; windows of {TILE} pixels, overlap {OVERLAP}",
        "",
        sep="\n",
    )
    print("| what | segflow | other | ratio | goal | |\n|---|---|---|---|---|---|", flush=True)
    root = Path(tempfile.mkdtemp(prefix="segflow-bench-", dir=arguments.folder))
    try:
        for lines in _parts(root, sizes, arguments):
            print(*(line.text() for line in lines), sep="\n", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    if not peers and arguments.only in (None, "objects"):
        print("SAHI is not installed here: `make bench WHAT=predict` installs it.", file=sys.stderr)


if __name__ == "__main__":
    main()
