"""Groups files to scenes whose bands are in files of their own, by the patterns of the training images."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from segcore.errors import DataError
from segcore.io.layouts import _patterns as patterns
from segcore.params.data import Data

_FIRST = re.compile(r"(.+)_0000")


def scenes_of(paths: Sequence[Path], data: Data) -> dict[Path, tuple[Path, ...]]:
    """Scenes, each by its first file, with the files of its further bands; none of these is a scene of its own.

    A scene may be in another folder than the training images: as many of the last folders of the patterns as possible
    have to match. A file that does not match is a scene of one file.

    Args:
        paths: absolute paths of files.
        data: as in the training: `images` is a list of patterns, or `layout` is "nnunet".
    """
    if data.layout != "nnunet" and len(data.image_patterns) == 1:
        return dict.fromkeys(paths, ())
    channels = _numbered if data.layout == "nnunet" else _by_patterns
    found = {path: channels(path, data) for path in paths}
    further = {channel for files in found.values() for channel in files}
    return {path: files for path, files in found.items() if path not in further}


def _numbered(path: Path, data: Data) -> tuple[Path, ...]:
    """CASE_0001, CASE_0002 and so on, as far as they exist, of CASE_0000."""
    first = _FIRST.fullmatch(patterns.stem_of(path.name))
    if not first:
        return ()
    ending, files = path.name.removeprefix(first[0]), list[Path]()
    while (file := path.with_name(f"{first[1]}_{len(files) + 1:04d}{ending}")).exists():
        files.append(file)
    return tuple(files)


def _by_patterns(path: Path, data: Data) -> tuple[Path, ...]:
    """Files of further bands; a missing one is named if others exist, or if the name is only that of a first band."""
    first = patterns.tokens_of(data.image_patterns[0])
    incomplete: tuple[Path, ...] = ()
    for depth in range(len(first), 0, -1):
        match = patterns.Pattern(first[-depth:]).match("/".join(path.parts[-depth:]))
        files = tuple(_filled(match, path, data, depth)) if match else ()
        if len({path, *files}) < len(data.image_patterns):
            continue
        if all(file.exists() for file in files):
            return files
        if any(file.exists() for file in files) or _is_specific(first[-1]):
            incomplete = incomplete or files
    return incomplete


def _filled(match: patterns.Match, path: Path, data: Data, depth: int) -> Iterator[Path]:
    """Files of further bands by the last folders of their patterns; none where a word has no text."""

    def no_cell(size: Decimal) -> str:
        raise DataError("{cell:...} has no meaning here", "use a word")

    base = Path(*path.parts[:-depth])
    for pattern in data.image_patterns[1:]:
        try:
            text = "/".join(pattern.split("/")[-depth:])
            components = patterns.fill("data.images", text, match, no_cell)
        except DataError:
            return
        if not patterns.has_wildcards(components):
            yield base / patterns.text_of(components)
            continue
        found = sorted(base.glob(patterns.text_of(components)))
        if len(found) == 1:
            yield found[0]


def _is_specific(tokens: list[patterns.Token]) -> bool:
    """Whether a name's pattern prescribes more than the file extension."""
    text = "".join(text if kind == "text" else "*" for kind, text in tokens)
    return bool(patterns.stem_of(text).strip("*"))
