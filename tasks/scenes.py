"""Which scenes are predicted, under which names, and the record of those that are done, predictions.json."""

import glob
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcore.errors import DataError
from segcore.files import atomic_write, digest
from segcore.ingest.source_files import stamp
from segcore.io import images
from segcore.io.layouts._item import Item
from segcore.io.layouts._patterns import stem_of

RECORD = "predictions.json"
# between two writes of the record: what a kill loses at most, besides the scene it hit
_SECONDS = 1.0
# what a name may become
OUTPUTS = (".tif", "_probabilities.tif", ".gpkg", ".nii.gz")


def find_scenes(given: Sequence[str | Path], output: Path) -> list[Path]:
    """Absolute paths of the scenes that files, folders and glob patterns name, sorted, each once.

    A folder stands for all images below it; one that holds .dcm files is a scene itself, a DICOM series. Hidden files
    and what lies in `output` are passed over.

    Raises:
        DataError: nothing is there.
    """
    found: dict[Path, None] = {}
    for text in map(str, given):
        scenes = (
            _in(Path(text).absolute(), output.absolute()) if Path(text).exists() else _matching(text, output)
        )
        if not scenes:
            raise DataError(
                f"{text}: no scene is there",
                "name a file, a folder other than the output's, or a pattern in quotes; "
                f"endings: {', '.join(sorted(images.extensions()))}",
                kind="no-images",
            )
        found |= dict.fromkeys(scenes)
    return sorted(found)


def _matching(pattern: str, output: Path) -> list[Path]:
    paths = [Path(p).absolute() for p in glob.glob(pattern, recursive=True)]  # noqa: PTH207  (may be absolute)
    scenes = [scene for path in paths for scene in _in(path, output.absolute())]
    return [s for s in scenes if s.is_dir() or s.name.lower().endswith(tuple(images.extensions()))]


def _in(path: Path, output: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if path == output or path.name.startswith("."):
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


def _claimed(name: str) -> set[str]:
    return {(name + ending).lower() for ending in OUTPUTS}


def _choices(scene: Path, folder: bool) -> Iterable[str]:
    """Names for a scene's outputs, the plainest first; the last one is nobody else's."""
    stem = scene.name if folder else stem_of(scene.name)
    yield stem
    yield f"{scene.parent.name}-{stem}"
    yield f"{stem}-{digest(str(scene))[:8]}"


@dataclass
class Record:
    """predictions.json: the model, the settings, and each scene with its files.

    Attributes:
        path: of the file.
        model: address, architecture and sha256 of the weights.
        settings: how scenes are predicted.
        scenes: by absolute path: name, stamp, key of model and settings, files; or error.
    """

    path: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    scenes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _written: float = 0.0

    @classmethod
    def open(cls, folder: Path, model: dict[str, Any], settings: dict[str, Any]) -> "Record":
        """The record of an output folder, empty where there is none.

        Raises:
            DataError: it is damaged.
        """
        path = folder / RECORD
        record = cls(path, model, settings)
        if path.exists():
            try:
                record.scenes = dict(json.loads(path.read_text(encoding="utf-8"))["scenes"])
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{path}: the record of predictions is damaged ({error})",
                    "delete it; all scenes are then predicted anew",
                ) from error
        return record

    @property
    def key(self) -> str:
        """Hash of what a scene's files depend on, but the scene."""
        facts = json.dumps([self.model["weights_sha256"], self.settings], sort_keys=True)
        return digest(facts)[:16]

    def names(self, scenes: Sequence[Path]) -> dict[Path, str]:
        """A name for each scene; one that is in the record keeps its name, and no file belongs to two scenes."""
        taken = {file for entry in self.scenes.values() for file in _claimed(entry["name"])}
        names = {s: self.scenes[str(s)]["name"] for s in scenes if str(s) in self.scenes}
        for scene in scenes:
            if scene not in names:
                choices = _choices(scene, scene.is_dir())
                names[scene] = next(c for c in choices if not _claimed(c) & taken)
                taken |= _claimed(names[scene])
        return names

    def is_done(self, scene: Path) -> bool:
        """Whether a scene's files are there, made of the same content with the same model and settings."""
        entry = self.scenes.get(str(scene), {})
        if entry.get("key") != self.key or "files" not in entry:
            return False
        return entry["stamp"] == stamp_of(scene) and all(
            (self.path.parent / f).is_file() for f in entry["files"]
        )

    def add(self, scene: Path, name: str, **facts: Any) -> None:
        """Note what became of a scene; files that an earlier prediction made and this one did not are removed."""
        if "files" in facts:
            for file in set(self.scenes.get(str(scene), {}).get("files", [])) - set(facts["files"]):
                (self.path.parent / file).unlink(missing_ok=True)
        self.scenes[str(scene)] = {"name": name, "key": self.key, **facts}
        if time.monotonic() - self._written > _SECONDS:
            self.save()

    def save(self) -> None:
        """Write the record in one step.

        Raises:
            DataError: the disk is full or not writable.
        """
        content = {"model": self.model, "settings": self.settings, "scenes": self.scenes}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._written = time.monotonic()


def stamp_of(scene: Path) -> str:
    """Names, sizes and times of a scene's files.

    Raises:
        DataError: a file is missing, empty or may not be read.
    """
    return stamp(Item(scene.name, "", Path(scene.name)), scene.parent)
