"""Measure latency and memory of model bundles on this machine in a fresh process; prints JSON.

`python -m tasks measure models/unet-0 models/fcn-0 --tile 512`. The process is fresh because peak memory would include
models that were loaded in it before.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from segcore.data.prepared import PreparedData, test_regions
from segcore.errors import StageError
from segcore.models.base.bundle import load_description
from tasks import console
from tasks.bundles import read_local
from tasks.project import PREPARED
from tasks.supervisor import run_in_group

_ROUNDS = 7


def measure(
    bundles: Sequence[Path],
    tile: int,
    overlap: int = 0,
    flips: bool = False,
    rounds: int = _ROUNDS,
    fresh: bool = True,
    prepared: Path = PREPARED,
) -> list[dict[str, Any]]:
    """Latency and peak memory of each bundle, from one fresh process.

    Several bundles are timed in turn, round after round, so that other load of the machine affects all of them alike;
    peak memory is then that of all bundles together.

    Args:
        bundles: their folders.
        tile: side of the tile in pixels.
        overlap: of the windows of an instance network in pixels, at least (`segcore.inference.objects.windows_of`).
        flips: measure with test-time augmentation.
        rounds: timed passes of each bundle.
        fresh: False: in this process, which has loaded torch; the start of another takes seconds. Peak memory is then
            meaningless.
        prepared: folder of prepared data; instance networks are measured on pixels of their test regions, because they
            take longer where they find more. Without the folder the pixels are noise, as for semantic networks.

    Returns:
        The result of `segcore.prediction.speed.measure_speed` per bundle, and `measured`, the time (UTC).

    Raises:
        StageError: a bundle could not be loaded or run.
    """
    here = str(Path(__file__).parents[1])
    pixels = pixels_of_objects(bundles, prepared, tile)
    if not fresh:
        return _measured(bundles, tile, overlap, flips, rounds, pixels)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "tasks", "measure", *map(str, bundles), "--tile", str(tile)]
    command += ["--overlap", str(overlap), "--rounds", str(rounds), *(["--flips"] if flips else [])]
    with TemporaryDirectory() as folder:
        if pixels is not None:
            # a process that had read prepared data would need more memory
            np.save(Path(folder) / "pixels.npy", pixels)
            command += ["--pixels", str(Path(folder) / "pixels.npy")]
        status, output, tail = run_in_group(command, environment)
    if status != 0:
        raise StageError(
            f"{', '.join(map(str, bundles))}: could not be measured:\n{tail.strip()[-2000:]}",
            "fix the cause named above, then run again",
        )
    costs: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return costs


def pixels_of_objects(bundles: Sequence[Path], prepared: Path, tile: int) -> np.ndarray | None:
    """(H, W, C) pixels of a tile, with an object of the test regions if there is one.

    None without an instance network or prepared data.

    Args:
        bundles: folders of those that are measured.
        prepared: folder of prepared data.
        tile: side of the tile in pixels.
    """
    has_instance = any(load_description(bundle).get("kind") == "instance" for bundle in bundles)
    if not has_instance or not prepared.exists():
        return None
    data = PreparedData(prepared)
    for region in test_regions(data).itertuples():
        patch = data.crop(region.item, region.row, region.col, tile, tile, instances=data.instances)
        if patch.instances is None or patch.instances.any():
            break
    return patch.image


def _measured(
    bundles: Sequence[Path], tile: int, overlap: int, flips: bool, rounds: int, pixels: np.ndarray | None
) -> list[dict[str, Any]]:
    from segcore.inference.device import choose_precision, default_device
    from segcore.inference.objects import windows_of
    from segcore.prediction.speed import Measured, measure_speed

    models = []
    for folder in bundles:
        bundle = read_local(folder)
        bundle.require("parameters.precision")
        precision = choose_precision(bundle.description["parameters"]["precision"], default_device())
        model = bundle.model(default_device())
        windows = windows_of(model, bundle.description, tile, overlap)
        models.append(Measured(model, precision, *windows, pixels))
    # the measured memory must not contain the files
    del bundle
    costs = measure_speed(models, tile, rounds, flips)
    measured = datetime.now(UTC).isoformat(timespec="seconds")
    return [cost | {"measured": measured} for cost in costs]


def _measure_here(arguments: argparse.Namespace) -> None:
    pixels = np.load(arguments.pixels, allow_pickle=False) if arguments.pixels else None
    how = (arguments.tile, arguments.overlap, arguments.flips, arguments.rounds)
    print(json.dumps(_measured(arguments.bundles, *how, pixels)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks measure", description=__doc__)
    parser.add_argument("bundles", type=Path, nargs="+", help="folders with model.json and model.safetensors")
    parser.add_argument("--tile", type=int, required=True, help="side of the square tile in pixels")
    parser.add_argument(
        "--overlap",
        type=int,
        default=0,
        help="overlap of an instance network's windows in pixels (default: 0)",
    )
    parser.add_argument(
        "--rounds", type=int, default=_ROUNDS, help=f"timed rounds; their median counts (default: {_ROUNDS})"
    )
    parser.add_argument(
        "--flips", action="store_true", help="measure with test-time augmentation (mean over mirror images)"
    )
    parser.add_argument(
        "--pixels", type=Path, help=".npy file (rows, columns, bands) that instance networks are measured on"
    )
    console.run(_measure_here, parser)


console.refuse_as_script(__name__)
