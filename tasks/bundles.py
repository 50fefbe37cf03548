"""Model bundles in folders of the project."""

import io
import shutil
from pathlib import Path

from segcore.errors import ModelError
from segcore.files import is_locked
from segcore.models.base.bundle import (
    DESCRIPTION,
    WEIGHTS,
    Bundle,
    load_description,
    read_bundle,
    verified_file,
)
from tasks.project import COMPARE_LOCK, MODELS

_WAIT = (
    "a comparison or a retraining is running in this folder and may train it again: wait until it ends, or use the "
    "champion"
)


def read_local(folder: Path) -> Bundle:
    """Read and check the bundle in a folder; an error in a trained model names the command that restores it.

    Raises:
        ModelError: as `read_bundle`.
    """
    try:
        return read_bundle(folder)
    except ModelError as error:
        raise ModelError(error.what, _remedy(folder, error.remedy)) from error


def read_history(folder: Path) -> io.BytesIO:
    """Content of a bundle's history.csv.

    Raises:
        ModelError: it is missing or not the file that model.json describes.
    """
    try:
        return io.BytesIO(verified_file(folder, "history.csv"))
    except ModelError as error:
        raise ModelError(error.what, _remedy(folder, error.remedy)) from error


def copy_bundle(bundle: Path, target: Path) -> None:
    """Copy the files of a bundle into an existing folder; other files beside them are no part of it.

    Raises:
        ModelError: there is no bundle.
    """
    # history.csv: bundles of older versions do not name it
    names = {DESCRIPTION, WEIGHTS, "history.csv", *load_description(bundle).get("files", {})}
    for name in sorted(names):
        if (bundle / name).is_file():
            shutil.copyfile(bundle / name, target / name)


def _remedy(folder: Path, otherwise: str) -> str:
    """What restores a bundle: its stage's output in the cache, if it is one of the trained models."""
    path = folder.absolute()
    if path.parent.name != MODELS.name:
        return otherwise
    if not (path / DESCRIPTION).exists():
        # DVC removes a model before it is trained again
        is_training = is_locked(path.parent.parent / COMPARE_LOCK)
        return _WAIT if is_training else otherwise
    return (
        f"run `dvc checkout --force {MODELS / path.name}`, which restores the trained files, or train again"
    )
