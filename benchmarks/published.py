"""Comparison with published scores: `python -m benchmarks.published`, or with `--quick` to check that it runs.

FCN, U-Net and DeepLabV3+ are trained and scored by the ordinary pipeline (`python -m flows.compare`, as `make run`)
in clones of this project, with three seeds. Settings and published scores are in benchmarks/published.yaml. Settings
were chosen on validation data only (docs/notes/tuning.md); test data are only read by the final evaluation.

Intervals: 95 %, over test clusters (images, patients, areas) and seeds, both drawn with replacement. An asterisk
marks a published score. Protocols differ; the differences are listed below each table.

On a CPU, as many trainings as there are cores run at the same time with one thread each, which is nearly twice as fast
as one training with two threads. Only the total time is therefore reported.

With `--folder` an interrupted run can be continued: DVC skips finished stages, and trainings resume from checkpoints.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from ruamel.yaml import YAML

from benchmarks import _scored
from benchmarks._clones import ROOT, clone, environment
from benchmarks.data import machine
from segcore import params
from segcore.comparison.results import read_comparison
from tasks import configure, console

PLAN = Path(__file__).with_suffix(".yaml")
QUICK = {"train": {"common": {"steps": 4, "validate_every": 4, "warmup_steps": 1}}}


def project(folder: Path) -> Path:
    """A clone of the committed state of this project; an existing clone is updated to that commit."""
    if not (folder / ".git").is_dir():
        clone(folder)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    for command in (["fetch", "--quiet", "origin", head], ["checkout", "--quiet", "--force", head]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def side_by_side() -> int | None:
    """Number of parallel trainings: one per core; None on GPUs, for the pipeline's default."""
    return None if torch.cuda.is_available() else len(os.sched_getaffinity(0))


def set_up(
    folder: Path, name: str, changes: dict[str, Any], seeds: list[int], architectures: list[str]
) -> None:
    """Write params.yaml of the clone: the example, with the changes of the plan.

    Raises:
        ParamsError: SEGFLOW_DATA is not set, or the plan has an unknown key.
    """
    path = folder / "params.yaml"
    configure.configure(name, path, folder / "examples")
    document = YAML()
    values: Any = document.load(path)
    values = params.merge(values, changes)
    values |= {"seeds": seeds, "architectures": architectures}
    values["tracking"]["system_metrics"] = False
    values["machine"]["slots"] = side_by_side()
    document.dump(values, path)
    params.load(path)


def run(folder: Path) -> float:
    """Run the comparison; returns its seconds.

    Raises:
        CalledProcessError: a stage failed.
    """
    start = time.monotonic()
    env = environment(folder)
    if not torch.cuda.is_available():
        env["OMP_NUM_THREADS"] = "1"
    subprocess.run(
        [sys.executable, "-m", "flows.compare"], cwd=folder, env=env, check=True, stdout=sys.stderr
    )
    return time.monotonic() - start


def _published(first: str, plan: dict[str, Any], last: Sequence[str] = ()) -> list[str]:
    """Heading and published rows of a table in Markdown, with further columns `last` that only ours fill."""
    measures: dict[str, str] = plan["measures"]
    columns = [first, *measures.values(), *last]
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name, figures in plan["published"].items():
        cells = [f"{figures[key]:.3f}" if key in figures else "" for key in measures]
        rows.append(f"| {name} * | " + " | ".join(cells) + " |" + " |" * len(last))
    return rows


