"""Overhead of Prefect, DVC and MLflow in a comparison: `python -m benchmarks.overhead`.

- whole: the flow `compare` of the buildings sample from scratch, compared with the work of its stages in one process;
- rerun: the flow when nothing has changed, with a running Prefect server, compared with `dvc repro`; the time of the
  flow's temporary server, if none runs, is shown separately.

All runs are in clones of this project in a temporary folder. The tables show missed goals.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks import _clones
from benchmarks.data import machine
from flows.ui import free_port

# seconds of a typical run, to which the flow may add 5 %
RUN = 600.0
PACKAGES = ("dvc", "mlflow", "prefect", "torch")


def environment(project: Path, server: str | None = None) -> dict[str, str]:
    """Environment of a clone, with this interpreter's `python` and `dvc`, and the Prefect server `server` if given."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    named = {"PREFECT_API_URL": server} if server else {}
    return {**_clones.environment(project), "PATH": path, **named}


def run(project: Path, command: Sequence[str], server: str | None = None) -> tuple[float, str]:
    """Seconds of a command in a clone, and its output.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=project, env=environment(project, server), capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return seconds, done.stdout


def make_project(target: Path, steps: int) -> Path:
    """A clone with `steps` steps per training."""
    project, round_trip = _clones.clone(target), YAML()
    document: Any = round_trip.load(project / "params.yaml")
    common = document["train"]["common"]
    common["steps"] = steps
    common["validate_every"] = min(steps, common["validate_every"])
    common["warmup_steps"] = min(common["warmup_steps"], steps // 2)
    round_trip.dump(document, project / "params.yaml")
    return project


@contextmanager
def prefect_server(project: Path) -> Iterator[str]:
    """Address of a Prefect server on this machine, started and ready."""
    address = f"http://127.0.0.1:{free_port(4300)}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, "--port", address.rsplit(":", 1)[1]],
        cwd=project,
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        import requests

        for _ in range(240):
            try:
                if requests.get(f"{address}/api/health", timeout=2).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        yield f"{address}/api"
    finally:
        process.terminate()
        process.wait()


def whole(root: Path, steps: int) -> Path:
    """Print the time of the flow from scratch and of its stages alone; returns the project of the flow."""
    bare = make_project(root / "bare", steps)
    _, output = run(bare, [sys.executable, "-m", "benchmarks._bare"])
    stages: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    project = make_project(root / "flow", steps)
    seconds, _ = run(project, [sys.executable, "-m", "flows.compare"])
    work = sum(stages.values())
    added = seconds - work
    fraction = added / RUN
    print("\n| stage | seconds |\n|---|---|")
    for name, value in stages.items():
        print(f"| {name} | {value:.1f} |")
    print("\n| what | flow | stages alone | added | of the stages | of a run of 600 s | goal | |")
    print("|---|---|---|---|---|---|---|---|")
    verdict = "met" if added <= 0.05 * max(work, RUN) else "GOAL MISSED"
    print(
        f"| compare, {len(stages)} stages of {steps} steps | {seconds:.1f} s | {work:.1f} s | {added:.1f} s | "
        f"{added / work:.1%} | {fraction:.1%} | ≤ 5 % | {verdict} |",
        flush=True,
    )
    return project


def rerun(project: Path, rounds: int) -> None:
    """Print the time of an unchanged flow and of `dvc repro`, run in turn, and of the temporary server."""
    dvc, flow = [str(Path(sys.executable).with_name("dvc")), "repro"], [sys.executable, "-m", "flows.compare"]
    times: dict[str, list[float]] = {"dvc": [], "flow": [], "alone": []}
    with prefect_server(project) as server:
        # the server's first flow run prepares its database
        run(project, flow, server)
        for _ in range(rounds):
            times["dvc"].append(run(project, dvc)[0])
            times["flow"].append(run(project, flow, server)[0])
    for _ in range(rounds):
        times["alone"].append(run(project, flow)[0])
    bare, ours, alone = (statistics.median(times[name]) for name in ("dvc", "flow", "alone"))
    print("\n| what | flow | dvc repro | ratio | goal | |\n|---|---|---|---|---|---|")
    verdict = "met" if ours <= 2 * bare else "GOAL MISSED"
    print(
        f"| nothing changed, running server | {ours:.1f} s | {bare:.1f} s | {ours / bare:.2f} | ≤ 2 | {verdict} |"
    )
    print(f"| nothing changed, temporary server | {alone:.1f} s | {bare:.1f} s | {alone / bare:.2f} | | |")
    print(f"| the temporary server alone | {alone - ours:.1f} s | | | | |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=150, help="of each training (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each rerun (default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, help="folder of the clones, which are kept (default: temporary)"
    )
    arguments = parser.parse_args()
    root = arguments.folder or Path(tempfile.mkdtemp(prefix="segflow-overhead-"))
    print("\n".join(machine(PACKAGES)), flush=True)
    try:
        rerun(whole(root, arguments.steps), arguments.rounds)
    finally:
        if not arguments.folder:
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
