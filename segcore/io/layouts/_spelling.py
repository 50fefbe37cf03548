"""Images that data.images does not match only because their extension is spelled otherwise: .JPG or .jpeg for .jpg."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from segcore.io import images as formats
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._files import Folder
from segcore.io.layouts._names import printable
from segcore.params.data import Data

_SPELLINGS = (
    (".jpg", ".jpeg", ".jpe", ".jfif"),
    (".tif", ".tiff"),
    (".jp2", ".j2k", ".jpx"),
    (".dcm", ".dicom"),
)


def _extension(pattern: str) -> str:
    """Extension of images at the end of a pattern; empty where it has none, or a wildcard."""
    endings = sorted(formats.extensions(), key=len, reverse=True)
    return next((pattern[-len(e) :] for e in endings if pattern.lower().endswith(e)), "")


def better_pattern(data: Data) -> str:
    """The pattern of data.images for any extension."""
    pattern = data.image_patterns[0]
    return f"{pattern[: -len(_extension(pattern))]}.*"


def other_spellings(data: Data, source: Folder) -> list[patterns.Match]:
    """Files that data.images would match if their extension were spelled as in the pattern."""
    pattern = data.image_patterns[0]
    ending = _extension(pattern)
    if not ending:
        return []
    spellings = next((s for s in _SPELLINGS if ending.lower() in s), (ending.lower(),))
    exact, found = patterns.images_pattern(pattern), []
    for match in source.find(patterns.images_pattern(better_pattern(data))):
        path = match.path
        spelled = next((s for s in spellings if path.name.lower().endswith(s)), None)
        if spelled is None or match.is_folder or exact.match(str(path)):
            continue
        usual = exact.match(str(path.with_name(path.name[: -len(spelled)] + ending)))
        if usual:
            found.append(replace(usual, path=path))
    return found


def notes(data: Data, spelled: list[patterns.Match]) -> list[tuple[str, Path, str]]:
    """Notes on files of `other_spellings`: kind, path, and text."""
    pattern, better = data.image_patterns[0], better_pattern(data)
    return [
        (
            "images-unmatched",
            Path(match.path),
            f"data.images {pattern!r} does not match the extension {PurePosixPath(match.path).suffix}; {better!r} does",
        )
        for match in spelled
    ]


def image_of(mask: PurePosixPath, data: Data, spelled: list[patterns.Match]) -> str:
    """Text that names the file of `other_spellings` whose mask a file is; empty for none."""
    for match in spelled:
        for text in data.mask_patterns:
            if "{cell:" in text:
                continue
            components = patterns.fill("data.masks", text, match, str)
            if patterns.Pattern(components).match(str(mask)):
                return (
                    f"its image is probably {printable(match.path)}, whose extension data.images does not match; "
                    f"{better_pattern(data)!r} does"
                )
    return ""
