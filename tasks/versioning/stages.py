"""DVC stages: running one, and the run key that identifies its result.

DVC runs as one subprocess per stage; its library is used only for the dependencies of a stage, for its lock, and in
tasks/versioning/status.py. All functions work on the project in the current folder.
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
from tasks import failures
from tasks.links import require_folders
from tasks.project import DVC_LOCK, EVALUATIONS, MODELS, PREPARED
from tasks.supervisor import run_in_group
from tasks.versioning import lock_repair
from tasks.versioning.dvc_command import answer_of, reason, run_dvc

Outcome = Literal["ran", "cached"]
# one stage's part of dvc.lock: cmd, deps, params, outs
Entry = dict[str, Any]
# lines of a stage's output that say nothing about its failure
_REPEATED = re.compile(
    r"^(ERROR: failed to reproduce|Running stage '|> |WARNING: Process .* had been killed|This is a defect).*\n?",
    re.MULTILINE,
)


class Stage(NamedTuple):
    """One stage of dvc.yaml.

    Attributes:
        name: such as `train@unet-0`.
        kind: name without the matrix item, such as `train`.
        upstream: names of the stages that it depends on directly.
        architecture: of a stage with a matrix; else None.
        seed: of a stage with a matrix; else None.
    """

    name: str
    kind: str
    upstream: tuple[str, ...]
    architecture: str | None
    seed: int | None


def _live(piece: str) -> None:
    """Print what a stage writes, without the line of DVC that repeats its failure."""
    sys.stderr.write(_REPEATED.sub("", piece))


def reproduce(
    stage: str,
    force: bool = False,
    env: Mapping[str, str] | None = None,
    live: Callable[[str], object] | None = _live,
) -> Outcome:
    """Bring one stage up to date; its upstream stages must already be up to date.

    Args:
        stage: its name, such as `train@unet-0`.
        force: run it even if nothing has changed.
        env: environment variables of the stage, in addition to those of this process.
        live: receives the command's standard error (progress bars) as it is written.

    Returns:
        "ran", or "cached" if nothing had changed or DVC restored the result.

    Raises:
        StageError: the stage failed; the message ends with the last lines of its output.
    """
    command = ["repro", "--single-item", *(["--force"] if force else []), stage]
    status, output, tail = run_dvc(command, env, live)
    if status != 0:
        # if DVC itself was killed, dvc.lock may be incomplete, and a retry would fail
        _, _, repairs = run_in_group([sys.executable, "-m", "tasks.versioning.lock_repair"])
        raise _failure(stage, status, repairs, tail)
    with dvc_locked():
        lock_repair.keep_copy()
    return "ran" if f"Running stage '{stage}':" in output.splitlines() else "cached"


def _failure(stage: str, status: int, repairs: str, tail: str) -> StageError:
    """The error of a failed stage: its own sentence where it printed one, else the last lines of its output."""
    found = failures.sentence_in(tail)
    if found:
        return StageError(f"stage {stage} failed: {repairs}{found[0]}", found[1])
    lines = [line for line in tail.strip().splitlines() if line and not _REPEATED.match(line)]
    if any(line.startswith("Traceback") for line in lines):
        # its lines were printed when it arrived
        cause, remedy = lines[-1], "see the traceback above; if it is a defect of segflow, report it"
    else:
        cause = "\n".join(lines) or reason(tail)
        remedy = "correct the cause above and run again; finished stages are kept"
    return StageError(f"stage {stage} failed with status {status}: {repairs}{cause}", remedy)


def prune(graph: list[Stage]) -> list[Path]:
    """Remove folders of trainings and evaluations that are no longer in params.yaml; DVC's cache keeps them.

    Later stages depend on the whole folders `models` and `evaluations`, so left-overs would give each clone other
    hashes. Folders with names other than `<architecture>-<seed>` are kept.

    Returns:
        The removed folders.
    """
    in_graph = {(s.kind, s.name.partition("@")[2]) for s in graph}
    removed = []
    for kind, folder in (("evaluate", EVALUATIONS), ("train", MODELS)):
        for path in sorted(folder.glob("*-*")):
            is_output = path.is_dir() and re.fullmatch(r"[a-z0-9_]+-\d+", path.name)
            if is_output and (kind, path.name) not in in_graph:
                rmtree(path)
                removed.append(path)
    return removed


def run_key(stage: str | None = None) -> str | None:
    """sha256 of a stage's command, dependency hashes and parameters; it identifies the stage's result.

    It is the same inside the running stage, before dvc.lock is written, and afterwards from dvc.lock.

    Args:
        stage: its name; None for the stage that this process runs.

    Returns:
        The key; None if DVC did not start this process (`stage` is None), or has no record of the stage.
    """
    running = os.environ.get("DVC_STAGE")
    if stage is None or stage == running:
        return _running_key(running) if running else None
    return run_keys().get(stage)


def run_keys() -> dict[str, str]:
    """Run keys of all stages with a result in dvc.lock, by stage name."""
    return {name: _key(entry) for name, entry in lock_entries().items()}


@lru_cache(maxsize=1)
def _running_key(stage: str) -> str:
    """Run key of the stage of this process; cached, since its inputs do not change while it runs and DVC is slow."""
    return _key(_running_entry(stage))


def next_run_key(stage: str) -> str:
    """The run key that `stage` would get if it ran now; its dependencies must exist.

    Raises:
        StageError: a dependency is missing.
    """
    from dvc.exceptions import DvcException

    try:
        return _key(_running_entry(stage))
    except (DvcException, OSError) as error:
        raise StageError(f"{stage}: {error}", "bring its upstream stages up to date first") from error


def recorded() -> set[str]:
    """Names of the stages with a result in dvc.lock."""
    return set(lock_entries())


def data_version(root: Path = Path()) -> str | None:
    """DVC's md5 of data/prepared, from dvc.lock; None before the first `prepare`."""
    outs = lock_entries(root).get("prepare", {}).get("outs", [])
    return next((out["md5"] for out in outs if Path(out["path"]) == PREPARED), None)


