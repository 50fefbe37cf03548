"""Objects in DVC's cache and remote: pushing all of them, fetching those of batches, and batches that were edited.

    python -m tasks.versioning.objects push
    python -m tasks.versioning.objects pull data/batches/x/b1.dvc ...
    python -m tasks.versioning.objects changed data/batches/x/b1.dvc ...

Each prints its answer as JSON in the last line. Run as a subprocess, so that the caller does not import DVC.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segcore.files import atomic_folder
from tasks import console
from tasks.versioning.dvc_command import print_answer

_NAMED = 3


def _push(_: list[str]) -> dict[str, Any]:
    """Push everything; DVC passes over objects that are neither in its cache nor in the remote with exit status 0."""
    from dvc.cli import main as dvc
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:
        if not repo.config["core"].get("remote"):
            return {"remote": None}
    if dvc(["--wait-for-lock", "push", "--run-cache"]) != 0:
        return {
            "failed": "dvc push failed",
            "remedy": "check the remote's address, space and credentials (dvc remote list), then run again",
        }
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        outs = [out for out in repo.index.outs if out.use_cache and out.hash_info and out.can_push]
        lacking = {out: names for out in outs if (names := _missing(repo, out))}
        if lacking:
            return {"error": _lacking_text(lacking)}
        return {"remote": repo.config["core"]["remote"]}


def _lacking_text(lacking: dict[Any, list[str]]) -> list[str]:
    what = [f"{out.stage.addressing} ({_listed(names)})" for out, names in lacking.items()]
    remedies = dict.fromkeys(_remedy(out) for out in lacking)
    return [
        f"dvc push: neither DVC's cache nor its remote has all objects of {', '.join(what)}",
        f"{'; '.join(remedies)}; then run again",
    ]


def _remedy(out: Any) -> str:
    is_here = out.exists and not out.workspace_status()
    if not out.stage.is_data_source:
        how = "commit --force" if is_here else "repro --force --single-item"
        return f"dvc {how} {out.stage.addressing}"
    return f"{'' if is_here else f'copy the files of {out} here from another machine, and '}dvc add {out}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _missing(repo: Any, out: Any) -> list[str]:
    """Paths in an output whose objects are neither in the cache nor in its remote."""
    from dvc_data.hashfile.db import get_index

    absent = _absent(out)
    if not absent:
        return []
    remote = repo.cloud.get_remote(out.remote)
    if remote.fs.version_aware or remote.worktree:
        # such a remote has files instead of objects
        return []
    odb = repo.cloud.get_remote_odb(out.remote, hash_name=out.hash_name)
    oid = out.hash_info.value
    if out.hash_info.isdir and oid in absent and odb.exists(oid):
        absent = {one: name for one, name in _objects(out, odb).items() if not _is_cached(out, one)}
    present = set(odb.list_oids_exists(list(absent)))
    missing = [name for one, name in absent.items() if one not in present]
    if missing:
        # with a folder's list in the remote, DVC takes its files for pushed, and would not push them once restored
        get_index(odb).clear()
        if out.hash_info.isdir and _is_cached(out, oid) and odb.exists(oid):
            odb.fs.remove(odb.oid_to_path(oid))
    return missing


def _absent(out: Any) -> dict[str, str]:
    """Objects of an output that are not in the cache: path by hash; a folder whose list is absent as a whole."""
    oid = out.hash_info.value
    if not _is_cached(out, oid):
        return {oid: str(out)}
    return {oid: name for oid, name in _objects(out, out.cache).items() if not _is_cached(out, oid)}


def _objects(out: Any, odb: Any) -> dict[str, str]:
    """Path by hash of all objects of an output; a folder's list is read from this object database."""
    from dvc_data.hashfile.tree import Tree

    oid = out.hash_info.value
    if not out.hash_info.isdir:
        return {oid: str(out)}
    tree = Tree.load(odb, out.hash_info)
    return {oid: str(out), **{info.value: f"{out}/{'/'.join(key)}" for key, _, info in tree}}


def _is_cached(out: Any, oid: str) -> bool:
    return Path(out.cache.oid_to_path(oid)).exists()


def _pull(paths: list[str]) -> dict[str, Any]:
    """Make folders of batches from objects; each appears as a whole. Answer: paths for which objects are missing."""
    from dvc.cli import main as dvc
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:
        remote = repo.config["core"].get("remote")
        incomplete = [path for path in paths if _absent(_out_of(repo, path))]
    if incomplete and remote:
        status = dvc(["--wait-for-lock", "fetch", *incomplete])
        with Repo(_wait_for_lock=True) as repo:
            place = repo.cloud.get_remote(remote)
            if place.fs.protocol == "local" and not Path(place.path).is_dir():
                what = f"batches cannot be pulled: {place.path}, the folder of DVC's remote {remote}, is not there"
                return {"error": [what, "mount it, or correct its address (dvc remote list), then run again"]}
            if status != 0 and not _answers(place):
                return {
                    "failed": "batches cannot be pulled",
                    "remedy": "check the remote's address and credentials (dvc remote list), then run again",
                }
    missing = []
    with Repo(_wait_for_lock=True) as repo, repo.lock:
        for path in paths:
            out = _out_of(repo, path)
            if _absent(out):
                missing.append(path)
            else:
                _check_out(repo, out)
    return {"remote": remote, "missing": missing}


def _answers(remote: Any) -> bool:
    """Whether the remote can be read, so that DVC's error is that it lacks objects."""
    try:
        remote.fs.exists(remote.path)
    except Exception:  # noqa: BLE001
        # each kind of remote has errors of its own
        return False
    return True


def _check_out(repo: Any, out: Any) -> None:
    from dvc_data.hashfile.checkout import checkout

    with atomic_folder(Path(out.fspath)) as part:
        checkout(str(part), out.fs, out.get_obj(), out.cache, force=True, state=repo.state, quiet=True)


def _changed(paths: list[str]) -> dict[str, Any]:
    """What differs between the folders of batches and their .dvc files; nothing for those that fit."""
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        outs = {path: _out_of(repo, path) for path in paths}
        return {"changed": {path: _difference(out) for path, out in outs.items() if out.workspace_status()}}


def _difference(out: Any) -> str:
    from dvc_data.hashfile.build import build

    if not _is_cached(out, out.hash_info.value):
        return "its files differ"
    found: Any
    _, _, found = build(out.cache, out.fs_path, out.fs, out.hash_name, dry_run=True, ignore=out.dvcignore)
    before, now = ({"/".join(key): info.value for key, _, info in tree} for tree in (out.get_obj(), found))
    parts = (
        ("changed", [name for name in before if name in now and now[name] != before[name]]),
        ("removed", [name for name in before if name not in now]),
        ("added", [name for name in now if name not in before]),
    )
    return "; ".join(f"{what}: {_listed(sorted(names))}" for what, names in parts if names)


def _out_of(repo: Any, path: str) -> Any:
    (stage,) = repo.stage.load_file(path)
    return stage.outs[0]


_COMMANDS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "push": _push,
    "pull": _pull,
    "changed": _changed,
}


def _answer(arguments: argparse.Namespace) -> None:
    print_answer(lambda: _COMMANDS[arguments.command](arguments.paths))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.versioning.objects", description=__doc__)
    parser.add_argument("command", choices=_COMMANDS)
    parser.add_argument("paths", nargs="*", help=".dvc files")
    console.run(_answer, parser)


if __name__ == "__main__":
    main()
