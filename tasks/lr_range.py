"""Learning-rate range test of one architecture on the training data: suggests train.common.learning_rate.

`python -m tasks lr-range unet` reads data/prepared/ and writes the curve to work/lr-range/unet.json and unet.png.
It takes as long as `--steps` training steps, and changes nothing else.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from segcore import params
from segcore.data.prepared import of_seed
from segcore.files import atomic_write
from segcore.params import Params
from tasks import console
from tasks.project import LR_RANGE, PREPARED


def find_rates(p: Params, architecture: str, seed: int, steps: int, root: Path = Path()) -> Path:
    """Run the test, print the suggestion, and write the curve; returns the folder of the curve.

    Raises:
        ModelError: unknown architecture or weights; DataError: no prepared data.
    """
    p.require_plan()
    settings, data = p.for_architecture(architecture), of_seed(root / PREPARED, seed)
    from segcore.planning import lr_range
    from segcore.plots.lr_range import lr_range as curve
    from segcore.plots.style import save_png
    from segcore.training import build

    model = build.new_model(architecture, settings, data, seed)
    print(f"lr-range: {steps} steps of batch {settings.batch}, crop {settings.crop}", flush=True)
    result = lr_range.range_test(model, data, settings, p.prepare.window, seed, steps)
    folder = root / LR_RANGE
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{architecture}.json") as part:
        part.write_text(json.dumps(asdict(result), indent=2) + "\n")
    marked = {"steepest": result.steepest, "lowest": result.lowest, "now": settings.learning_rate}
    save_png(curve(result.rates, result.losses, result.smooth, marked), folder / f"{architecture}.png")
    print(
        f"lr-range: {architecture}: loss falls fastest at {result.steepest:.1e}, is lowest at {result.lowest:.1e}; "
        f"train.common.learning_rate is {settings.learning_rate:.1e}\n{folder / architecture}.png",
        flush=True,
    )
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks lr-range", description=__doc__)
    parser.add_argument("architecture", help="one of " + ", ".join(params.architecture_names()))
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=60, help="training steps of the test (default: %(default)s)"
    )
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(lambda a: find_rates(params.load(a.params), a.architecture, a.seed, a.steps), parser)


console.refuse_as_script(__name__)
