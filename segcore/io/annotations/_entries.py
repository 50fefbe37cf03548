"""Entries of an annotation file that covers several images, found by the name of an image."""

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from segcore.data.raster import Note
from segcore.errors import DataError
from segcore.io.annotations._shared import ids

# Label Studio names an uploaded a.png such as 3f2a1b07-a.png.
_UPLOADED = re.compile(r"^(?=[0-9]*[a-f])[0-9a-f]{6,36}-")
# Most names that are compared to find the most similar one.
_MOST = 2000


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
        self._plain: dict[str, list[str]] | None = None
        # Paths of exports often begin with folders of the exporting machine, the same for all images.
        self._prefix = len(_common(folders)) if folders else 0

    def unmatched(self, paths: Iterable[Path]) -> list[str]:
        """File names of the entries that belong to none of some images, as absolute paths."""
        matched = set()
        for path in paths:
            try:
                matched.add(id(self.of(path)[0]))
            except DataError:
                # the image is quarantined with this error
                continue
        entries = [entry for named in self._named.values() for entry in named]
        return [str(path) for path, _, entry in entries if id(entry) not in matched]

    def __len__(self) -> int:
        return sum(map(len, self._named.values()))

    def of(self, path: Path) -> tuple[Any, list[Note]]:
        """Entry of an image, and a note if it has another name.

        The folders in the file name must match those of the image, except for leading folders common to all entries.
        Where no entry has the name of the image, one with the same stem and another extension is its entry. Else it is
        the only one whose name differs in nothing but case or a prefix that programs add to uploaded files.

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
            return found[0][1], []
        if not named and (other := self._spelled_otherwise(path)):
            name, entry = other
            return entry, _note(self._name, name, path)
        if found:
            what = f"lists {path.name} {len(found)} times (ids {ids(n for n, _ in found)})"
            remedy = "keep one entry, or include the folders in its file name"
        elif named:
            what = f"lists {path.name} only in other folders ({ids(p for p, _, _ in named)})"
            remedy = "correct the file name in the annotations, or move the image"
        else:
            what = f"does not list the image {path.name}; it lists {ids(self._named, most=3) or 'none'}"
            remedy = "add it to the images of the annotations, even without objects, or remove the image"
            if nearest := self._nearest(path.name):
                what += f"; the most similar name is {nearest}"
                remedy = f"if {nearest} is this image, give both the same name; otherwise {remedy}"
        raise DataError(f"{self._name}: {what}", remedy, kind="not-annotated")

    def _spelled_otherwise(self, path: Path) -> tuple[str, Any] | None:
        """Name and entry of the only one that differs in case, Unicode form or a prefix; None for none or several.

        An entry of another existing file is not of this image.
        """
        if self._plain is None:
            self._plain = {}
            for name in self._named:
                composed = _composed(name)
                for plain in dict.fromkeys((composed, _UPLOADED.sub("", composed))):
                    self._plain.setdefault(plain, []).append(name)
        names = self._plain.get(_composed(path.name), [])
        same_form = [n for n in names if _normal(n) == _normal(path.name)]
        names = same_form or [n for n in names if not _is_other_file(path.with_name(n), path)]
        if len(names) != 1 or len(self._named[names[0]]) != 1:
            return None
        return names[0], self._named[names[0]][0][2]

    def _nearest(self, name: str) -> str:
        """The most similar name of an entry; empty for none, and among very many."""
        if len(self._named) > _MOST:
            return ""
        plain = {_composed(n): n for n in self._named}
        return next((plain[n] for n in get_close_matches(_composed(name), plain, 1, 0.75)), "")


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _composed(name: str) -> str:
    return _normal(name).casefold()


def _is_other_file(other: Path, path: Path) -> bool:
    return other.exists() and not (path.exists() and other.samefile(path))


def _note(file: str, name: str, path: Path) -> list[Note]:
    if _normal(name) == _normal(path.name):
        return []
    text = f"{file} lists no {path.name}; its entry {name}, whose name differs only in case or a prefix, was taken"
    return [("other-image", text)]


def _common(folders: list[PurePosixPath]) -> tuple[str, ...]:
    """Leading folders common to all."""
    first, last = min(f.parts for f in folders), max(f.parts for f in folders)
    same = [a == b for a, b in zip(first, last, strict=False)]
    return first[: same.index(False) if False in same else len(same)]


def _ends_with(path: Path, parts: tuple[str, ...]) -> bool:
    parts = tuple(p for p in parts if p not in (".", "..", "/"))
    return path.parts[-len(parts) :] == parts
