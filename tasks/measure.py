"""Latency and memory of one model bundle on this machine, in a process of its own, printed as JSON.

`python -m tasks.measure models/unet-0 --tile 512`. In a process that held other models before, their memory would
count as well.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from segcore.errors import StageError
from tasks import console
from tasks.processes import run_in_group

_REPEATS = 9


def measure(bundle: Path, tile: int) -> dict[str, Any]:
    """What `segcore.evaluation.measure_speed` says of a bundle, from a fresh process.

    Raises:
        StageError: the bundle could not be loaded or run.
    """
    here = str(Path(__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tasks.measure", str(bundle), "--tile", str(tile)]
    status, output, tail = run_in_group(command, environment)
    if status != 0:
        raise StageError(
            f"{bundle}: could not be measured:\n{tail.strip()[-2000:]}",
            "mend the cause named above, then run again",
        )
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _measure_here(arguments: argparse.Namespace) -> None:
    from segcore.bundle import load_bundle, load_description
    from segcore.evaluation import measure_speed
    from segcore.inference import choose_precision
    from tasks.evaluate import device

    precision = choose_precision(load_description(arguments.bundle)["parameters"]["precision"], device())
    found = measure_speed(load_bundle(arguments.bundle, device()), arguments.tile, precision, _REPEATS)
    print(json.dumps(found))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.measure", description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder with model.json and model.safetensors")
    parser.add_argument("--tile", type=int, required=True, help="pixels a side")
    console.run(_measure_here, parser)


if __name__ == "__main__":
    main()
