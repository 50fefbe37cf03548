"""Images per second of a training, compared with other loops: `make bench WHAT=training`; `OPTIONS=--quick`.

Every contestant trains the same network on the same scenes, with the same batches, crops and precision, in a separate
process (described in benchmarks/_trainers.py, for Mask R-CNN in benchmarks/_object_trainers.py). They run in turn; the
first steps are not timed; figures are medians over rounds. Memory is the peak of a contestant's processes, with shared
pages counted once. On a CPU, steps beside two busy processes are compared with quiet ones (benchmarks/_busy.py;
`OPTIONS="--only busy"`).

All files are written to a temporary folder. The table shows missed goals; the exit code is 0 in any case.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from benchmarks import _busy, _houses, _object_trainers, _pictures, _steps, _trainers
from benchmarks._networks import INSTANCE, NETWORKS
from benchmarks._trainers import Job
from benchmarks.data import machine

PACKAGES = ("torch", "torchvision", "lightning", "segmentation-models-pytorch", "albumentations", "torchgeo")
TITLES = {
    "ours": "(a) segflow",
    "lightning": "(b) Lightning, PNG tiles, albumentations",
    "torchvision": "(c) torchvision's reference loop, PNG tiles, transforms.v2",
    "torchgeo": "(d) TorchGeo's task, sampler and GeoTIFFs",
    "limit": "(e) limit: one resident batch",
}
OBJECT_TITLES = {
    "ours": "(a) segflow",
    "torchvision": "(c) torchvision's reference loop and network, PNG tiles, transforms.v2",
    "torchgeo": "(d) TorchGeo's task, torchvision's network, PNG tiles",
    "stock": "(s) torchvision's loop and network as they are: 800 pixels, width 256, batches of 2",
}
CONTESTANTS = tuple(dict.fromkeys((*_trainers.CONTESTANTS, *_object_trainers.CONTESTANTS)))
TILE = 512
# fraction of the limit to reach, and relative difference between repeated measurements of one loop
LIMIT, NOISE = 0.95, 0.05


class Sizes(NamedTuple):
    """Number and side of the scenes, rounds, timed steps, and steps before them."""

    scenes: tuple[int, int]
    rounds: int
    steps: int
    warmup: int


FULL = Sizes((12, 2048), 3, 16, 4)
QUICK = Sizes((4, 1024), 1, 4, 2)
GPU = Sizes((12, 2048), 3, 200, 40)


def make_data(root: Path, count: int, side: int, objects: bool = False) -> dict[str, str]:
    """Make GeoTIFFs, the prepared data, and PNG tiles of the same pixels, numbered objects or not; their paths."""
    if objects:
        scenes = _houses.write_pairs(root / "scenes", count, side)
    else:
        scenes = _pictures.write_pairs(root / "scenes", range(count), side, tiled=True)
    work = root / "work"
    _steps.write_params(work, scenes, objects=objects)
    for step in _steps.STEPS:
        _steps.run(step, work)
    png = _pictures.write_pngs(scenes, root / "png", TILE)
    return {"prepared": str(work / "data" / "prepared"), "png": str(png), "scenes": str(scenes)}


def measure(
    name: str, job: Job, environment: Mapping[str, str] | None = None, module: str | None = None
) -> dict[str, Any]:
    """Figures of one contestant in a separate process, with peak memory in MB.

    Args:
        name: of the contestant.
        job: its network, data and length.
        environment: of the process; None: of `_busy.environment_of`.
        module: that trains; None: by the kind of the network.

    Raises:
        RuntimeError: it failed; the message ends with its output.
    """
    kind = "_object_trainers" if job.network in INSTANCE else "_trainers"
    command = [sys.executable, "-m", module or f"benchmarks.{kind}", name, json.dumps(job._asdict())]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_steps.ROOT,
            env=environment or _busy.environment_of(name),
        )
        peak, stop = [0], threading.Event()

        def sample() -> None:
            while not stop.wait(0.5):
                try:
                    peak[0] = max(peak[0], _steps.memory_of(psutil.Process(process.pid)))
                except psutil.NoSuchProcess:
                    return

        watcher = threading.Thread(target=sample)
        watcher.start()
        output, _ = process.communicate()
        stop.set()
        watcher.join()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{name} failed:\n{errors.read()[-3000:]}")
    return {**json.loads(output.splitlines()[-1]), "memory_mb": peak[0] / 1e6}


def rounds(job: Job, names: list[str], count: int) -> dict[str, list[dict[str, Any]]]:
    """Figures of each contestant, measured in turn."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for number in range(count):
        for name in names:
            figures[name].append(measure(name, job))
            rate = figures[name][-1]["rate"]
            print(
                f"round {number + 1}, {job.network}, {name}: {rate:.1f} images per second",
                file=sys.stderr,
                flush=True,
            )
    return figures


def _step(job: Job, environment: Mapping[str, str]) -> float:
    """Seconds of a step of segflow's training."""
    return job.batch / float(measure("ours", job, environment)["rate"])


def _verdict(ratio: float, goal: float) -> str:
    return f"≥ {goal:g} | " + ("met" if ratio >= goal else "GOAL MISSED")


def _limit_verdict(ratios: list[float]) -> str:
    """No training is faster than its steps: a ratio well above 1 means that the measurement was disturbed."""
    if max(ratios) > 1 + NOISE:
        return f"≥ {LIMIT:g} | disturbed: {', '.join(f'{ratio:.2f}' for ratio in ratios)} in turn"
    return _verdict(statistics.median(ratios), LIMIT)