def table(
    folder: Path, plan: dict[str, Any], p: params.Params
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Rows in Markdown, published ones first, and our means by architecture and measure."""
    measures: dict[str, str] = plan["measures"]
    rows = _published("network", plan, ["each seed", "GMACs (256 x 256)"])
    means = {}
    for architecture in p.architectures:
        folders = [folder / f"evaluations/{architecture}-{seed}" for seed in p.seeds]
        folders = [path for path in folders if (path / "counts.parquet").is_file()]
        if not folders:
            continue
        runs = [_scored.read(path / "counts.parquet") for path in folders]
        summary = json.loads((folders[0] / "summary.json").read_text())
        estimates = {
            key: _scored.estimate(runs, _scored.MEASURES[key], p.data.foreground) for key in measures
        }
        cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high, _ in estimates.values()]
        each = ", ".join(f"{score:.3f}" for score in next(iter(estimates.values()))[3])
        gmacs = f"{summary['macs'] / 1e9:.2f}"
        rows.append(f"| {summary['title']} | " + " | ".join(cells) + f" | {each} | {gmacs} |")
        means[architecture] = {key: values[0] for key, values in estimates.items()}
    return rows, means


def object_table(folder: Path, plan: dict[str, Any]) -> list[str]:
    """Scores of objects in Markdown, published ones first; ours with the intervals of the comparison."""
    measures: dict[str, str] = plan["measures"]
    rows = _published("network, components", plan)
    for row in read_comparison(folder / "comparison/comparison.json").leaderboard:
        scores = [row.scores[key] for key in measures if key in row.scores]
        cells = [
            f"{s.estimate:.3f}" + ("" if s.low is None else f" [{s.low:.3f}, {s.high:.3f}]") for s in scores
        ]
        rows.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return rows


def verdicts(plan: dict[str, Any], means: dict[str, dict[str, float]]) -> list[str]:
    """Whether each goal was met, and the difference to it."""
    lines = []
    for goal in plan["goals"]:
        minimum = {key: value for key, value in goal.items() if key != "of"}
        first = next(iter(minimum))
        of = max(means, key=lambda a: means[a][first], default="") if goal["of"] == "best" else goal["of"]
        if of not in means:
            lines.append(f"Goal of {of}: not measured.")
            continue
        parts = [
            f"{plan['measures'][k]} {means[of][k]:.3f} of {v:.3f} ({means[of][k] - v:+.3f})"
            for k, v in minimum.items()
        ]
        met = all(means[of][key] >= value for key, value in minimum.items())
        lines.append(
            f"Goal {'met' if met else 'MISSED'} by {of}{' (best)' * (goal['of'] == 'best')}: "
            + ", ".join(parts)
        )
    return lines


def budgets(p: params.Params) -> list[str]:
    """Training settings of each network; one line if they are the same for all."""
    networks: dict[str, list[str]] = {}
    for architecture in p.architectures:
        s = p.for_architecture(architecture)
        text = (
            f"encoder {s.encoder} (weights {s.weights}), steps {s.steps}, batch {s.batch}, crop {s.crop}, "
            f"magnify {s.magnify:g}, learning rate {s.learning_rate:g}"
        )
        networks.setdefault(text, []).append(architecture)
    return [f"{'Each' if len(networks) == 1 else ', '.join(of)}: {text}." for text, of in networks.items()]


def report(folder: Path, name: str, plan: dict[str, Any]) -> None:
    """Print the table of a dataset."""
    p = params.load(folder / "params.yaml")
    rows = table(folder, plan, p)
    print(f"\n## {plan['title']}\n", *budgets(p), f"Seeds {', '.join(map(str, p.seeds))}.\n", sep="\n")
    objects = ["", *object_table(folder, plan["objects"])] if "objects" in plan else []
    print(
        *rows[0],
        *objects,
        "",
        *verdicts(plan, rows[1]),
        "",
        f"Published: {plan['source']}.",
        *(f"- {t}" for t in plan["protocol"]),
        sep="\n",
        flush=True,
    )


def main() -> None:
    """Command line."""
    plans = yaml.safe_load(PLAN.read_text())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=list(plans), default=list(plans), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--architectures", nargs="+", default=["fcn", "unet", "deeplab"], help="default: all three"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of the results, which are kept; finished trainings are not repeated",
    )
    parser.add_argument("--quick", action="store_true", help="4 steps, one seed: only to check that it runs")
    parser.add_argument(
        "--only-report", action="store_true", help="only print the tables of the results in --folder"
    )
    console.run(lambda arguments: _measure(arguments, plans), parser)


def _measure(arguments: argparse.Namespace, plans: dict[str, Any]) -> None:
    seeds = [0] if arguments.quick else arguments.seeds
    root = (arguments.folder or Path(tempfile.mkdtemp(prefix="segflow-published-"))).resolve()
    print(__doc__, *machine(("torch", "torchvision")), sep="\n", flush=True)
    for name in arguments.data:
        folder = root / name
        changes = params.merge(plans[name]["params"], QUICK) if arguments.quick else plans[name]["params"]
        if not arguments.only_report:
            set_up(project(folder), name, changes, seeds, arguments.architectures)
            seconds = run(folder)
            print(
                f"\n{name}: {seconds / 60:.1f} minutes for the stages that were not finished yet.", flush=True
            )
        report(folder, name, plans[name])
    if arguments.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
