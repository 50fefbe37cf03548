"""Folders of batches against their .dvc files: edited by hand, or not on this machine yet."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from segcore.errors import StageError
from segcore.files import atomic_write, digest, sha256
from tasks.project import BATCH_STAMPS
from tasks.versioning.dvc_command import answer_of

_MODULE = "tasks.versioning.objects"


def changed_batches(
    folders: Mapping[str, Path], stamps: Path = BATCH_STAMPS, read_only: bool = False
) -> dict[str, str]:
    """Batches whose files differ from their .dvc file, which names the data that a tag of git stands for.

    DVC compares only those that were touched since they last fitted. Batches without folder or .dvc file are left out.

    Args:
        folders: folder of each batch by name.
        stamps: JSON file with a digest of each batch that fitted.
        read_only: do not write `stamps`.

    Returns:
        What differs, by name.

    Raises:
        StageError: DVC failed.
    """
    kept: dict[str, str] = _read(stamps)
    present = {n: f for n, f in folders.items() if f.is_dir() and _tracked(f).is_file()}
    found = {name: _stamp(folder) for name, folder in present.items()}
    to_check = {str(_tracked(present[name])): name for name in present if kept.get(name) != found[name]}
    if not to_check:
        return {}
    answer = answer_of(_MODULE, "changed", *to_check)["changed"]
    changed = {to_check[path]: text for path, text in answer.items()}
    if not read_only:
        with atomic_write(stamps) as part:
            part.write_text(json.dumps({n: stamp for n, stamp in found.items() if n not in changed}))
    return changed


def require_unchanged_batches(parent: Path, read_only: bool = False) -> None:
    """Check that no batch in this folder was edited by hand.

    Args:
        parent: folder of a dataset's batches, each with its .dvc file beside it.
        read_only: change no file.

    Raises:
        StageError: one was, or DVC failed.
    """
    folders = {path.stem: path.with_suffix("") for path in sorted(parent.glob("*.dvc"))}
    changed = changed_batches(folders, read_only=read_only)
    if changed:
        texts = [f"{folders[name]} ({text})" for name, text in changed.items()]
        first = folders[next(iter(changed))]
        raise StageError(
            f"batches never change, but the files of these differ from their .dvc files: {', '.join(texts)}",
            f"undo it: dvc checkout --force {_tracked(first)}; or accept it as the batch's content: dvc add {first}",
        )


def missing_batches(parent: Path) -> list[Path]:
    """The .dvc files of batches whose folder is not here, as in a new clone.

    Args:
        parent: folder of a dataset's batches.
    """
    return [path for path in sorted(parent.glob("*.dvc")) if not path.with_suffix("").exists()]


def pull(tracked: Sequence[Path]) -> None:
    """Make the folders of batches from DVC's cache and default remote; each appears as a whole or not at all.

    Args:
        tracked: .dvc files, from `missing_batches`.

    Raises:
        StageError: no remote is configured, it cannot be reached, or it lacks objects.
    """
    if not tracked:
        return
    answer = answer_of(_MODULE, "pull", *map(str, tracked))
    if not answer["missing"]:
        return
    names = " ".join(answer["missing"])
    if answer["remote"] is None:
        raise StageError(
            f"the data of these batches are not on this machine, and DVC has no default remote: {names}",
            "dvc remote add --default NAME ADDRESS, with the address to which they were pushed, then run again, or "
            f"dvc pull {names}",
        )
    raise StageError(
        f"the data of these batches are neither on this machine nor in DVC's remote {answer['remote']}: {names}",
        f"on the machine that has them: dvc push {names}; then here: dvc pull {names}",
    )


def _tracked(folder: Path) -> Path:
    return folder.with_name(folder.name + ".dvc")


def _read(stamps: Path) -> dict[str, str]:
    """The digests; none if the file cannot be read: then DVC compares all batches."""
    try:
        content = json.loads(stamps.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _stamp(folder: Path) -> str:
    """Digest of path, size, time and inode of all files, and of the .dvc file."""
    facts = []
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            found = path.lstat()
            name = path.relative_to(folder).as_posix()
            facts.append(f"{name} {found.st_size} {found.st_mtime_ns} {found.st_ino}")
    return digest(str(folder), sha256(_tracked(folder)), *sorted(facts))
