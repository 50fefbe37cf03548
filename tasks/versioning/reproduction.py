"""What results lack: to be given again by a clone on another machine, and to be of the present data and models."""

from pathlib import Path

from segcore.ingest import catalog
from segcore.names import ENSEMBLE
from segcore.params import Params
from tasks.project import DVC_LOCK, PARAMS, run_name, split_file, stage_name
from tasks.versioning import git, git_command, stages


def lacking(p: Params, root: Path = Path()) -> list[str]:
    """What must be done before the results can be reproduced from the present commit; empty if nothing.

    Args:
        p: all of params.yaml.
        root: the project's folder.
    """
    return [*_code(p, root), *_data(p, root)]


def uses_remote(p: Params, root: Path = Path()) -> bool:
    """Whether data come from DVC's remote: later batches, or a source that DVC tracks."""
    return bool(_batches(p, root)) or _is_tracked(p, root)


def outdated(p: Params, root: Path = Path()) -> list[str]:
    """Names of stages whose last result is of an earlier state of another stage's output, by dvc.lock."""
    entries = stages.lock_entries(root)
    made = {out["path"]: out.get("md5") for entry in entries.values() for out in entry.get("outs", [])}
    runs = [run_name(architecture, seed) for architecture in p.architectures for seed in p.seeds]
    names = [*(stage_name(kind, run) for kind in ("train", "evaluate") for run in runs), ENSEMBLE, "compare"]
    return [
        name
        for name in names
        if any(
            made.get(dep["path"], dep.get("md5")) != dep.get("md5")
            for dep in entries.get(name, {}).get("deps", [])
        )
    ]


def _code(p: Params, root: Path) -> list[str]:
    revision, dirty = git.state(root)
    if revision is None:
        return ["the project is in no git repository with a commit: commit it"]
    steps = []
    needed = [str(path) for path in (PARAMS, DVC_LOCK, split_file(p.data.name))]
    known = git_command.run("-C", str(root), "ls-tree", "--name-only", "HEAD", "--", *needed).stdout.split(
        "\n"
    )
    absent = [name for name in needed if name not in known]
    if dirty or absent:
        what = f"no commit has {', '.join(absent)}" if absent else ""
        what = " and ".join(filter(None, ["files were changed since the last commit" if dirty else "", what]))
        steps.append(f"{what}: commit them")
    branches = git_command.run("-C", str(root), "branch", "--remotes", "--contains", revision)
    if not branches.stdout.strip():
        steps.append(f"commit {revision[:12]} is on no remote branch: push it")
    return steps


def _data(p: Params, root: Path) -> list[str]:
    steps = []
    if not catalog.is_sample(p.data) and not _is_tracked(p, root):
        steps.append(
            f"the images in {p.data.source} are in this folder alone: version them with `dvc add`, or copy them to the "
            "same path on the other machine"
        )
    if uses_remote(p, root) and not _has_remote(root):
        steps.append("DVC has no remote with the data: add one (`dvc remote add --default`), then `dvc push`")
    return steps


def _batches(p: Params, root: Path) -> list[Path]:
    return sorted((root / p.data.batches / p.data.name).glob("*.dvc"))


def _is_tracked(p: Params, root: Path) -> bool:
    """Whether DVC tracks the folder of the source, or one above it."""
    source = Path(p.data.source)
    if source.is_absolute() or catalog.is_sample(p.data):
        return False
    parts = [part for part in (source, *source.parents) if part.name]
    return any((root / part.with_name(f"{part.name}.dvc")).is_file() for part in parts)


def _has_remote(root: Path) -> bool:
    return stages.remote_name(root) is not None
