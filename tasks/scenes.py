"""Scenes to predict, as files, folders and patterns name them."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from segcore.errors import DataError
from segcore.io import images
from segcore.io.images._series import is_slice
from segcore.io.layouts._names import is_data_of_header, is_junk, printable

# of a file's name in bytes, in all common file systems
_LONGEST_NAME = 255
# files that are counted in a folder without a scene
_COUNTED = 10_000
# file extensions that are named
_SHOWN = 6


def find_scenes(given: Sequence[str | Path], output: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Absolute paths of the scenes given as files, folders or glob patterns; sorted, without duplicates.

    A folder stands for all images below it. A folder with DICOM files, which may be without file extension, is one
    scene, a DICOM series; other images in it and in its subfolders are scenes too. Hidden files and files in `output`
    are ignored.

    Args:
        given: files, folders and glob patterns.
        output: folder of the outputs.
        skipped: the files that are no scene are added to it, by file extension.

    Raises:
        DataError: a path or pattern matches no scene, or a folder cannot be read.
    """
    skipped = Counter() if skipped is None else skipped
    paths: dict[Path, None] = {}
    for text in map(str, given):
        try:
            exists = Path(text).exists()
            path, place = Path(text).absolute(), output.absolute()
            scenes = _in(path, place, skipped) if exists else _matching(text, place, skipped)
        except (OSError, ValueError) as error:
            # ValueError: the text cannot be the name of a file
            raise DataError(
                f"{text}: cannot be searched for scenes ({error})",
                "give this user the right to read it"
                if isinstance(error, PermissionError)
                else "correct the path",
                kind="no-images",
            ) from error
        if not scenes:
            raise DataError(
                f"{text}: no scene found ({_content(text)}{_unsearched(text, output)})",
                "name a file, a folder other than the output's, or a pattern in quotes; "
                f"file extensions: {', '.join(sorted(images.extensions()))}, and DICOM files of any name",
                kind="no-images",
            )
        paths |= dict.fromkeys(scenes)
    return sorted(paths)


def _content(text: str) -> str:
    """What is at a path or matches a pattern without scenes: files by extension."""
    folder = Path(text)
    if folder.is_dir():
        paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    elif glob.has_magic(text):
        paths = (Path(p) for p in glob.iglob(text, recursive=True))  # noqa: PTH207
    else:
        return "there is nothing of that name"
    found = counted(Counter(_ending(p) for p in islice(paths, _COUNTED)))
    place = "in the folder" if folder.is_dir() else "of that pattern"
    return f"files {place}: {found or 'none'}"


def _unsearched(text: str, output: Path) -> str:
    """That the output folder was left out, where it is at or below a path or what matches a pattern."""
    place = output.absolute()
    # a pattern is no parent of anything
    paths = [text, *glob.glob(text, recursive=True)]  # noqa: PTH207
    is_below = place.is_dir() and any(place.is_relative_to(Path(path).absolute()) for path in paths)
    return f"; the output folder {output} is not searched" if is_below else ""


def _ending(path: Path) -> str:
    return path.suffix.lower() or "without extension"


def counted(endings: Counter[str]) -> str:
    """The commonest file extensions with their numbers, such as "3 .txt, 1 .csv"."""
    most = sorted(endings.items(), key=lambda pair: (-pair[1], pair[0]))
    others = sum(count for _, count in most[_SHOWN:])
    shown = [f"{count} {printable(ending)}" for ending, count in most[:_SHOWN]]
    return ", ".join(shown + [f"{others} others"] * (others > 0))


def _matching(pattern: str, output: Path, skipped: Counter[str]) -> list[Path]:
    # Path.glob takes no absolute patterns
    paths = [Path(p).absolute() for p in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    folders, files = [p for p in paths if p.is_dir()], [p for p in paths if not p.is_dir()]
    slices = {file for file in files if is_slice(file)}
    others = _images([file for file in files if file not in slices], skipped)
    return [*slices, *others, *(scene for folder in folders for scene in _in(folder, output, skipped))]


def _in(path: Path, output: Path, skipped: Counter[str]) -> list[Path]:
    if not path.is_dir():
        return [path]
    if path == output or path.name.startswith("."):
        return []
    if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
        # a link to a folder above it, which would be searched without end
        return []
    entries = sorted(path.iterdir())
    files = [entry for entry in entries if not entry.is_dir()]
    slices = {file for file in files if is_slice(file)}
    scenes = [path] if slices else []
    scenes += _images([file for file in files if file not in slices], skipped)
    for entry in entries:
        if entry.is_dir():
            scenes += _in(entry, output, skipped)
    return scenes


def _images(files: Sequence[Path], skipped: Counter[str]) -> list[Path]:
    """The files with the extension of an image; others are counted, except hidden ones and files beside an image."""
    found, names = [], {file.name for file in files}
    for file in files:
        if images.is_image(file.name) and not file.name.startswith("."):
            found.append(file)
        elif not is_junk(file.name) and not is_data_of_header(file.name, names):
            skipped[_ending(file)] += 1
    return found


def check_name(scene: Path, name: str, outputs: Sequence[str]) -> None:
    """Check that files can be named after a scene.

    Args:
        scene: path of the scene.
        name: from `Record.names`.
        outputs: kinds of outputs to write.

    Raises:
        DataError: the scene has to be renamed.
    """
    if printable(name) != name:
        raise DataError(
            f"{scene.name!a}: its name contains control or undecodable characters",
            "rename it",
            kind="bad-name",
        )
    longest = "_objects.nii.gz" if {"objects", "coco", "counts"} & set(outputs) else ".stac.json"
    longest = "_probabilities.tif" if "probabilities" in outputs else longest
    longest = "_confidence.nii.gz" if "confidence" in outputs else longest
    if len(os.fsencode(name + longest)) > _LONGEST_NAME:
        raise DataError(
            f"{scene.name}: its name is too long, the name of its prediction would have more than "
            f"{_LONGEST_NAME} bytes",
            "rename it",
            kind="bad-name",
        )
