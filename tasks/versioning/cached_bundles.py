"""Model bundles in DVC's cache, by the hash of their weights; results that dvc.lock no longer names included."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segcore.errors import StageError
from tasks.versioning.stages import run_dvc

_FILES = {"model.json", "model.safetensors"}


def cached_bundles() -> Iterator[dict[str, Path]]:
    """For each folder in the cache of the project here that is a model bundle: its files in the cache, by name.

    Only model.json is known to be complete: DVC removes objects one by one, so the other files may be missing.

    Raises:
        StageError: DVC failed.
    """
    if not Path(".dvc").is_dir():
        return
    status, output, tail = run_dvc(["cache", "dir"])
    if status != 0:
        raise StageError(f"dvc cache dir failed:\n{tail.strip()}", "correct .dvc/config, then run again")
    # older versions of DVC had no folder files/md5
    for objects in (Path(output.strip()) / "files/md5", Path(output.strip())):
        for listing in sorted(objects.glob("??/*.dir")):
            files = {name: objects / md5[:2] / md5[2:] for name, md5 in _entries(listing).items()}
            if files.keys() >= _FILES and files["model.json"].is_file():
                yield files


def _entries(listing: Path) -> Mapping[str, str]:
    """md5 of each file of a cached folder by its name; empty for a damaged listing, which DVC itself reports."""
    try:
        entries: Any = json.loads(listing.read_text(encoding="utf-8"))
        return {str(entry["relpath"]): str(entry["md5"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
