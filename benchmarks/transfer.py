"""Gain of transfer from a model of other data: `python -m benchmarks.transfer`; `--quick` to check that it runs.

- Source: the buildings sample, an aerial scene of one city; a U-Net with N steps, as trained by `make demo`.
- Target: building footprints of another continent (examples/banepa.yaml), with `--target-steps` steps.
- ImageNet: the encoder starts from ImageNet weights, without transfer. So did the source's encoder.
- Transfer: starts from the source's weights, with the head if the classes are the same (`python -m tasks transfer`).
- Frozen at first: the encoder is frozen in the first third of the steps (`freeze_encoder`), with transfer and, to
  separate both effects, with ImageNet weights.
- Scores: pooled foreground IoU on the target's test data, with the weights of the best validation; differences to
  ImageNet with the same seed, mean with minimum and maximum over seeds.

Trainings and scores are those of `tasks.train` and `segcore.evaluation.evaluate`. The steps of the source are not
counted for a transfer.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.data import machine
from benchmarks.warm_start import ROOT, prepare_once, settings, test_score, trained
from segcore.data.prepared import PreparedData
from segcore.models.base.bundle import read_bundle
from segcore.params import Params
from tasks import console, initial_weights
from tasks.project import PREPARED

# name: (transfer, fraction of the steps with a frozen encoder)
VARIANTS = {
    "ImageNet": (False, 0.0),
    "ImageNet, frozen at first": (False, 1 / 3),
    "transfer": (True, 0.0),
    "transfer, frozen at first": (True, 1 / 3),
}


def project(folder: Path, name: str, steps: int) -> Params:
    """Parameters of an example with `steps` steps; its data are prepared in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    p = settings(folder, steps, name)
    prepare_once(p)
    return p


def score(p: Params, architecture: str, seed: int, variant: str, source: Path) -> float:
    """Test IoU of a variant, trained in a separate folder below the current one."""
    transfer, frozen = VARIANTS[variant]
    root = Path(variant.replace(", ", "-").replace(" ", "-"))
    common = p.train["common"]
    if transfer and not (root / "models" / f"{architecture}-{seed}").is_dir():
        initial_weights.place_transfer(read_bundle(source), root)
    common = {**common, "freeze_encoder": round(frozen * common["steps"])}
    p = p.model_copy(update={"train": {**p.train, "common": common}})
    return test_score(p, trained(p, architecture, seed, PREPARED, root), PreparedData(PREPARED))


def measure(root: Path, steps: int, target_steps: int, seeds: list[int], architecture: str) -> None:
    """Print one row per seed, then the differences."""
    rows: list[list[float]] = []
    # first, so that errors of the target's data appear before any training
    project(root / "target", "banepa", target_steps)
    print("| seed | " + " | ".join(VARIANTS) + " |\n|" + "---|" * (len(VARIANTS) + 1), flush=True)
    for seed in seeds:
        p = project(root / "source", "buildings", steps)
        source = trained(p, architecture, seed, PREPARED, Path("champion")).resolve()
        p = project(root / "target", "banepa", target_steps)
        rows.append([score(p, architecture, seed, variant, source) for variant in VARIANTS])
        print(f"| {seed} | " + " | ".join(f"{value:.3f}" for value in rows[-1]) + " |", flush=True)
    table = np.array(rows)
    cells = [f"{v.mean():+.3f} ({v.min():+.3f} to {v.max():+.3f})" for v in (table - table[:, :1]).T[1:]]
    print("| gain | | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transfer",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=60, help="N, of the source (default: %(default)s)")
    parser.add_argument("--target-steps", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--architecture", default="unet", help="default: %(default)s")
    parser.add_argument(
        "--folder", type=Path, help="folder of the results; finished trainings are not repeated"
    )
    parser.add_argument("--quick", action="store_true", help="3 steps, one seed: only to check that it runs")
    console.run(_measure, parser)


def _measure(a: argparse.Namespace) -> None:
    if a.quick:
        a.steps, a.target_steps, a.seeds = 3, 3, [0]
    folder = a.folder or Path(tempfile.mkdtemp(prefix="segflow-transfer-"))
    print(__doc__, *machine(("torch", "torchvision")), "", sep="\n")
    measure(
        folder.resolve() / f"{a.steps}-{a.target_steps}", a.steps, a.target_steps, a.seeds, a.architecture
    )
    if a.folder is None:
        os.chdir(ROOT)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
