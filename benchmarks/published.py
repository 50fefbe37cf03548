"""Comparison with published scores: `python -m benchmarks.published`, or with `--quick` to check that it runs.

Networks are trained and scored by the ordinary pipeline (`python -m flows.compare`, as `make run`) in clones of this
project, with three seeds: FCN, U-Net and DeepLabV3+, and on `nuclei-objects` and `banepa-objects` instance networks
beside U-Net with components. Settings and published scores are in benchmarks/published.yaml. Settings
were chosen on validation data only (docs/notes/tuning.md); test data are only read by the final evaluation.

Intervals: 95 %, over test clusters (images, patients, areas) and seeds, both drawn with replacement. An asterisk
marks a published score. Protocols differ; the differences are listed below each table.

On a CPU, as many trainings as there are cores run at the same time with one thread each, which is nearly twice as fast
as one training with two threads. Only the total time is therefore reported.

Budgets are printed above each table. `--steps` trains for another number of steps: more steps on fewer seeds
(`--seeds`), or fewer to check that it runs.

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
from segcore.comparison.leaderboard import leaderboard
from segcore.comparison.results import Comparison, read_comparison
from segcore.models.base.factory import kind, names
from tasks import configure, console
from tasks.costs import combined, read_cost
from tasks.project import evaluation_folder, run_name

PLAN = Path(__file__).with_suffix(".yaml")
SEMANTIC = ["fcn", "unet", "deeplab"]
# columns of the leaderboard beside the scores of objects
COSTS = ("network", "parameters", "macs", "ms_per_megapixel", "train_seconds")
HEADINGS = {"network": "kind"}
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
    # one network has no ensemble
    values["evaluate"]["ensemble"] = (
        values["evaluate"].get("ensemble", False) and len(seeds) * len(architectures) > 1
    )
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
    """Rows in Markdown, published ones first, and our means by network or ensemble, and measure."""
    measures: dict[str, str] = plan["measures"]
    rows = _published("network", plan, ["each seed", "GMACs (256 x 256)"])
    means = {}
    for name in [*p.architectures, *p.ensembles]:
        seeds = p.seeds if name in p.architectures else p.seeds[:1]
        folders = [evaluation_folder(run_name(name, seed), folder) for seed in seeds]
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
        means[name] = {key: values[0] for key, values in estimates.items()}
    return rows, means


def object_table(
    folder: Path, plan: dict[str, Any], p: params.Params, comparison: Comparison
) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Scores of objects in Markdown, published ones first; ours with the intervals of the comparison, and costs.

    Also our means by network and measure.
    """
    measures: dict[str, str] = plan["measures"]
    costs = {name: [read_cost(folder, run_name(name, seed)) for seed in p.seeds] for name in p.architectures}
    board = leaderboard(comparison, combined(costs))
    columns = {column.key: (i, column) for i, column in enumerate(board.columns)}
    last = [columns[key] for key in COSTS if key in columns]
    rows, means = (
        _published("network", plan, [HEADINGS.get(column.key, column.heading) for _, column in last]),
        {},
    )
    for row, values in zip(board.rows, board.values, strict=True):
        scores = [row.scores.get(key) for key in measures]
        cells = [
            ""
            if s is None
            else f"{s.estimate:.3f}" + ("" if s.low is None else f" [{s.low:.3f}, {s.high:.3f}]")
            for s in scores
        ]
        cells += ["" if values[i] is None else column.show(values[i]) for i, column in last]
        rows.append(f"| {row.title} | " + " | ".join(cells) + " |")
        if row.kind == "model":
            means[row.architecture] = {key: row.scores[key].estimate for key in measures if key in row.scores}
    return rows, means


