"""The files of an item, and stamps and hashes that show whether they have changed."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.files import digest, names_in, sha256
from segcore.io.images import picture
from segcore.io.images._checks import check_is_file, unreadable
from segcore.io.images._sidecars import world_files
from segcore.io.layouts._item import Item

Names = Callable[[Path], Collection[str] | None]
# formats of several files that share a stem
_SAME_STEM = (".shp",)
# formats with files beside them: by their whole name, and by their stem
_WITH_SIDECARS = (".tif", ".tiff", ".jp2", ".j2k", ".j2c", ".jpx", ".img", *picture.EXTENSIONS)
# annotations that are empty where an image has no objects
_MAY_BE_EMPTY = (".txt",)
_SIDECARS = (".aux.xml", ".msk", ".ovr")
_STEM_SIDECARS = (".tab", ".rpb", "_rpc.txt")
# time limit for reading an item: these seconds, and its size at this rate
_SECONDS, _BYTES_PER_SECOND = 120.0, 2e6


def _unlisted(folder: Path) -> None:
    """No listing: each file is looked up separately."""


def listed() -> Names:
    """Function that returns the names in a folder, listing each folder once; None if it cannot be listed."""
    return cache(names_in)


def files_of(path: Path) -> list[Path]:
    """All files that the content of an image or mask comes from."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file())
    if path.suffix.lower() in _SAME_STEM:
        return sorted(path.parent.glob(f"{path.stem}.*"))
    if path.suffix.lower() == ".vrt":
        from segcore.io.images.geotiff import sources

        return [path, *sources(path)]
    if path.suffix.lower() in (".mhd", ".nhdr"):
        from segcore.io.images._itk_header import read_header

        return [path, *read_header(path).files]
    return [path]


def _paths(item: Item, folder: Path) -> list[Path]:
    return [file for path in item.files for file in files_of(folder / path)]


def _sidecars(path: Path, names: Names) -> list[Path]:
    """Files beside a picture or GeoTIFF that affect its georeference, validity or nodata."""
    ending = path.suffix.lower()
    if ending not in _WITH_SIDECARS:
        return []
    by_stem = (*world_files(ending), *_STEM_SIDECARS)
    spelled = dict.fromkeys(text for ending in by_stem for text in (ending, ending.upper()))
    possible = [path.name + suffix for suffix in _SIDECARS] + [path.stem + suffix for suffix in spelled]
    existing = names(path.parent)
    if existing is None:
        # Path.exists raises OSError for a name that is too long with the suffix
        return [p for p in map(path.with_name, possible) if os.path.exists(p)]  # noqa: PTH110
    return [path.with_name(name) for name in possible if name in existing]


def files_of_item(item: Item, folder: Path) -> list[Path]:
    """All existing files of an item, with their sidecar files."""
    files = [file for file in _paths(item, folder) if file.exists()]
    return [*files, *(sidecar for path in files for sidecar in _sidecars(path, _unlisted))]


def more_files(row: Mapping[str, Any]) -> list[str]:
    """Files of an item's further bands, mask and object numbers, by its row in the catalogue of its folder."""
    parts = [path for _, path in json.loads(row.get("parts") or "[]")]
    numbers = [row["numbers"]] if row.get("numbers") else []
    return [*json.loads(row.get("channels") or "[]"), *(parts or [row["label"]]), *numbers]


def files_of_row(row: Mapping[str, Any], folder: Path) -> list[Path]:
    """All existing files of an item by its row in the catalogue of `folder`, with their sidecar files."""
    named = [row["image"], *more_files(row), row["valid"], *json.loads(row["baselines"] or "{}").values()]
    files = [file for name in named if name and (folder / name).exists() for file in files_of(folder / name)]
    return [*files, *(sidecar for path in files for sidecar in _sidecars(path, _unlisted))]


def sidecars_of(item: Item, folder: Path) -> list[Path]:
    """Files beside an item's images and masks that affect how they are read."""
    return [sidecar for path in _paths(item, folder) for sidecar in _sidecars(path, _unlisted)]


def stamp(item: Item, folder: Path, names: Names = _unlisted) -> str:
    """Names, sizes, times and inodes of an item's files as JSON: while it is unchanged, so is the content.

    Args:
        item: item with paths relative to `folder`.
        folder: source folder.
        names: from `listed`, to stamp many items faster; by default, each sidecar file is looked up separately.

    Raises:
        DataError: a file is missing or empty.
    """
    facts = []
    for path in _paths(item, folder):
        status = _status(path)
        if status.st_size == 0 and path.suffix.lower() not in _MAY_BE_EMPTY:
            # masks of several annotators can have the image's name
            alike = sum(other.name == path.name for other in _paths(item, folder)) > 2
            name = path.relative_to(folder).as_posix() if alike else path.name
            raise DataError(f"{name}: is empty (0 bytes)", "restore it from its source", kind="empty-file")
        facts.append((path.name, status.st_size, status.st_mtime_ns, status.st_ino))
        for sidecar in _sidecars(path, names):
            status = _status(sidecar)
            facts.append((sidecar.name, status.st_size, status.st_mtime_ns, status.st_ino))
    return json.dumps(facts)


def time_limit(stamp: str = "[]") -> float:
    """Seconds that reading an item may take, from the sizes of its files in the stamp."""
    return float(_SECONDS + sum(fact[1] for fact in json.loads(stamp)) / _BYTES_PER_SECOND)


def _status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except OSError as error:
        kind = "no-permission" if isinstance(error, PermissionError) else "unreadable"
        reason = error.strerror or str(error)
        raise DataError(
            f"{path.name}: {reason}", "restore the file, or its permissions", kind=kind
        ) from error
    check_is_file(path, status)
    return status


def content_hash(path: Path) -> str:
    """Hex sha256 of a file, or of all files of a folder."""
    files = files_of(path)
    return _content_hash(path, tuple(files), tuple(f.stat().st_mtime_ns for f in files))


# Cached, because a file of polygons or annotations may belong to many images.
@lru_cache(maxsize=16)
def _content_hash(path: Path, files: tuple[Path, ...], times: tuple[int, ...]) -> str:
    try:
        if files == (path,):
            return sha256(path)
        # The empty text ends the last line, so that hashes stay equal to those in older catalogues.
        return digest(*(f"{f.name} {sha256(f)}" for f in files), "")
    except PermissionError as error:
        raise DataError(
            f"{path.name}: may not be read", "give this user the right to read it", kind="no-permission"
        ) from error
    except OSError as error:
        # a damaged disk, or a file that was removed meanwhile
        raise unreadable(path, error) from error