def contestants(network: str) -> list[str]:
    """Loops that train a network."""
    return list((_object_trainers if network in INSTANCE else _trainers).CONTESTANTS)


def _size(network: str, figures: dict[str, list[dict[str, Any]]]) -> str:
    """What was trained, in one line.

    Raises:
        RuntimeError: the contestants did not train the same network, where they should.
    """
    first = {name: runs[0] for name, runs in figures.items()}
    run = first["ours"]
    if len({one["precision"] for one in first.values()}) > 1:
        raise RuntimeError(
            f"not the same precision: { {name: one['precision'] for name, one in first.items()} }"
        )
    if network in INSTANCE:
        sizes = ", ".join(f"{name} {one['parameters']:.2f}" for name, one in first.items())
        return f"million parameters: {sizes}; {run['precision']}, {run['threads']} threads"
    if len({json.dumps(one["size"]) for one in first.values()}) > 1:
        raise RuntimeError(f"not the same network: { {name: one['size'] for name, one in first.items()} }")
    millions, flops = run["size"]
    return (
        f"{millions:.2f} million parameters, {flops:.2f} GFLOPs per crop, {run['precision']}, "
        f"{run['threads']} threads"
    )


def table(network: str, figures: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One row per contestant, with our ratio to it and the goal.

    Raises:
        RuntimeError: the contestants did not train the same network.
    """
    size, of_objects = _size(network, figures), network in INSTANCE
    titles = OBJECT_TITLES if of_objects else TITLES
    rates = {name: statistics.median(run["rate"] for run in runs) for name, runs in figures.items()}
    fastest = max((rate for name, rate in rates.items() if name not in ("ours", "limit")), default=0.0)
    fastest = rates.get("torchvision", fastest) if of_objects else fastest
    gpu, lines = torch.cuda.is_available(), []
    for name, runs in figures.items():
        # of measurements that follow each other, so that other load affects both
        ratios = [ours["rate"] / other["rate"] for ours, other in zip(figures["ours"], runs, strict=True)]
        ratio, goal = statistics.median(ratios), " | "
        if name == "limit":
            goal = _limit_verdict(ratios)
        elif rates[name] == fastest:
            goal = _verdict(ratio, 2 if gpu else 1.5 if of_objects else 1.3)
        spread = f"{min(r['rate'] for r in runs):.1f} to {max(r['rate'] for r in runs):.1f}"
        memory = f"{max(r['memory_mb'] for r in runs):,.0f} MB"
        memory += f", {max(r['device_mb'] for r in runs):,.0f} MB on the device" if gpu else ""
        lines.append(
            f"| {network}: {titles[name]} | {rates[name]:.1f} ({spread}) | {ratio:.2f} | {goal} | {memory} |"
        )
    return [*lines, f"| {network}: {size} | | | | | |"]


def _lines(
    network: str, names: list[str], sizes: Sizes, folder: Path, arguments: argparse.Namespace
) -> list[str]:
    """Rows of one network."""
    data = make_data(folder, *sizes.scenes, objects=network in INSTANCE)
    steps, workers = arguments.steps or sizes.steps, arguments.workers or len(os.sched_getaffinity(0))
    job = Job(
        network, arguments.batch, 256, sizes.warmup, steps, workers, **data, processor=arguments.processor
    )
    count, lines = arguments.rounds or sizes.rounds, []
    chosen = [name for name in contestants(network) if name in names]
    if chosen:
        chosen = ["ours", *(name for name in chosen if name != "ours")]
        lines = table(network, rounds(job, chosen, count))
    if "busy" in arguments.only and network not in INSTANCE and not torch.cuda.is_available():
        lines += _busy.table(partial(_step, job), count)
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few steps, only to check that it runs")
    parser.add_argument("--networks", nargs="+", default=["unet", "mask_rcnn"], choices=NETWORKS)
    everything = [*CONTESTANTS, "busy"]
    parser.add_argument("--only", nargs="+", default=everything, choices=everything)
    parser.add_argument("--rounds", type=int, help="rounds of measurements")
    parser.add_argument("--steps", type=int, help="timed steps per measurement")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--processor", action="store_true", help="time of the processor, for a machine that others use too"
    )
    parser.add_argument("--workers", type=int, help="processes of the DataLoaders; default: one per core")
    parser.add_argument("--folder", type=Path, help="parent of the temporary folder (2 GB needed)")
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    sizes = QUICK if arguments.quick else GPU if gpu else FULL
    names = [name for name in CONTESTANTS if name in arguments.only]
    device = torch.cuda.get_device_name() if gpu else "CPU"
    # busy steps need nothing to compare with
    packages = PACKAGES if names else PACKAGES[:1]
    print(
        "\n".join(machine(packages)), f"Networks run on: {device}; batches of {arguments.batch}", "", sep="\n"
    )
    print(
        "| what | images per second | segflow / it | goal | | peak memory |\n|---|---|---|---|---|---|",
        flush=True,
    )
    root = Path(tempfile.mkdtemp(prefix="segflow-bench-", dir=arguments.folder))
    try:
        for network in arguments.networks:
            print(*_lines(network, names, sizes, root / network, arguments), sep="\n", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
