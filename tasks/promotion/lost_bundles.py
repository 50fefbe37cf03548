"""Bundles found by their hashes, wherever this machine and the store still have them.

Searched, in this order: models/, models downloaded to work/, versions and artifacts of the store, mlruns/ (also of an
earlier store), and DVC's cache.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import copyfile
from typing import Any

from segcore.errors import ModelError
from segcore.files import atomic_folder
from segcore.models.base.bundle import Hashes, verified
from tasks.project import CHAMPIONS, ENSEMBLES, FETCHED, MODELS, REBUILT
from tasks.promotion.history import RegisteredVersion
from tasks.versioning.cached_bundles import cached_bundles

_PLACES = (f"{MODELS}/*", f"{ENSEMBLES}/{MODELS}/*", f"{CHAMPIONS}/*", f"{FETCHED}/**")
_STORED = "mlruns/**"


def find_bundle(root: Path, row: RegisteredVersion) -> Path | None:
    """Folder with the bundle of a version, verified by both hashes where they are known; None if it is nowhere.

    Args:
        root: the project's folder; it is the current folder, since DVC works there.
        row: the version; without a hash of its weights, nothing is found.
    """
    if row.weights_sha256 is None:
        return None
    for pattern in (*_PLACES, _STORED):
        for folder in _bundles(root, pattern, row):
            return folder
    for files in cached_bundles():
        if _is_of(files["model.json"], row) and all(file.is_file() for file in files.values()):
            folder = _copied(root / REBUILT / str(row.version), files)
            if is_bundle(folder, row):
                return folder
    return None


def stored_bundles(root: Path, row: RegisteredVersion) -> Iterator[Path]:
    """Folders of MLflow stores on this machine that have the bundle of a version, as `find_bundle`."""
    return _bundles(root, _STORED, row)


def _bundles(root: Path, pattern: str, row: RegisteredVersion) -> Iterator[Path]:
    for file in sorted(root.glob(f"{pattern}/model.json")):
        if _is_of(file, row) and is_bundle(file.parent, row):
            yield file.parent


def is_bundle(folder: Path, row: RegisteredVersion) -> bool:
    """Whether a folder has the bundle of a version."""
    try:
        verified(folder, Hashes(row.weights_sha256, row.description_sha256))
    except ModelError:
        return False
    return True


def _is_of(file: Path, row: RegisteredVersion) -> bool:
    """Whether a model.json names the weights of a version; reading it is faster than hashing the weights."""
    content: Any = None
    with suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
    return isinstance(content, dict) and content.get("weights_sha256") == row.weights_sha256


def _copied(target: Path, files: dict[str, Path]) -> Path:
    with atomic_folder(target) as part:
        for name, file in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(file, part / name)
    return target