def verdicts(
    plan: dict[str, Any], means: dict[str, dict[str, float]], instance: Sequence[str] = ()
) -> list[str]:
    """Whether each goal was met, and the difference to it.

    Args:
        plan: with measures and goals; a goal is of a network, of the "best", or of the best "instance" network.
        means: of networks, by measure.
        instance: which of them are instance networks.
    """
    lines = []
    for goal in plan.get("goals", []):
        minimum = {key: value for key, value in goal.items() if key != "of"}
        first = next(iter(minimum))
        groups = {"best": list(means), "instance": [name for name in means if name in instance]}
        of = max(
            groups.get(goal["of"], [goal["of"]]), key=lambda a: means.get(a, {}).get(first, 0), default=""
        )
        if of not in means:
            lines.append(f"Goal of {goal['of']}: not measured.")
            continue
        parts = [
            f"{plan['measures'][k]} {means[of][k]:.3f} of {v:.3f} ({means[of][k] - v:+.3f})"
            for k, v in minimum.items()
        ]
        met = all(means[of][key] >= value for key, value in minimum.items())
        best = {"best": " (best)", "instance": " (best instance network)"}.get(goal["of"], "")
        lines.append(f"Goal {'met' if met else 'MISSED'} by {of}{best}: " + ", ".join(parts))
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


def report(folder: Path, plan: dict[str, Any]) -> None:
    """Print the table of a dataset."""
    p = params.load(folder / "params.yaml")
    rows = table(folder, plan, p)
    print(f"\n## {plan['title']}\n", *budgets(p), f"Seeds {', '.join(map(str, p.seeds))}.\n", sep="\n")
    objects: list[str] = []
    if "objects" in plan:
        comparison = read_comparison(folder / "comparison/comparison.json")
        lines, means = object_table(folder, plan["objects"], p, comparison)
        instance = [name for name in p.architectures if kind(name) == "instance"]
        objects = ["", *lines, "", *verdicts(plan["objects"], means, instance), comparison.verdict]
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
    plans = {name: plan for name, plan in yaml.safe_load(PLAN.read_text()).items() if "title" in plan}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--data", nargs="+", choices=list(plans), default=list(plans), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--architectures", nargs="+", choices=names(), help="default: those of the plan")
    parser.add_argument("--steps", type=int, help="of each training; default: those of the plan")
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder of the results, which are kept; finished trainings are not repeated",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="settings of the plan in the place of those tuned by hand, at equal steps",
    )
    parser.add_argument("--quick", action="store_true", help="4 steps, one seed: only to check that it runs")
    parser.add_argument(
        "--only-report", action="store_true", help="only print the tables of the results in --folder"
    )
    console.run(lambda arguments: _measure(arguments, plans), parser)


def _planned(changes: dict[str, Any]) -> dict[str, Any]:
    """The settings of a benchmark without those that a plan decides, but with its steps."""
    common = changes["train"]["common"]
    kept: dict[str, Any] = {key: changes[key] for key in ("data", "evaluate", "compare") if key in changes}
    return {**kept, "train": {"common": {key: common[key] for key in ("steps", "validate_every")}}}


def _of_steps(steps: int) -> dict[str, int]:
    return {"steps": steps, "validate_every": max(steps // 2, 1), "warmup_steps": min(10, max(steps // 4, 1))}


def _measure(arguments: argparse.Namespace, plans: dict[str, Any]) -> None:
    seeds = [0] if arguments.quick else arguments.seeds
    root = (arguments.folder or Path(tempfile.mkdtemp(prefix="segflow-published-"))).resolve()
    print(__doc__, *machine(("torch", "torchvision")), sep="\n", flush=True)
    for name in arguments.data:
        folder = root / name
        plan = plans[name]
        changes = _planned(plan["params"]) if arguments.plan else plan["params"]
        changes = params.merge(changes, QUICK) if arguments.quick else changes
        if arguments.steps:
            changes = params.merge(changes, {"train": {"common": _of_steps(arguments.steps)}})
        if not arguments.only_report:
            architectures = arguments.architectures or plan.get("architectures", SEMANTIC)
            set_up(project(folder), plan.get("example", name), changes, seeds, architectures)
            seconds = run(folder)
            print(
                f"\n{name}: {seconds / 60:.1f} minutes for the stages that were not finished yet.", flush=True
            )
        report(folder, plan)
    if arguments.folder is None:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
