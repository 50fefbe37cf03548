"""Steps saved by a warm start: `python -m benchmarks.warm_start`, or with `--quick` to check that it runs.

Goal: on the buildings sample, with its training area divided into an old and a new half, a training that starts from
the champion's weights reaches the score of one from scratch in at most 25 % of its steps.

- Data: the sample with the split of `make demo`. A straight line with a random direction halves the training blocks
  into old and new ones. Validation and test blocks are on both sides, belong to neither half, and are always the same.
- Champion: trained only on the old half, with N steps.
- From scratch: trained on both halves with N steps, and like the champion from the encoder's ImageNet weights, as in
  the pipeline without a warm start. Validated after every twelfth of N.
- Warm start: trained on both halves as in a retraining, with a quarter of N as the number of steps
  (`retrain.warm_start.steps`) and a learning-rate schedule of that length. Validated at the same intervals.
- Counted: the first step at which the warm start reaches the from-scratch score at step N, and its best at any step.
  "0, again at 15" means that the champion itself had this score, and that the warm start, whose score first drops,
  reached it again at step 15.
- Test scores are those of the bundles of the pipeline, with the weights of the best validation.

Trainings and scores are those of `tasks.train` and `segcore.evaluation.evaluate`. The champion's N steps are not
counted for the warm start: the cost of one night is compared, not the total number of steps.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from benchmarks import _halves
from benchmarks.data import machine
from segcore import params
from segcore.comparison.progress import validation_score
from segcore.data.prepared import PreparedData
from segcore.evaluation.evaluate import evaluate
from segcore.inference.device import choose_precision, default_device
from segcore.metrics.scores import scores
from segcore.models.base.bundle import load_bundle
from segcore.params import Params
from segcore.training.validate import validate
from tasks import configure, initial_weights
from tasks.ingest import ingest
from tasks.prepare import prepare
from tasks.project import PREPARED
from tasks.train import train

ROOT = Path(__file__).parents[1]
GOAL = 0.25


class Row(NamedTuple):
    """One architecture and seed; scores are foreground mean IoU, steps None where a score was not reached."""

    architecture: str
    seed: int
    # validation of the champion
    champion: float
    # validation of the training from scratch, at its last step and at its best
    final: float
    best: float
    # best validation of the warm start
    warm: float
    # steps of the warm start until it reaches `final` and `best`; at least one validation interval
    to_final: int | None
    to_best: int | None
    test_champion: float
    test_scratch: float
    test_warm: float


def settings(folder: Path, steps: int, example: str = "buildings") -> Params:
    """Parameters of `make demo SAMPLE=example` with N steps and three validations."""
    path = folder / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    configure.configure(example, path, ROOT / "examples")
    p = params.load(path)
    common = {**p.train["common"], "steps": steps, "validate_every": max(1, steps // 3)}
    return p.model_copy(
        update={
            "data": p.data.model_copy(update={"source": str(ROOT / p.data.source)}),
            "train": {**p.train, "common": common},
            "tracking": p.tracking.model_copy(update={"system_metrics": False}),
        }
    )


def prepare_once(p: Params) -> None:
    """Prepare the data in the current folder, unless they are there already."""
    if not PREPARED.is_dir():
        ingest(p.data)
        prepare(p)


def often_validated(p: Params) -> Params:
    """Parameters with a validation after every twelfth of the steps; only the choice of the best weights changes."""
    common = p.train["common"]
    every = {"validate_every": max(1, common["steps"] // 12)}
    return p.model_copy(update={"train": {**p.train, "common": {**common, **every}}})


def trained(p: Params, architecture: str, seed: int, prepared: Path, root: Path) -> Path:
    """Bundle of a training in `root`, trained unless it is there already."""
    bundle = root / "models" / f"{architecture}-{seed}"
    return bundle if bundle.is_dir() else train(p, architecture, seed, prepared, root)


def test_score(p: Params, bundle: Path, data: PreparedData) -> float:
    """Foreground IoU of a bundle on the test data."""
    precision = choose_precision(p.train["common"].get("precision", "auto"), default_device())
    result = evaluate(load_bundle(bundle, default_device()), data, p.evaluate, precision)
    return scores(result.counts, data.foreground)["iou/dataset/foreground_mean"]


def first_at(curve: pd.DataFrame, score: float) -> int | None:
    """First step at which the validation score of a history reaches a value; None if it does not."""
    reached = curve.loc[curve[validation_score(curve)] >= score, "step"]
    return int(reached.iloc[0]) if len(reached) else None


def measure(p: Params, architecture: str, seed: int, old: Path) -> Row:
    """Train champion, from scratch and warm start, each in a separate folder below the current one."""
    data, common = PreparedData(PREPARED), p.train["common"]
    champion = trained(p, architecture, seed, old, Path("champion"))
    p = often_validated(p)
    scratch = trained(p, architecture, seed, PREPARED, Path("scratch"))
    initial_weights.place(champion, round(GOAL * common["steps"]), Path("warm"))
    warm = trained(p, architecture, seed, PREPARED, Path("warm"))
    precision = choose_precision(common.get("precision", "auto"), default_device())
    model = load_bundle(champion, default_device())
    before = validate(model, data, p.for_architecture(architecture), precision)[1]
    history = pd.read_csv(scratch / "history.csv")
    curve = pd.read_csv(warm / "history.csv")
    name = validation_score(history)
    final, best = float(history[name].iloc[-1]), float(history[name].max())
    tests = (test_score(p, bundle, data) for bundle in (champion, scratch, warm))
    steps = first_at(curve, final), first_at(curve, best)
    return Row(architecture, seed, before, final, best, float(curve[name].max()), *steps, *tests)


def _reached(step: int | None, steps: int, at_once: bool) -> str:
    if step is None:
        return ("0, then " if at_once else "") + f"not within {GOAL:.0%}"
    return ("0, again at " if at_once else "") + f"{step} ({step / steps:.0%})"


def line(row: Row, steps: int) -> str:
    """A row of the table."""
    validation = " | ".join(f"{v:.3f}" for v in (row.champion, row.final, row.best, row.warm))
    tests = " | ".join(f"{v:.3f}" for v in (row.test_champion, row.test_scratch, row.test_warm))
    goals = ((row.to_final, row.final), (row.to_best, row.best))
    reached = " | ".join(_reached(step, steps, row.champion >= score) for step, score in goals)
    return f"| {row.architecture} | {row.seed} | {validation} | {reached} | {tests} |"


def summary(rows: list[Row], steps: int) -> Iterable[str]:
    """For each architecture, how often the goal was met, and means with minimum and maximum over seeds."""
    for architecture in dict.fromkeys(row.architecture for row in rows):
        matching = [row for row in rows if row.architecture == architecture]

        def spread(values: list[float]) -> str:
            return f"{np.mean(values):+.3f} ({min(values):+.3f} to {max(values):+.3f})"

        final, best = (
            sum(step is not None for step in s)
            for s in zip(*((r.to_final, r.to_best) for r in matching), strict=True)
        )
        at_once = sum(row.champion >= row.final for row in matching)
        warm = spread([r.test_warm - r.test_scratch for r in matching])
        champion = spread([r.test_champion - r.test_scratch for r in matching])
        yield (
            f"{architecture}: from-scratch score at step {steps} reached within {GOAL:.0%} in {final} of "
            f"{len(matching)} seeds (the champion itself has it in {at_once}), its best one in {best}; test IoU minus "
            f"that from scratch: warm start {warm}, champion {champion}"
        )


HEAD = (
    "| architecture | seed | champion, val | scratch at N, val | scratch best, val | warm best, val "
    "| steps to scratch at N | steps to scratch best | champion, test | scratch, test | warm, test |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def table(p: Params, steps: int, seeds: list[int]) -> list[Row]:
    """Measure all rows, and print each at once; data are prepared unless they are there already."""
    prepare_once(p)
    print(HEAD, flush=True)
    rows = []
    for seed in seeds:
        old = Path(f"data/old-{seed}")
        if not old.is_dir():
            _halves.write_old(p, PREPARED, seed, old)
        for architecture in p.architectures:
            rows.append(measure(p, architecture, seed, old))
            print(line(rows[-1], steps), flush=True)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.warm_start",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--steps", type=int, default=60, help="N, of champion and from scratch (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--architectures", nargs="+", default=["fcn", "unet", "deeplab"], help="default: all three"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of the results, which are kept; finished trainings are not repeated",
    )
    parser.add_argument(
        "--quick", action="store_true", help="8 steps, one seed, FCN: only to check that it runs"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.seeds, arguments.architectures = 8, [0], ["fcn"]
    return arguments


def main() -> None:
    """Command line."""
    arguments = _arguments()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="segflow-warm-"))
    root = folder.resolve() / f"{arguments.steps}-steps"
    root.mkdir(parents=True, exist_ok=True)
    os.chdir(root)
    packages = ("torch", "torchvision")
    print(
        __doc__,
        *machine(packages),
        f"{torch.get_num_threads()} torch threads, {default_device()}\n",
        sep="\n",
    )
    p = settings(root, arguments.steps).model_copy(update={"architectures": arguments.architectures})
    rows = table(p, arguments.steps, arguments.seeds)
    print("", *summary(rows, arguments.steps), sep="\n", flush=True)
    if arguments.folder is None:
        os.chdir(ROOT)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
