"""What is a model of other data worth as a start? `python -m benchmarks.transfer`; `--quick` shows that it runs.

- Source: the buildings sample, an aerial scene of one city; a U-Net of N steps, as `make demo` trains it.
- Target: building footprints of another continent (examples/banepa.yaml), with `--target-steps` steps.
- ImageNet: the encoder's ImageNet weights, as without any transfer. The encoder of each other row had them before.
- Transfer: begins with the source's weights, head included where its classes are the same (`python -m tasks transfer`).
- Rests, then released: the same, but the encoder is fixed in the first third of the steps (`freeze_encoder`),
  and once with ImageNet weights alone, so that what resting does by itself can be told apart.
- Scores: pooled IoU of the foreground on the target's test part, of the weights of the best validation; differences to
  ImageNet of the same seed, mean with least and greatest over seeds.

Trainings and scores are those of `tasks.train` and `segcore.evaluation.evaluate`. A transfer has the source's steps
behind it.
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
from segcore.params import Params
from tasks import console, initial_weights
from tasks.project import PREPARED

VARIANTS = {  # name: (transfer, share of the steps in which the encoder rests)
    "ImageNet": (False, 0.0),
    "ImageNet, rests, then released": (False, 1 / 3),
    "transfer": (True, 0.0),
    "transfer, rests, then released": (True, 1 / 3),
}


def project(folder: Path, name: str, steps: int) -> Params:
    """Parameters of an example with that many steps, its data prepared in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    p = settings(folder, steps, name)
    prepare_once(p)
    return p


def score(p: Params, architecture: str, seed: int, variant: str, source: Path) -> float:
    """Test IoU of a variant, trained in a folder of its own below the current one."""
    transfer, rest = VARIANTS[variant]
    root = Path(variant.replace(", ", "-").replace(" ", "-"))
    common = p.train["common"]
    if transfer and not (root / "models" / f"{architecture}-{seed}").is_dir():
        initial_weights.place_transfer(source, root)
    common = {**common, "freeze_encoder": round(rest * common["steps"])}
    p = p.model_copy(update={"train": {**p.train, "common": common}})
    return test_score(p, trained(p, architecture, seed, PREPARED, root), PreparedData(PREPARED))


def measure(root: Path, steps: int, target_steps: int, seeds: list[int], architecture: str) -> None:
    """Print a row a seed, then the differences."""
    rows: list[list[float]] = []
    # what is wrong with the target is told before anything is trained
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
    parser.add_argument("--folder", type=Path, help="what is trained there already is not trained again")
    parser.add_argument("--quick", action="store_true", help="3 steps, one seed: shows that it runs")
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
