"""Scenes to predict, as files, folders and patterns name them."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from segcore.errors import DataError
from segcore.io import images
from segcore.io.layouts._names import printable

# of a file's name in bytes, in all common file systems
_LONGEST_NAME = 255
# files that are counted in a folder without a scene
_COUNTED = 10_000


def find_scenes(given: Sequence[str | Path], output: Path) -> list[Path]:
    """Absolute paths of the scenes given as files, folders or glob patterns; sorted, without duplicates.

    A folder stands for all images below it; a folder with .dcm files is one scene, a DICOM series. Hidden files and
    files in `output` are ignored.

    Raises:
        DataError: a path or pattern matches no scene, or a folder cannot be read.
    """
    paths: dict[Path, None] = {}
    for text in map(str, given):
        try:
            exists = Path(text).exists()
            scenes = _in(Path(text).absolute(), output.absolute()) if exists else _matching(text, output)
        except (OSError, ValueError) as error:
            # ValueError: the text cannot be the name of a file
            raise DataError(
                f"{text}: cannot be searched for scenes ({error})",
                "correct the path, or give this user the right to read it",
                kind="no-images",
            ) from error
        if not scenes:
            raise DataError(
                f"{text}: no scene found ({_content(text)})",
                "name a file, a folder other than the output's, or a pattern in quotes; "
                f"file extensions: {', '.join(sorted(images.extensions()))}",
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
    counted = Counter(p.suffix.lower() or "without extension" for p in islice(paths, _COUNTED))
    most = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:6]
    found = ", ".join(f"{count} {ending}" for ending, count in most)
    place = "in the folder" if folder.is_dir() else "of that pattern"
    return f"files {place}: {found or 'none'}"


def _matching(pattern: str, output: Path) -> list[Path]:
    # Path.glob takes no absolute patterns
    paths = [Path(p).absolute() for p in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    scenes = [scene for path in paths for scene in _in(path, output.absolute())]
    return [s for s in scenes if s.is_dir() or s.name.lower().endswith(tuple(images.extensions()))]


def _in(path: Path, output: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if path == output or path.name.startswith("."):
        return []
    if path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
        # a link to a folder above it, which would be searched without end
        return []
    entries = sorted(path.iterdir())
    if any(e.name.lower().endswith(".dcm") and e.is_file() for e in entries):
        return [path]
    scenes: list[Path] = []
    for entry in entries:
        if entry.is_dir():
            scenes += _in(entry, output)
        elif entry.name.lower().endswith(tuple(images.extensions())) and not entry.name.startswith("."):
            scenes.append(entry)
    return scenes


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
    longest = "_probabilities.tif" if "probabilities" in outputs else ".nii.gz"
    if len(os.fsencode(name + longest)) > _LONGEST_NAME:
        raise DataError(
            f"{scene.name}: its name is too long, the name of its prediction would have more than "
            f"{_LONGEST_NAME} bytes",
            "rename it",
            kind="bad-name",
        )
