"""Proof of the CUDA path, on one GPU in at most 8 minutes: `make bench-gpu`.

- agreement: loss, gradients and predictions of every network on the device, compared with the CPU;
- resume: the grade of determinism, and a training that is killed and resumed;
- held: batches of data held on the device, compared with those of the loader;
- micro_batch: its trial, with 8 GiB of memory;
- speed: images per second in bf16, beside torchvision's loop and Lightning (where installed), and peak memory.

Each part runs in its own process (benchmarks/_device.py) with a limit of time. One that fails or takes too long is in
the table and does not stop the others; the exit code is then 1. Results are written to `--output` as results.json and
results.md. Without a GPU, everything runs on the CPU at small sizes, which says nothing about CUDA.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import _device, _steps, training
from benchmarks.data import machine
from segcore.inference.device import default_device, machine_name
from segcore.models.base.factory import names

# seconds of each part
BUDGETS = {"agreement": 75, "resume": 100, "held": 30, "micro_batch": 75, "speed": 170}
# factor on a CPU
SLOWER = 6
PACKAGES = ("torch", "torchvision", "lightning", "albumentations")
# scenes and their side
GPU_SCENES, CPU_SCENES = (6, 2048), (4, 512)
GPU_SIZES = {"batch": 4, "crop": 128, "learned": 100, "large": 1024, "timed": 16, "warmup": 20, "steps": 60}
CPU_SIZES = {"batch": 4, "crop": 128, "learned": 30, "large": 4, "timed": 2, "warmup": 1, "steps": 2}


def run_part(part: str, plan: _device.Plan, seconds: float) -> dict[str, Any]:
    """Rows and state of a part that runs in its own process.

    Args:
        part: one of `_device.PARTS`.
        plan: of the parts.
        seconds: after which it is ended.
    """
    command = [sys.executable, "-m", "benchmarks._device", part, json.dumps(plan._asdict())]
    start, error = time.monotonic(), ""
    with tempfile.TemporaryFile("w+") as rows, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=rows, stderr=errors, cwd=_steps.ROOT, start_new_session=True
        )
        try:
            if code := process.wait(seconds):
                errors.seek(0)
                error = errors.read()[-3000:].strip() or f"exit code {code}"
        except subprocess.TimeoutExpired:
            # with the trainings that it started
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            error = f"took more than {seconds:.0f} s"
        rows.seek(0)
        found = [line for line in rows.read().splitlines() if line.startswith("[") and line.endswith("]")]
    return {
        "seconds": round(time.monotonic() - start, 1),
        "error": error,
        "rows": [_device.Row(*json.loads(line))._asdict() for line in found],
    }


def failed(result: dict[str, Any]) -> bool:
    """Whether a part ended with an error or one of its results is wrong."""
    return bool(result["error"]) or any(row["right"] is False for row in result["rows"])


def table(results: dict[str, dict[str, Any]]) -> list[str]:
    """The results in Markdown."""
    lines = ["| part | what | result | |", "|---|---|---|---|"]
    verdicts = {True: "right", False: "WRONG", None: ""}
    for part, result in results.items():
        lines += [
            f"| {part} | {row['what']} | {row['result']} | {verdicts[row['right']]} |"
            for row in result["rows"]
        ]
        error = result["error"].splitlines()
        end = f"FAILED: {error[-1]}" if error else f"{result['seconds']:.0f} s"
        lines.append(f"| {part} | whole part | {end} | {'WRONG' if failed(result) else 'right'} |")
    return lines


def heading(device: torch.device) -> list[str]:
    """Machine, packages, and whether there is a GPU."""
    packages = [name for name in PACKAGES if find_spec(name)]
    lines = [*machine(packages), f"Device: {machine_name(device)}"]
    if device.type == "cpu":
        lines.append("No GPU: the same code ran on the CPU at small sizes, which says nothing about CUDA.")
    return lines


def make_plan(root: Path, architectures: list[str], parts: list[str]) -> _device.Plan:
    """Sizes for this machine, and data in a folder, as far as the parts need them."""
    gpu = torch.cuda.is_available()
    scenes = GPU_SCENES if gpu else CPU_SCENES
    objects = training.make_data(root / "objects", *scenes, objects=True)
    plain = training.make_data(root / "plain", *scenes) if "speed" in parts else {}
    sizes = GPU_SIZES if gpu else CPU_SIZES
    return _device.Plan(architectures, **sizes, objects=objects, plain=plain)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--architectures", nargs="+", default=names(), choices=names())
    parser.add_argument("--parts", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--output", type=Path, default=Path("bench-gpu"), help="default: %(default)s")
    arguments = parser.parse_args()
    device = default_device()
    lines = heading(device)
    print(*lines, "", sep="\n", flush=True)
    root = Path(tempfile.mkdtemp(prefix="segflow-bench-"))
    results: dict[str, dict[str, Any]] = {}
    try:
        plan = make_plan(root, arguments.architectures, arguments.parts)
        for part in arguments.parts:
            budget = BUDGETS[part] * (1 if device.type == "cuda" else SLOWER)
            results[part] = run_part(part, plan, budget)
            if results[part]["error"]:
                print(f"{part}: {results[part]['error']}", file=sys.stderr, flush=True)
            print(f"{part}: {results[part]['seconds']:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    rows = table(results)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "results.md").write_text("\n".join([*lines, "", *rows]) + "\n")
    (arguments.output / "results.json").write_text(json.dumps({"machine": lines, "parts": results}, indent=1))
    print(*rows, sep="\n")
    sys.exit(any(failed(result) for result in results.values()))


if __name__ == "__main__":
    main()
