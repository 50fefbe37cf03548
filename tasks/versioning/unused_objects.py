"""Objects in DVC's cache that nothing needs any more.

    python -m tasks.versioning.unused_objects DATASET --keep 10 --weights SHA256 ... [--remove]

Kept is what these need: dvc.lock and all .dvc files of the working tree; the .dvc files of all commits, with them every
batch; dvc.lock of all commits of other data sets, of all branches and of tags other than data/DATASET/*; the last KEEP
versions of dvc.lock of this data set; bundles with the given weights. `dvc gc --all-tags` would remove nothing of old
rounds, because the tag of each batch also names the dvc.lock of its time.

Prints the answer as JSON in the last line.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from segcore.errors import StageError
from tasks import console
from tasks.project import DVC_LOCK
from tasks.versioning import git_command, git_repository
from tasks.versioning.dvc_command import print_answer


def survey(dataset: str, keep: int, weights: set[str], remove: bool) -> dict[str, Any]:
    """Number and bytes of the unused objects and run-cache entries, which are removed on demand.

    Returns:
        `objects` and `entries`, each (number, bytes), or `outside`, the path of a cache outside of this project.

    Raises:
        StageError: a DVC command runs.
    """
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo, repo.lock:
        cache = Path(repo.cache.local.path).resolve()
        if not cache.is_relative_to(Path(repo.dvc_dir).resolve()):
            return {"outside": str(cache)}
        _require_idle(Path(repo.tmp_dir))
        used = _used(repo, dataset, keep)
        objects = {
            path.parent.name + path.name: path for path in sorted(cache.glob("??/*")) if path.is_file()
        }
        used |= _bundles(objects, used, weights)
        unused = [path for name, path in objects.items() if name not in used]
        entries = [
            path for path in Path(repo.stage_cache.cache_dir).glob("??/*/*") if not _outs(path) <= used
        ]
        answer = {"objects": _count(unused), "entries": _count(entries)}
        if remove:
            # lists of folders before their files: a list without files would stand for a complete folder
            for path in (*entries, *sorted(unused, key=lambda path: path.suffix != ".dir")):
                path.unlink(missing_ok=True)
        return answer


def _count(paths: list[Path]) -> tuple[int, int]:
    return len(paths), sum(path.stat().st_size for path in paths)


def _require_idle(tmp: Path) -> None:
    """Check that no stage runs: its inputs may be in the cache only."""
    content = _json(tmp / "rwlock") or {}
    entries = [entry for kinds in content.values() for entry in kinds.values()]
    for holder in (one for entry in entries for one in (entry if isinstance(entry, list) else [entry])):
        with suppress(psutil.Error):
            # a process that was killed leaves its entry, and its id may be that of another one
            if "dvc" in " ".join(psutil.Process(holder["pid"]).cmdline()):
                raise StageError(
                    f"process {holder['pid']} runs a stage in this folder",
                    "wait until it ends, then run again",
                )


def _json(path: Path) -> Any:
    """Content of a JSON file; None if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _used(repo: Any, dataset: str, keep: int) -> set[str]:
    """Hashes of all objects that are needed, without those of bundles by weights."""
    roots = {out.hash_info.value for out in repo.index.outs if out.hash_info}
    if git_repository.require_readable() is not None:
        roots |= _of_commits(dataset, keep)
    return roots | {name for root in roots for name in _listed(Path(repo.cache.local.path), root)}


def _listed(cache: Path, name: str) -> Iterator[str]:
    """Hashes of the files of a folder; none if the object is no list or is not in the cache."""
    if name.endswith(".dir"):
        yield from (entry["md5"] for entry in _json(cache / name[:2] / name[2:]) or [])


def _of_commits(dataset: str, keep: int) -> set[str]:
    locks, tracked = _blobs(str(DVC_LOCK)), _blobs("*.dvc")
    needed = set(tracked) | _of_refs(dataset)
    own = [blob for blob in locks if _dataset(_content(blob)) == dataset]
    needed |= set(locks) - set(own[keep:])
    return {name for blob in needed for name in _hashes(_content(blob))}


def _blobs(pattern: str) -> dict[str, None]:
    """All committed versions of the files that match a pattern, latest first."""
    options = ("--all", "--raw", "--no-abbrev", "--no-renames", "-m", "--format=")
    rows = git_command.checked("log", *options, "--", pattern).splitlines()
    # :mode mode old new kind<TAB>path; a deleted file has zeros
    blobs = [row.split()[3] for row in rows if row.startswith(":")]
    return dict.fromkeys(blob for blob in blobs if blob.strip("0"))


def _of_refs(dataset: str) -> set[str]:
    """dvc.lock of branches, and of tags that segflow did not make for this data set."""
    names = git_command.checked("for-each-ref", "--format=%(refname)").splitlines()
    own = f"refs/tags/data/{dataset}/"
    found = (
        git_command.run("rev-parse", "--quiet", "--verify", f"{name}:./{DVC_LOCK}").stdout.strip()
        for name in ("HEAD", *names)
        if not name.startswith(own)
    )
    return {blob for blob in found if blob}


def _content(blob: str) -> Any:
    return _parsed(git_command.checked("cat-file", "blob", blob))


def _parsed(text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text) or {}
    except YAMLError:
        # committed with merge conflicts; DVC cannot use it
        return {}


def _dataset(lock: Any) -> str | None:
    """`data.name` at the time of a dvc.lock; None if it has no ingest."""
    params = lock.get("stages", {}).get("ingest", {}).get("params", {}).get("params.yaml", {})
    name = params.get("data", {}).get("name")
    return None if name is None else str(name)


def _hashes(content: Any) -> set[str]:
    """Hashes of the outputs in a dvc.lock, a .dvc file or an entry of the run cache."""
    parts = [content, *content.get("stages", {}).values()]
    return {str(out["md5"]) for part in parts for out in part.get("outs", []) if "md5" in out}


def _outs(entry: Path) -> set[str]:
    return _hashes(_parsed(entry.read_text(encoding="utf-8")))


def _bundles(objects: dict[str, Path], used: set[str], weights: Iterable[str]) -> set[str]:
    """Hashes of folders with a model.json that names one of these weights, and of their files."""
    wanted, found = set(weights), set[str]()
    for name in objects:
        if not name.endswith(".dir") or name in used:
            continue
        entries = _json(objects[name]) or []
        descriptions = [objects.get(e["md5"]) for e in entries if e["relpath"] == "model.json"]
        if any(path is not None and _weights(path) in wanted for path in descriptions):
            found |= {name, *(entry["md5"] for entry in entries)}
    return found


def _weights(description: Path) -> str | None:
    content = _json(description)
    return content.get("weights_sha256") if isinstance(content, dict) else None


def _print_here(arguments: argparse.Namespace) -> None:
    print_answer(lambda: survey(arguments.dataset, arguments.keep, set(arguments.weights), arguments.remove))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.versioning.unused_objects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help="data.name")
    parser.add_argument("--keep", type=int, required=True, help="number of versions of dvc.lock")
    parser.add_argument("--weights", nargs="*", default=[], help="sha256 of weights whose bundles are kept")
    parser.add_argument("--remove", action="store_true", help="remove them")
    console.run(_print_here, parser)


if __name__ == "__main__":
    main()
