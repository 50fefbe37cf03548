"""Finds files of a source folder without leaving it, and checks their names."""

import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from segcore.errors import DataError
from segcore.files import names_in
from segcore.io import images
from segcore.io.images._conversions import conversion
from segcore.io.layouts._names import is_archive, is_data_of_header, is_junk, is_safe, printable
from segcore.io.layouts._nearest import Names, same_form
from segcore.io.layouts._patterns import Match, Pattern, stem_of

# root of the annotations of CVAT and Pascal VOC, and bytes in which it is looked for
_ANNOTATION, _HEAD = re.compile(rb"<annotations?[\s>]"), 2**12


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    # A name that no file can have: too long, or with a zero byte.
    except (OSError, ValueError):
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    # A link to itself.
    except OSError:
        return False


class Folder:
    """A source folder; caches listings, and which of its folders are inside it once links are resolved.

    Args:
        path: of the folder.
        links_to: folders outside it that links may point into.

    Attributes:
        links_out: links to folders outside that `find` has skipped.
    """

    def __init__(self, path: Path, links_to: Sequence[str] = ()) -> None:
        self.path = path
        self._real = path.resolve()
        self._roots = [self._real, *(Path(folder).resolve() for folder in links_to)]
        self._inside: dict[PurePosixPath | Path, bool] = {}
        self._stems: dict[PurePosixPath, dict[str, list[str]]] = {}
        self._links: dict[PurePosixPath | Path, dict[str, bool]] = {}
        self._names: dict[PurePosixPath, Names] = {}
        self.links_out: set[str] = set()

    def is_inside(self, relative: PurePosixPath | Path) -> bool:
        """Whether a path with links resolved is inside the folder or links_to; it need not exist."""
        parent = relative.parent
        if ".." in relative.parts or self._is_link(relative):
            return self._resolves_inside(self.path / relative)
        if parent not in self._inside:
            self._inside[parent] = self._resolves_inside(self.path / parent)
        return self._inside[parent]

    def _is_link(self, relative: PurePosixPath | Path) -> bool:
        is_link = self._listed(relative.parent).get(relative.name)
        return _is_link(self.path / relative) if is_link is None else is_link

    def _listed(self, parent: PurePosixPath | Path) -> dict[str, bool]:
        """Entries of a folder: name -> whether it is a link; cached, so that files are not examined one by one."""
        if parent not in self._links:
            self._links[parent] = names_in(self.path / parent) or {}
        return self._links[parent]

    def _resolves_inside(self, path: Path) -> bool:
        try:
            real = path.resolve()
            return any(real.is_relative_to(root) for root in self._roots)
        # A loop of links.
        except (OSError, RuntimeError, ValueError):
            return False

    def _is_loop(self, relative: PurePosixPath | Path) -> bool:
        try:
            (self.path / relative).stat()
        except OSError as error:
            return error.errno == errno.ELOOP
        return False

    def exists(self, relative: PurePosixPath | Path) -> bool:
        """Whether a file or folder exists; False where it cannot be determined."""
        if self._listed(relative.parent).get(relative.name) is False:
            return True
        try:
            return (self.path / relative).exists()
        except (OSError, ValueError):
            return False

    def find(self, pattern: Pattern) -> Iterator[Match]:
        """Files and folders that match, sorted by folder and name; links out of the folder are not followed.

        Raises:
            DataError: a folder may not be read (kind "no-permission").
        """
        seen = set()
        for relative, is_folder in self._walk("", 0, pattern, (self._real,)):
            match = pattern.match(relative, is_folder)
            if match and relative not in seen:
                seen.add(relative)
                yield match

    def _walk(
        self, relative: str, depth: int, pattern: Pattern, above: tuple[Path, ...]
    ) -> Iterator[tuple[str, bool]]:
        wanted = pattern.components[depth]
        last = depth == len(pattern.components) - 1
        if wanted is None and not last:
            yield from self._walk(relative, depth + 1, pattern, above)
        entries = self._entries(relative)
        names = {entry.name for entry in entries}
        for entry in entries:
            path = f"{relative}/{entry.name}" if relative else entry.name
            if is_junk(entry.name, wanted.pattern.lstrip("\\") if wanted else ""):
                continue
            if last and is_data_of_header(entry.name, names):
                continue
            if wanted is not None and not wanted.fullmatch(entry.name):
                continue
            is_folder = _is_folder(entry)
            if last:
                yield path, is_folder
            if not is_folder or (last and wanted is not None):
                continue
            if entry.is_symlink():
                if not self.is_inside(PurePosixPath(path)):
                    self.links_out.add(path)
                    continue
                real = (self.path / path).resolve()
                if real in above:
                    continue
            deeper = (*above, (self.path / path).resolve()) if entry.is_symlink() else above
            yield from self._walk(path, depth if wanted is None else depth + 1, pattern, deeper)

    def _entries(self, relative: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / relative) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except NotADirectoryError:
            return []
        except PermissionError as error:
            raise DataError(
                f"{printable(relative) or self.path.name}: the folder may not be read",
                "give read permission: chmod u+rx on it",
                kind="no-permission",
            ) from error

    def holds_files(self, relative: PurePosixPath) -> bool:
        """Whether a folder has files that are not junk, as a DICOM series does."""
        return any(entry.is_file() and not is_junk(entry.name) for entry in self._entries(str(relative)))

    def problem(
        self, relative: PurePosixPath, what: str = "image", check_extension: bool = True
    ) -> DataError | None:
        """Problem of a path that is found without reading the file; None if there is none.

        Args:
            relative: path of the file.
            what: "image", "mask" and so on, for the message.
            check_extension: also check that the file extension is supported.
        """
        name = printable(relative.name)
        text = str(relative)
        if not text.isprintable() and not all(map(is_safe, text)):
            return DataError(
                f"{relative.name!a}: its path {str(relative)!a} contains control or undecodable characters",
                "rename it",
                kind="bad-name",
            )
        if not self.is_inside(relative):
            if self._is_loop(relative):
                return DataError(
                    f"{name}: {os.strerror(errno.ELOOP)}: the link points to itself",
                    "replace the link by the intended file, or remove it",
                    kind="unreadable",
                )
            return DataError(
                f"{name}: {relative} is outside the source folder",
                f"copy the {what} into the folder, or add the folder that it is in to data.links_to",
                kind="outside",
            )
        if is_archive(name):
            return DataError(
                f"{name}: is an archive where the {what} is expected", "unpack it first", kind="archive"
            )
        if check_extension and not name.lower().endswith(images.extensions()):
            if (self.path / relative).is_dir() and conversion(name) is None:
                return None
            return images.unknown_format(
                name, f"convert it to one of {', '.join(images.extensions())}, or narrow data.images"
            )
        return None

    def is_metadata(self, relative: PurePosixPath) -> bool:
        """Whether a file describes an image of the same stem beside it: XML that holds no annotations."""
        if relative.suffix.lower() != ".xml":
            return False
        if not any(
            images.is_image(path.name) for path in self.of_stem(relative.parent, stem_of(relative.name))
        ):
            return False
        try:
            with (self.path / relative).open("rb") as file:
                return not _ANNOTATION.search(file.read(_HEAD))
        # The reader of annotations reports that the file cannot be read.
        except OSError:
            return False

    def denied(self, path: str | PurePosixPath) -> DataError | None:
        """The error for a path in a folder without search permission; None if that is not the problem."""
        try:
            (self.path / path).lstat()
        except PermissionError:
            return DataError(
                f"{printable(PurePosixPath(path).name)}: cannot be accessed, "
                f"a folder of {printable(path)} may not be read",
                "give read permission: chmod u+rx on it",
                kind="no-permission",
            )
        except (OSError, ValueError):
            pass
        return None

    def of_stem(self, folder: PurePosixPath, stem: str) -> list[PurePosixPath]:
        """Files and folders with a stem, whatever their extension, sorted; without system files."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = {}
            for name in sorted(self._listed(folder)):
                stems.setdefault(stem_of(name), []).append(name)
            self._stems[folder] = stems
        stems = self._stems[folder]
        if stem not in stems:
            stem = same_form(stem, stems)
        return [folder / name for name in stems.get(stem, []) if not is_junk(name)]

    def actual(self, path: PurePosixPath) -> PurePosixPath:
        """Path of an existing file: the only one whose name is the same in another Unicode form, if it does not exist.

        macOS and some archives store names with separate accents.
        """
        if path.name.isascii() or self.exists(path):
            return path
        return path.with_name(same_form(path.name, self._listed(path.parent)))

    def _nearest(
        self, image: PurePosixPath, wanted: PurePosixPath, is_file: bool = True
    ) -> tuple[str, str] | None:
        """Name of the file or folder that was probably meant, and what differs; None if there is none."""
        if wanted.parent != wanted and not self.exists(wanted.parent):
            return self._nearest(image, wanted.parent, is_file=False)
        if wanted.parent not in self._names:
            self._names[wanted.parent] = Names(n for n in self._listed(wanted.parent) if not is_junk(n))
        own = image.name if image.parent == wanted.parent else None
        return self._names[wanted.parent].nearest(wanted.name, own, is_file)

    def missing(
        self, image: PurePosixPath, what: str, path: str, kind: str = "missing-mask", remedy: str = ""
    ) -> DataError:
        """The error for an image whose mask or other file is missing; names the most similar one that exists.

        Args:
            image: path of the image.
            what: "mask" and so on, for the message.
            path: of the missing file; may have wildcards.
            kind: of the error.
            remedy: what to do, if that is known.
        """
        denied = self.denied(path)
        if denied:
            return denied
        near = self._nearest(image, PurePosixPath(path))
        hint, usual = (
            "",
            "add the file, correct the pattern in params.yaml, or move the image out of the folder",
        )
        if near:
            name, difference = near
            hint = f"; {printable(name)} exists" + (f": {difference}" if difference else "")
            if difference:
                usual = f"rename {printable(name)}, or correct the pattern in params.yaml"
        return DataError(
            f"{printable(image.name)}: has no {what}, {printable(path)} is missing{hint}",
            remedy or usual,
            kind,
        )
