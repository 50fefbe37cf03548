"""Exported models of the project, and what runs them instead of the network of a bundle.

Import-light: torch and runtimes are imported when a model is run.
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.errors import ExportError
from segcore.export import EAGER, RECORD, RUNTIMES, require_packages
from segcore.files import cached_json
from tasks.project import EXPORTS
from tasks.tracking.fetch import Found, folder_name

if TYPE_CHECKING:
    from segcore.models.base.model import SegmentationModel

__all__ = ["EAGER", "add_runtime", "exported_model", "file_sha256", "folder_of", "name_of"]


def name_of(found: Found) -> str:
    """Name of a model's folder below exports/: `unet-0`, or `<name>-<version>` of a registered version."""
    if found.name is None or found.version is None:
        return found.bundle.folder.resolve().name
    return folder_name(found.name, found.version)


def folder_of(name: str, runtime: str, root: Path = Path()) -> Path:
    """Folder of the exported file that a runtime runs.

    Args:
        name: from `name_of`.
        runtime: a key of `RUNTIMES`.
        root: the project's folder.
    """
    return root / EXPORTS / name / RUNTIMES[runtime].format


def exported_model(found: Found, runtime: str, address: str, root: Path = Path()) -> "SegmentationModel":
    """An exported file of a model as a network.

    Args:
        found: the model.
        runtime: a key of `RUNTIMES`.
        address: of the model, for the remedy.
        root: the project's folder.

    Raises:
        ExportError: there is no export of this model, it is damaged, or a package is missing.
    """
    from segcore.export._runtime import load

    how = RUNTIMES[runtime]
    require_packages(how.packages, how.extra)
    try:
        return load(folder_of(name_of(found), runtime, root), found.bundle, runtime)
    except ExportError as error:
        command = f"python -m tasks export --model {shlex.quote(address)} --format {how.format}"
        raise ExportError(error.what, f"run `{command}`") from error


def file_sha256(found: Found, runtime: str, root: Path = Path()) -> str:
    """Hash of an exported file, as its record states it; empty without a record."""
    record = cached_json(folder_of(name_of(found), runtime, root) / RECORD) or {}
    return str(record.get("sha256", ""))


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the argument --runtime."""
    parser.add_argument(
        "--runtime",
        choices=(EAGER, *RUNTIMES),
        default=EAGER,
        help="what computes: the network itself, or a file of it that `python -m tasks export` wrote "
        "(default: %(default)s)",
    )
