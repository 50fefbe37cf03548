"""Files of a folder, sorted into families: files whose folders and names have the same form."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from segcore.errors import DataError
from segcore.io import annotations, images
from segcore.io.layouts._names import is_data_of_header, is_junk
from segcore.io.layouts._patterns import stem_of
from segcore.planning.guess.words import MASK, VALID, affix, role, split_in

# kinds of files
PICTURE, SERIES, OBJECTS = "picture", "series", "objects"
# a word of folders is also tried text by text up to this many texts
_MOST_TEXTS = 16
SPLIT = "split"


class Member(NamedTuple):
    """A file: its path relative to the source, texts of its family's words, name without extension, and extension."""

    path: str
    texts: tuple[str, ...]
    stem: str
    ending: str


@dataclass(frozen=True)
class Family:
    """Files of one form.

    Attributes:
        folder: path with {split} and {1}, {2}, ... where the folders differ.
        words: names in its braces, `split` first.
        members: the files, by path.
        kind: PICTURE, SERIES (folders of DICOM slices) or OBJECTS (annotations other than rasters).
        lead: what all names begin with.
        tail: what all names end with, before the extension.
        role: IMAGE, MASK, VALID, or None where no name says it.
    """

    folder: str
    words: tuple[str, ...]
    members: tuple[Member, ...]
    kind: str
    lead: str = ""
    tail: str = ""
    role: str | None = None

    @property
    def endings(self) -> set[str]:
        """File extensions, in lower case."""
        return {member.ending.lower() for member in self.members}


class Files(NamedTuple):
    """What a folder holds: families of files, all paths of small text files, and the number of all files."""

    families: list[Family]
    paths: list[str]
    total: int


def find(folder: Path) -> Files:
    """Walk a folder once, and sort its files; hidden files and links to other folders are left out."""
    listed = dict(_walk(folder))
    grouped: dict[tuple[str, str], list[tuple[tuple[str, ...], str, str, str]]] = defaultdict(list)
    for relative, names in listed.items():
        for kind, parent, name in _entries(folder, relative, names):
            form, texts = _form(parent)
            path = f"{parent}/{name}" if parent else name
            stem = name if kind == SERIES else stem_of(name)
            grouped[form, kind].append((texts, path, stem, name[len(stem) :]))
    families = [
        family
        for (form, kind), found in sorted(grouped.items())
        for family in _families(form, kind, [Member(path, texts, stem, e) for texts, path, stem, e in found])
    ]
    paths = [f"{f}/{name}" if f else name for f, names in listed.items() for name in names]
    return Files(families, paths, len(paths))


def _walk(folder: Path) -> Iterable[tuple[str, list[str]]]:
    waiting = [""]
    while waiting:
        relative = waiting.pop()
        names = []
        for entry in _listed(folder / relative):
            if is_junk(entry.name) or not entry.name.isprintable():
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{relative}/{entry.name}" if relative else entry.name)
            elif entry.is_file():
                names.append(entry.name)
        yield relative, names[::-1]


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name, reverse=True)
    except PermissionError as error:
        raise DataError(
            f"{folder}: the folder may not be read",
            "give read permission: chmod u+rx on it",
            kind="no-permission",
        ) from error


def _entries(folder: Path, relative: str, names: list[str]) -> Iterable[tuple[str, str, str]]:
    """Kind, folder and name of what can be an image or a mask: files, or the folder if it holds slices."""
    from segcore.io.images._series import is_slice

    slices = [n for n in names if n.lower().endswith((".dcm", ".ima")) or "." not in n]
    parent, _, name = relative.rpartition("/")
    # a folder of segmentations is none of slices
    if name and len(slices) > 1 and role(name) != MASK and is_slice(folder / relative / slices[0]):
        yield SERIES, parent, name
        names = [name for name in names if name not in set(slices)]
    extensions, objects = images.extensions(), tuple(set(annotations.extensions()) - set(images.extensions()))
    all_names = set(names)
    for name in names:
        lower = name.lower()
        if lower.endswith(extensions):
            if not is_data_of_header(name, all_names):
                yield PICTURE, relative, name
        elif lower.endswith(objects):
            yield OBJECTS, relative, name


@cache
def _form(folder: str) -> tuple[str, tuple[str, ...]]:
    """A folder's path with words in place of what may differ, and their texts."""
    parts: list[str] = []
    texts: list[str] = []
    split: list[str] = []
    for part in folder.split("/") if folder else []:
        found = None if split else split_in(part)
        if found:
            parts.append(found[0])
            split = [found[1]]
        elif role(part):
            parts.append(part)
        else:
            texts.append(part)
            parts.append(f"{{{len(texts)}}}")
    return "/".join(parts), (*split, *texts)


def _words(form: str) -> tuple[str, ...]:
    numbers = [part[1:-1] for part in form.split("/") if part[1:-1].isdecimal() and part[0] == "{"]
    return (*([SPLIT] if "{split}" in form else []), *numbers)


def _families(form: str, kind: str, members: list[Member]) -> Iterable[Family]:
    """Families of one form: by what names say, by extension where two files differ in it alone, and by folder."""
    by_folder = next((r for part in reversed(form.split("/")) if (r := role(part))), None)
    named: dict[tuple[str, str, str | None], list[Member]] = defaultdict(list)
    for member in members:
        lead, tail, what = affix(member.stem)
        named[(lead, tail, what) if what in (MASK, VALID) else ("", "", None)].append(member)
    for (lead, tail, what), some in named.items():
        whole = Family(form, _words(form), tuple(some), kind, lead, tail, what or by_folder)
        places = {member.path.removesuffix(member.ending) for member in some}
        endings = sorted(whole.endings)
        several = len(places) < len(some) and len(endings) > 1
        for part in [_of_ending(whole, ending) for ending in endings] if several else [whole]:
            yield from variants(part)


def _of_ending(family: Family, ending: str) -> Family:
    return replace(family, members=tuple(m for m in family.members if m.ending.lower() == ending))


def variants(family: Family) -> Iterable[Family]:
    """The family, and its parts with one text of one word each."""
    yield family
    for index, word in enumerate(family.words):
        texts = sorted({member.texts[index] for member in family.members})
        if len(texts) == 1 and word != SPLIT:
            yield _fixed(family, index, texts[0])
        elif 1 < len(texts) <= _MOST_TEXTS:
            yield from (_fixed(family, index, text) for text in texts)


def _fixed(family: Family, index: int, text: str) -> Family:
    members = tuple(
        m._replace(texts=m.texts[:index] + m.texts[index + 1 :])
        for m in family.members
        if m.texts[index] == text
    )
    word = family.words[index]
    return replace(
        family,
        folder=family.folder.replace(f"{{{word}}}", text, 1),
        words=tuple(w for w in family.words if w != word),
        members=members,
    )
