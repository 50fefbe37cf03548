"""Scenes to predict, names of their outputs, and predictions.json, the record of the scenes that are done."""

import glob
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.files import atomic_write, digest
from segcore.io import images
from segcore.io.layouts._files import printable
from segcore.io.layouts._patterns import stem_of
from segcore.prediction.scene_reader import stamp_of

RECORD = "predictions.json"
# interval between two writes of the record: a kill loses at most the work of this time and the current scene
_SECONDS = 1.0
# of a file's name in bytes, in all common file systems
_LONGEST_NAME = 255
# suffixes of the outputs of a scene
OUTPUTS = (".tif", "_probabilities.tif", ".gpkg", ".nii.gz")


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
                f"{text}: no scene found",
                "name a file, a folder other than the output's, or a pattern in quotes; "
                f"file extensions: {', '.join(sorted(images.extensions()))}",
                kind="no-images",
            )
        paths |= dict.fromkeys(scenes)
    return sorted(paths)


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


def _output_files(name: str) -> set[str]:
    """All files that a scene of this name may have, in lower case."""
    return {(name + suffix).lower() for suffix in OUTPUTS}


def _possible_names(scene: Path, folder: bool) -> Iterable[str]:
    """Names for a scene's outputs, the shortest first; the last one is unique."""
    stem = scene.name if folder else stem_of(scene.name)
    yield stem
    yield f"{scene.parent.name}-{stem}"
    yield f"{stem}-{digest(str(scene))[:8]}"


@dataclass
class Record:
    """predictions.json: the model, the settings, and each scene with its files.

    Attributes:
        path: of the file.
        model: address, version, architecture, and sha256 of weights and description.
        settings: of the prediction.
        scenes: absolute path -> name, model, stamp, key (of model and settings) and files, or error. Scenes of older
            versions have another key, because it is not certain which model they were predicted with.
    """

    path: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    scenes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _written: float = 0.0

    @classmethod
    def open(cls, folder: Path, model: dict[str, Any], settings: dict[str, Any]) -> "Record":
        """Read the record of an output folder; empty if there is none.

        Raises:
            DataError: the record is damaged.
        """
        path = folder / RECORD
        record = cls(path, model, settings)
        if path.exists():
            try:
                record.scenes = dict(json.loads(path.read_text(encoding="utf-8"))["scenes"])
                for scene, entry in record.scenes.items():
                    _check_entry(scene, entry)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
                raise DataError(
                    f"{path}: the record of predictions is damaged ({error})",
                    "delete it; all scenes are then predicted again",
                ) from error
        return record

    @property
    def key(self) -> str:
        """Hash of model and settings: of everything that a scene's files depend on, except the scene."""
        model = [self.model.get(name) for name in ("weights_sha256", "description_sha256")]
        return digest(json.dumps([model, self.settings], sort_keys=True))[:16]

    def names(self, scenes: Sequence[Path]) -> dict[Path, str]:
        """A name for each scene: that in the record, else a new one. No two scenes share an output file."""
        used = {file for entry in self.scenes.values() for file in _output_files(entry["name"])}
        names = {s: self.scenes[str(s)]["name"] for s in scenes if str(s) in self.scenes}
        for scene in scenes:
            if scene not in names:
                possible = _possible_names(scene, scene.is_dir())
                names[scene] = next(name for name in possible if not _output_files(name) & used)
                used |= _output_files(names[scene])
        return names

    def is_done(self, scene: Path) -> bool:
        """Whether a scene's files exist and were made from the same content with the same model and settings."""
        entry = self.scenes.get(str(scene), {})
        if entry.get("key") != self.key or "files" not in entry:
            return False
        return entry["stamp"] == stamp_of(scene) and all(
            (self.path.parent / f).is_file() for f in entry["files"]
        )

    def expect(self, scenes: Iterable[Path]) -> None:
        """Record that files of these scenes are about to be replaced: after a kill they may be of either model.

        Raises:
            DataError: the disk is full or not writable.
        """
        outdated = [entry for s in scenes if "key" in (entry := self.scenes.get(str(s), {}))]
        for entry in outdated:
            for fact in entry.keys() - {"name", "files"}:
                del entry[fact]
        if outdated:
            self.save()

    def add(self, scene: Path, name: str, **facts: Any) -> None:
        """Record the result of a scene; files of an earlier prediction that this one did not write are removed."""
        if "files" in facts:
            for file in set(self.scenes.get(str(scene), {}).get("files", [])) - set(facts["files"]):
                (self.path.parent / file).unlink(missing_ok=True)
        self.scenes[str(scene)] = {"name": name, "key": self.key, "model": self.model, **facts}
        if time.monotonic() - self._written > _SECONDS:
            self.save()

    def removed(self) -> dict[str, Path]:
        """Scenes of which a file is gone, each with the first such file."""
        files = {
            scene: [self.path.parent / f for f in e.get("files", [])] for scene, e in self.scenes.items()
        }
        gone = {scene: [file for file in paths if not file.is_file()] for scene, paths in files.items()}
        return {scene: paths[0] for scene, paths in gone.items() if paths}

    def save(self) -> None:
        """Write the record atomically.

        Raises:
            DataError: the disk is full or not writable.
        """
        content = {"model": self.model, "settings": self.settings, "scenes": self.scenes}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._written = time.monotonic()


def _check_entry(scene: str, entry: dict[str, Any]) -> None:
    """Check that an entry names outputs in the output folder alone: outdated ones are deleted."""
    name, files = entry["name"], entry.get("files", [])
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise ValueError(f"{name!r} of {scene} is no file name")
    # UnicodeEncodeError for half a surrogate pair
    os.fsencode(name)
    outputs = [name + suffix for suffix in OUTPUTS]
    if not isinstance(files, list) or any(file not in outputs for file in files):
        raise ValueError(f"{files!r} of {scene} are not its outputs")


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
