"""What DVC does for the pipeline: the graph of stages, running one, and what identifies a stage's result.

DVC is driven as a subprocess, one a stage; only a running stage's own dependencies are read through its library
(and the graph, by tasks/versioning/status.py). Every function works on the project in the current folder.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, NamedTuple

from segcore.errors import StageError
from segcore.files import digest
from tasks.project import DVC_LOCK, EVALUATIONS, MODELS, PREPARED
from tasks.supervisor import run_in_group
from tasks.versioning import lock_repair

Outcome = Literal["ran", "cached"]
# one stage's part of dvc.lock: cmd, deps, params, outs
Entry = dict[str, Any]


class Stage(NamedTuple):
    """One stage of dvc.yaml; architecture and seed only where its matrix has them."""

    # train@unet-0
    name: str
    # train
    kind: str
    upstream: tuple[str, ...]
    architecture: str | None
    seed: int | None


def reproduce(
    stage: str,
    force: bool = False,
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = sys.stderr.write,
) -> Outcome:
    """Bring one stage up to date; its upstream stages must be so already.

    Args:
        stage: its name, such as `train@unet-0`.
        force: run it though nothing changed.
        env: variables that the stage's command sees besides this process's.
        live: receives the command's standard error (its progress bars) as it comes.

    Returns:
        "ran", or "cached" where nothing had changed or the result was restored.

    Raises:
        StageError: the stage failed; the message ends with the last lines of its output.
    """
    command = ["repro", "--single-item", *(["--force"] if force else []), stage]
    status, output, tail = drive(command, env, live)
    if status != 0:
        # DVC itself may be what was killed, and then a retry would find half a dvc.lock
        _, _, mended = run_in_group([sys.executable, "-m", "tasks.versioning.lock_repair"])
        raise StageError(
            f"stage {stage} failed with status {status}:\n{mended}{tail.strip()}",
            "mend the cause named above and run again; stages that finished are kept",
        )
    with still():
        lock_repair.keep_copy()
    return "ran" if f"Running stage '{stage}':" in output.splitlines() else "cached"


def prune(graph: list[Stage]) -> list[Path]:
    """Remove trainings' and evaluations' folders that params.yaml names no more; DVC's cache still has them.

    Later stages depend on `models` and `evaluations` as a whole, so a left-over would change their hashes from
    clone to clone. Folders not named like DVC's, `<architecture>-<seed>`, stay.
    """
    kept = {(s.kind, s.name.partition("@")[2]) for s in graph}
    removed = []
    for kind, folder in (("evaluate", EVALUATIONS), ("train", MODELS)):
        for path in sorted(folder.glob("*-*")):
            if re.fullmatch(r"[a-z0-9_]+-\d+", path.name) and path.is_dir() and (kind, path.name) not in kept:
                rmtree(path)
                removed.append(path)
    return removed


def run_key(stage: str | None = None) -> str | None:
    """sha256 of a stage's command, dependency hashes and parameters: the name of its result.

    The same inside the running stage, where dvc.lock is not yet written, and afterwards from dvc.lock.

    Args:
        stage: its name; None for the stage this process runs in.

    Returns:
        None where DVC did not start this process (no `stage` given), or has no record of the stage.
    """
    running = os.environ.get("DVC_STAGE")
    if stage is None or stage == running:
        return _running_key(running) if running else None
    return run_keys().get(stage)


def run_keys() -> dict[str, str]:
    """Run key of every stage that dvc.lock has a result of, by the stage's name."""
    return {name: _key(entry) for name, entry in _lock_entries().items()}


@lru_cache(maxsize=1)
def _running_key(stage: str) -> str:
    """Of the stage that this process is: its inputs stay what they are while it runs, and asking DVC takes time."""
    return _key(_running_entry(stage))


def next_run_key(stage: str) -> str:
    """The run key that `stage` gets if it runs now; what it depends on must be there.

    Raises:
        StageError: a dependency is missing.
    """
    from dvc.exceptions import DvcException

    try:
        return _key(_running_entry(stage))
    except (DvcException, OSError) as error:
        raise StageError(f"{stage}: {error}", "bring the stages before it up to date first") from error


def recorded() -> set[str]:
    """Names of the stages that dvc.lock has a result of."""
    return set(_lock_entries())


