"""The data steps as commands in a separate folder: their time, and the memory of all their processes."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

ROOT = Path(__file__).parents[1]
STEPS = ("ingest", "prepare")


class Run(NamedTuple):
    """Seconds from start to end of a command, and peak memory of its processes in MB."""

    seconds: float
    peak: float


def write_params(folder: Path, source: Path, block: int | None = None, objects: bool = False) -> None:
    """Write params.yaml of a comparison on the images of `write_pairs`; with `objects`, masks number them."""
    labels = {"0": "ground", "others": "object"} if objects else {0: "ground", 1: "object"}
    values: dict[str, Any] = {
        "architectures": ["fcn"],
        "seeds": [0],
        "data": {
            "name": "bench",
            "source": str(source),
            "images": "images/*.tif",
            "masks": "masks/{stem}.tif",
            "classes": ["ground", "object"],
            "background": "ground",
            "colors": [[0, 0, 0], [255, 179, 0]],
            "label_values": labels,
            "instances": objects,
        },
        "split": {"fractions": {"train": 0.6, "validation": 0.1, "test": 0.3}, "block": block},
        "prepare": {"window": 320, "stride": 64},
        "train": {"common": {"steps": 1, "batch": 8, "crop": 256, "validate_every": 1}},
        # without settings that only a plan decides
        "evaluate": {"tile": 704, "overlap": 64},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))


def memory_of(process: psutil.Process) -> int:
    """Memory of a process and its children in bytes; shared pages are counted once (PSS)."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            info = one.memory_full_info()
            total += getattr(info, "pss", info.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def run(step: str, folder: Path, watch: bool = False) -> Run:
    """Run `python -m tasks <step>` in `folder`.

    Args:
        step: one of STEPS.
        folder: of the project.
        watch: also sample memory, 50 times per second; it slows the command a little.

    Raises:
        RuntimeError: the command failed.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    peak, stop = [0], threading.Event()
    with (folder / f"{step}.log").open("w") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks", step], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )

        def sample() -> None:
            root = psutil.Process(process.pid)
            while not stop.wait(0.02):
                try:
                    peak[0] = max(peak[0], memory_of(root))
                except psutil.NoSuchProcess:
                    return

        watcher = threading.Thread(target=sample)
        if watch:
            watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        stop.set()
        if watch:
            watcher.join()
    if status:
        raise RuntimeError(f"tasks {step} failed:\n{(folder / f'{step}.log').read_text()[-3000:]}")
    return Run(seconds, peak[0] / 1e6)


def plain_read(source: Path) -> float:
    """Seconds to read all images and masks with rasterio, one after the other, in this process."""
    import rasterio

    start = time.perf_counter()
    for path in sorted(source.glob("*/*.tif")):
        with rasterio.open(path) as opened:
            opened.read()
    return time.perf_counter() - start