def init_if_needed() -> None:
    """Make this folder a DVC project if it is not one yet (a fresh clone is).

    A copy without .git, for example from an archive, has a DVC configuration that expects git: this sets
    core.no_scm there.

    Raises:
        StageError: DVC failed, or a folder that it manages is a link to another disk.
    """
    require_folders()
    folder, has_git = Path(".dvc"), Path(".git").exists()
    if not folder.is_dir():
        command = ["init", *([] if has_git else ["--no-scm"])]
    else:
        files = [file for file in (folder / "config", folder / "config.local") if file.exists()]
        is_configured = any(option in file.read_text() for file in files for option in ("no_scm", "subdir"))
        if has_git or is_configured:
            return
        command = ["config", "--local", "core.no_scm", "true"]
    status, _, tail = run_dvc(command)
    if status != 0:
        raise StageError(f"dvc {command[0]} failed: {reason(tail)}", "run from the project folder")


def add(path: Path) -> Path:
    """Track a folder with DVC; returns its .dvc file, which belongs into git.

    Raises:
        StageError: DVC failed.
    """
    # not --quiet, with which DVC does not print why it failed
    status, _, tail = run_dvc(["add", str(path)])
    if status != 0:
        raise StageError(f"dvc add {path} failed: {reason(tail)}", "correct the cause above and run again")
    return path.with_name(path.name + ".dvc")


def remote_name(root: Path = Path()) -> str | None:
    """Name of DVC's default remote in the project `root`; None if none is configured.

    The settings are read in this process: starting DVC takes seven times as long, and every round needs it.

    Raises:
        StageError: the settings cannot be read.
    """
    from dvc.config import Config, ConfigError

    try:
        folder = root / ".dvc"
        remote = Config(str(folder))["core"].get("remote") if folder.is_dir() else None
    except ConfigError as error:
        raise StageError(f".dvc/config: {error}", "correct it, then run again") from error
    return str(remote) if remote else None


def push() -> bool:
    """Push data and results to DVC's default remote; False if none is configured.

    Raises:
        StageError: DVC cannot write to the remote, or objects are neither in its cache nor in the remote.
    """
    return remote_name() is not None and answer_of("tasks.versioning.objects", "push")["remote"] is not None


@contextmanager
def dvc_locked(root: Path = Path()) -> Iterator[None]:
    """Hold DVC's lock: DVC writes dvc.lock in place, so a reader without the lock could see an incomplete file."""
    from dvc.repo import Repo

    with Repo(str(root) if root != Path() else None, _wait_for_lock=True) as repo, repo.lock:
        yield


def preload() -> None:
    """Import the parts of DVC that a stage uses; opens no project."""
    import dvc.dependency
    import dvc.repo
    import dvc.repo.index  # noqa: F401


def lock_entries(root: Path = Path()) -> dict[str, Entry]:
    """Content of dvc.lock by name of the stage; empty without it. A damaged file is a StageError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    lock = root / DVC_LOCK
    if not lock.exists():
        return {}
    # without .dvc, as in an exported folder, no DVC process writes the file
    with dvc_locked(root) if (root / ".dvc").is_dir() else nullcontext():
        try:
            return YAML(typ="safe").load(lock).get("stages") or {}
        except (YAMLError, UnicodeDecodeError, AttributeError) as error:
            raise StageError(
                f"{lock}: is damaged", "run `python -m tasks.versioning.lock_repair`, or restore it with git"
            ) from error


def _running_entry(stage: str) -> Entry:
    """Command and inputs of a stage that runs now or would run next, as DVC will write them to dvc.lock."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    # other stages of the flow may be writing dvc.lock
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        (dvc_stage,) = repo.stage.collect(stage)
        dvc_stage.save_deps()
        deps = [d for d in dvc_stage.deps if not isinstance(d, ParamsDependency)]
        params = [d for d in dvc_stage.deps if isinstance(d, ParamsDependency)]
        return {
            "cmd": dvc_stage.cmd,
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