def data_version(root: Path = Path()) -> str | None:
    """DVC's md5 of data/prepared as recorded in dvc.lock; None before the first `prepare`."""
    outs = _lock_entries(root).get("prepare", {}).get("outs", [])
    return next((out["md5"] for out in outs if Path(out["path"]) == PREPARED), None)


def init_if_needed() -> None:
    """Make this folder a DVC project where it is none yet (a fresh clone is one).

    A clone's files without its git, unpacked from an archive say, are one that expects git: DVC is told to do without.

    Raises:
        StageError: DVC refuses.
    """
    folder, has_git = Path(".dvc"), Path(".git").exists()
    if not folder.is_dir():
        command = ["init", "--quiet", *([] if has_git else ["--no-scm"])]
    else:
        files = [file for file in (folder / "config", folder / "config.local") if file.exists()]
        told = any(word in file.read_text() for file in files for word in ("no_scm", "subdir"))
        if has_git or told:
            return
        command = ["config", "--local", "core.no_scm", "true"]
    status, _, tail = drive(command)
    if status != 0:
        raise StageError(f"dvc {command[0]} failed:\n{tail.strip()}", "run from the project's folder")


def add(path: Path) -> Path:
    """Put a folder under DVC's care; returns the .dvc file, which is git's to keep.

    Raises:
        StageError: DVC refuses.
    """
    status, _, tail = drive(["add", "--quiet", str(path)])
    if status != 0:
        raise StageError(
            f"dvc add {path} failed:\n{tail.strip()}", "mend the cause named above and run again"
        )
    return path.with_name(path.name + ".dvc")


def push() -> bool:
    """Send data and results to DVC's default remote; False where none is configured.

    Raises:
        StageError: the remote cannot be written.
    """
    status, output, _ = drive(["config", "core.remote"])
    if status != 0 or not output.strip():
        return False
    status, _, tail = drive(["push", "--run-cache"])
    if status != 0:
        raise StageError(
            f"dvc push failed:\n{tail.strip()}", "check the remote and the credentials, then run again"
        )
    return True


def drive(
    arguments: list[str],
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = None,
) -> tuple[int, str, str]:
    """Run dvc with these arguments: (exit status, standard output, last part of both outputs).

    Args:
        env: variables that it, and a stage that it runs, see besides this process's.
        live: receives standard error as it comes.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # the stage's `python` is this one; DVC_NO_ANALYTICS keeps it from starting a reporting process
    whole = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "true", **(env or {})}
    whole.pop("DVC_STAGE", None)
    return run_in_group([sys.executable, "-m", "dvc", "--wait-for-lock", *arguments], whole, live)


@contextmanager
def still(root: Path = Path()) -> Iterator[None]:
    """Hold DVC's lock: DVC writes dvc.lock in place, and a reader could see half of it."""
    from dvc.repo import Repo

    with Repo(str(root) if root != Path() else None, _wait_for_lock=True) as repo, repo.lock:
        yield


def preload() -> None:
    """Import what a running stage asks DVC with; no project is opened."""
    import dvc.dependency
    import dvc.repo
    import dvc.repo.index  # noqa: F401


def _lock_entries(root: Path = Path()) -> dict[str, Entry]:
    from ruamel.yaml import YAML

    lock = root / DVC_LOCK
    if not lock.exists():
        return {}
    # without .dvc, as in an exported folder, no DVC process writes the file
    with still(root) if (root / ".dvc").is_dir() else nullcontext():
        return YAML(typ="safe").load(lock).get("stages") or {}


def _running_entry(stage: str) -> Entry:
    """What dvc.lock will say of the command and inputs of the stage that runs now, or runs next."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo() as repo:
        (found,) = repo.stage.collect(stage)
        found.save_deps()
        deps = [d for d in found.deps if not isinstance(d, ParamsDependency)]
        params = [d for d in found.deps if isinstance(d, ParamsDependency)]
        return {
            "cmd": found.cmd,
            "deps": [{"path": d.def_path, "md5": d.hash_info.value} for d in deps],
            "params": {p.def_path: dict(p.hash_info.value) for p in params},
        }


def _key(entry: Entry) -> str:
    facts = {
        "cmd": entry["cmd"],
        "deps": {dep["path"]: dep["md5"] for dep in entry.get("deps", [])},
        "params": entry.get("params", {}),
    }
    return digest(json.dumps(facts, sort_keys=True, default=str))
