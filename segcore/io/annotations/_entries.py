"""Entries of an annotation file that covers several images, found by the name of an image."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from segcore.errors import DataError
from segcore.io.annotations._shared import ids


class Entries:
    """Entries by file name.

    Args:
        name: of the annotation file.
        entries: file name of the image, as it stands in the annotation file, id, and entry.
    """

    def __init__(self, name: str, entries: Iterable[tuple[str, object, Any]]) -> None:
        self._name = name
        self._named: dict[str, list[tuple[PurePosixPath, object, Any]]] = {}
        self._stems: dict[str, list[tuple[PurePosixPath, object, Any]]] = {}
        folders = []
        for file_name, number, entry in entries:
            path = PurePosixPath(file_name.replace("\\", "/"))
            folders.append(path.parent)
            self._named.setdefault(path.name, []).append((path, number, entry))
            self._stems.setdefault(path.stem, []).append((path, number, entry))
        # Paths of exports often begin with folders of the exporting machine, the same for all images.
        self._prefix = len(_common(folders)) if folders else 0

    def of(self, path: Path) -> Any:
        """Entry of an image.

        The folders in the file name must match those of the image, except for leading folders common to all entries.
        Where no entry has the name of the image, one with the same stem and another extension is its entry.

        Args:
            path: absolute path of the image.

        Raises:
            DataError: no entry, or several ones.
        """
        named = self._named.get(path.name) or [
            (p.with_name(path.name), number, entry) for p, number, entry in self._stems.get(path.stem, [])
        ]
        found = [(n, e) for p, n, e in named if _ends_with(path, p.parts)]
        found = found or [(n, e) for p, n, e in named if _ends_with(path, p.parts[self._prefix :])]
        if len(found) == 1:
            return found[0][1]
        if found:
            what = f"lists {path.name} {len(found)} times (ids {ids(n for n, _ in found)})"
            remedy = "keep one entry, or include the folders in its file name"
        elif named:
            what = f"lists {path.name} only in other folders ({ids(p for p, _, _ in named)})"
            remedy = "correct the file name in the annotations, or move the image"
        else:
            what = f"does not list the image {path.name}; it lists {ids(self._named, most=3) or 'none'}"
            remedy = "add it to the images of the annotations, even without objects, or remove the image"
        raise DataError(f"{self._name}: {what}", remedy, kind="not-annotated")


def _common(folders: list[PurePosixPath]) -> tuple[str, ...]:
    """Leading folders common to all."""
    first, last = min(f.parts for f in folders), max(f.parts for f in folders)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: same.index(False) if False in same else len(same)]


def _ends_with(path: Path, parts: tuple[str, ...]) -> bool:
    parts = tuple(p for p in parts if p not in (".", "..", "/"))
    return path.parts[-len(parts) :] == parts
