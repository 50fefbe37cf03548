"""A tiny project to retrain: one architecture, twelve images at first, and an inbox."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from segcore.files import locked, sha256
from segcore.params import merge
from tests.support import workspaces
from tests.support.tiny import blobs, make_pairs, values_for

LONG_AGO = 3600.0


def project(folder: Path, **over: Any) -> Path:
    """A project in git with a tiny dataset, before anything is computed."""
    workspaces.copy_code(folder)
    shutil.copy(workspaces.ROOT / "dvc.yaml", folder)
    make_pairs(folder / "pictures", count=12)
    values = values_for("pictures", architectures=["unet"], **over)
    values["train"]["fcn"] = {}
    values["evaluate"] |= {"boundary_tolerance": 1, "kept_predictions": 2}
    values["report"] = {"title": "Tiny", "cases": 1}
    # so that three test images are enough for a decision
    values["gate"] = {**values.get("gate", {}), "confidence": 0.6}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    for command in (["add", "-A"], ["commit", "-qm", "project"]):
        subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *command], cwd=folder, check=True
        )
    return folder


def arrive(folder: Path, names: list[str], seed: int) -> None:
    """Put images with masks into the inbox, last changed an hour ago."""
    for number, name in enumerate(names):
        image, mask = blobs(48, 56, seed=seed + number)
        for kind, array in (("images", image), ("masks", mask * 255)):
            path = folder / "data/inbox" / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
            age(path)


def age(path: Path) -> None:
    """Set the time of a file's last change to an hour ago."""
    os.utime(path, (time.time() - LONG_AGO,) * 2)


def edit(folder: Path, **over: Any) -> None:
    """Merge values into params.yaml."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(merge(yaml.safe_load(path.read_text()), over), sort_keys=False))


def use_constant_costs(folder: Path) -> None:
    """Let the copied code measure nothing: three starts of torch fewer per round, and the champion is the slowest."""
    path = folder / "tasks/measure.py"
    text, line = path.read_text(), "    here = str(Path(__file__).parents[1])\n"
    assert text.count(line) == 1
    cost = '"peak_memory_mb": 100.0, "latency_tile": tile, "latency_batch": 1, "ms_per_megapixel": 2441.0, '
    cost += '"precision": "fp32", "device": "cpu", "threads": 1'
    each = "{'latency_ms': 20.0 if 'champion' in str(bundle) else 10.0, " + cost + "}"
    path.write_text(
        text.replace(line, f"    if rounds:\n        return [{each} for bundle in bundles]\n{line}")
    )
    # the same network costs the same, whatever is measured: here the champion counts as another one
    path = folder / "tasks/promotion/costs.py"
    text, last = path.read_text(), "json.dumps([*facts, precision], sort_keys=True)"
    assert text.count(last) == 1
    path.write_text(text.replace(last, "json.dumps([*facts, 'champion' in str(model.folder)])"))


def use_lenient_gate(folder: Path, **over: Any) -> None:
    """Let every faster challenger be promoted, also with the four test images of this project."""
    edit(folder, gate={"confidence": 0.51, "bootstrap": 100, "not_worse": 0.99, "cheaper": 0.99} | over)


def start(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start `python -m flows.retrain` in a new process group."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.retrain", *arguments],
        cwd=folder,
        env=workspaces.environment(folder, **env),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def retrain(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """(exit status, output) of `python -m flows.retrain`."""
    process = start(folder, *arguments, **env)
    try:
        output, _ = process.communicate(timeout=300)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, output


def listing(folder: Path) -> dict[str, str]:
    """Path and digest of every file of a project, and the paths of its folders; without bytecode and Prefect's data."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if "__pycache__" not in parts and parts[0] != ".prefect":
            found["/".join(parts)] = sha256(path) if path.is_file() else "folder"
    return found


def record(folder: Path, batch: str) -> dict[str, Any]:
    """The decision on a batch."""
    found: dict[str, Any] = json.loads((folder / "decisions/tiny" / f"{batch}.json").read_text())
    return found


def batches(folder: Path) -> list[str]:
    """Names of the batches, oldest first."""
    parent = folder / "data/batches/tiny"
    return sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []


def first_round(base: Path, api: str) -> Path:
    """A project after its first round, made once for all workers of a test run; to be copied by `copy`."""
    folder = base / "first-round" / "project"
    base.mkdir(parents=True, exist_ok=True)
    with locked(base / "first-round.lock"):
        if not folder.with_name("done").exists():
            shutil.rmtree(folder.parent, ignore_errors=True)
            status, output = retrain(project(folder), PREFECT_API_URL=api)
            assert status == 0 and "First:" in output, output
            folder.with_name("done").touch()
    return folder


def copy(source: Path, target: Path) -> Path:
    """An independent copy of a project; the absolute paths of artifacts in MLflow's store are rewritten."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True)
    columns = {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "model_versions": ("source", "storage_location"),
    }
    with closing(sqlite3.connect(target / "mlflow.db")) as store, store:
        for table, names in columns.items():
            for name in names:
                store.execute(
                    f"UPDATE {table} SET {name} = replace({name}, ?, ?)", (f"{source}/", f"{target}/")
                )
    return target
