"""predictions.json, the record of the scenes that are done, and the names of their outputs."""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segcore.errors import DataError, ParamsError
from segcore.files import atomic_write, digest
from segcore.io.layouts._patterns import stem_of
from segcore.prediction.scene_reader import stamp_of

RECORD = "predictions.json"
# interval between two writes of the record: a kill loses at most the work of this time and the current scene
_SECONDS = 1.0
# counts of all scenes, and end of the name of those of a scene
COUNTS, COUNTS_SUFFIX = "counts.csv", "_counts.csv"
# suffixes of the outputs of pictures and volumes, by name in `predict.outputs`
_KINDS = {
    "classes": (".tif", ".qml", ".nii.gz", ".ctbl"),
    "probabilities": ("_probabilities.tif", "_probabilities.qml"),
    "confidence": ("_confidence.tif", "_confidence.qml", "_confidence.nii.gz"),
    "polygons": (".gpkg",),
    "dicomseg": (".dcm",),
    "objects": ("_objects.tif", ".gpkg", "_objects.nii.gz"),
    "coco": (".json",),
    "counts": (COUNTS_SUFFIX, "_zones.csv", "_zones.gpkg"),
}
# words of `predict.outputs` that are made of objects
OBJECT_OUTPUTS = ("objects", "coco", "counts")
# beside any output
_ITEM = ".stac.json"
_SEMANTIC = (*_KINDS["classes"], *_KINDS["probabilities"], ".gpkg", _ITEM)
# those that take no names where their word is not among the outputs
_ASKED_FOR = {word: _KINDS[word] for word in ("confidence", "dicomseg")}
_OF_OBJECTS = ("_objects.tif", "_objects.nii.gz", ".json", *_KINDS["counts"])


def suffixes(outputs: Sequence[str]) -> tuple[str, ...]:
    """Suffixes of the outputs that a scene may have.

    Args:
        outputs: of the prediction. Those of objects are left out where none is asked for, so that they take no names;
            so are those of `confidence` and `dicomseg`.
    """
    asked_for = [suffix for word, ends in _ASKED_FOR.items() if word in outputs for suffix in ends]
    return (*_SEMANTIC, *asked_for, *(_OF_OBJECTS if set(OBJECT_OUTPUTS) & set(outputs) else ()))


def _used(settings: dict[str, Any], outputs: Sequence[str], kind: str | None) -> dict[str, Any]:
    """The settings that files of these outputs depend on, in the form of older versions where nothing newer is used.

    All files of an instance network are made of its objects; how semantic networks blend windows and find objects does
    not affect them.
    """
    is_instance = kind == "instance"
    makes_objects, has_polygons = bool(set(OBJECT_OUTPUTS) & set(outputs)), "polygons" in outputs
    has_objects = is_instance or makes_objects
    used = {
        "blend": not is_instance,
        "objects": makes_objects and not is_instance,
        "score": has_objects,
        "min_area": bool(settings.get("min_area")) and (has_objects or has_polygons),
        "simplify": bool(settings.get("simplify")) and ("objects" in outputs or has_polygons),
        "count_by": settings.get("count_by") is not None and "counts" in outputs,
    }
    return {name: value for name, value in settings.items() if used.get(name, True)}


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
        model: address, version, architecture, kind of an instance network, and sha256 of weights and description.
        settings: of the prediction.
        scenes: absolute path -> name, model, stamp, key (of model and settings), outputs, notes and files, or error;
            `kept`: files of an earlier prediction that this one did not replace, each with its model. Scenes of older
            versions have no outputs, and are predicted again: those versions wrote fewer files for the same outputs.
    """

    path: Path
    model: dict[str, Any]
    settings: dict[str, Any]
    scenes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _written: float = 0.0
    # of the files of scenes that are about to be predicted again
    _earlier: dict[str, dict[str, Any]] = field(default_factory=dict)

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
        return self._key(self.settings.get("outputs", []))

    def _key(self, outputs: Sequence[str]) -> str:
        model = [self.model.get(name) for name in ("weights_sha256", "description_sha256")]
        settings = _used(self.settings, outputs, self.model.get("kind"))
        if "outputs" in settings:
            settings["outputs"] = list(outputs)
        # Neither of these changes a pixel of a scene that is predicted, so older keys stay what they were.
        unchanged = ("accept", *(() if self.settings.get("resample") else ("resample",)))
        settings = {name: value for name, value in settings.items() if name not in unchanged}
        return digest(json.dumps([model, settings], sort_keys=True))[:16]

    @property
    def _has_objects(self) -> bool:
        return bool(set(OBJECT_OUTPUTS) & set(self.settings.get("outputs", [])))

    def _output_files(self, name: str) -> set[str]:
        """All files that a scene of this name may have, in lower case."""
        return {(name + suffix).lower() for suffix in suffixes(self.settings.get("outputs", []))}

    def names(self, scenes: Sequence[Path]) -> dict[Path, str]:
        """A name for each scene: that in the record, else a new one. No two scenes share an output file.

        Raises:
            ParamsError: a name in the record, of a prediction with other outputs, would be that of another file now.
        """
        used = {RECORD, COUNTS} if self._has_objects else set()
        used |= {file for entry in self.scenes.values() for file in self._output_files(entry["name"])}
        names = {s: self.scenes[str(s)]["name"] for s in scenes if str(s) in self.scenes}
        self._refuse_same(names)
        for scene in scenes:
            if scene not in names:
                possible = _possible_names(scene, scene.is_dir())
                names[scene] = next(name for name in possible if not self._output_files(name) & used)
                used |= self._output_files(names[scene])
        return names

    def _refuse_same(self, names: dict[Path, str]) -> None:
        taken = {RECORD: RECORD, COUNTS: COUNTS}
        for other in self.scenes.keys() - set(map(str, names)):
            taken |= dict.fromkeys(self._output_files(self.scenes[other]["name"]), Path(other).name)
        for scene, name in names.items():
            for file in sorted(self._output_files(name)):
                if file in taken:
                    raise ParamsError(
                        f"{self.path.parent}: {file} would be an output of {scene.name} and of {taken[file]}",
                        "choose another --output",
                    )
                taken[file] = scene.name

    def is_done(self, scene: Path, channels: Sequence[Path] = ()) -> bool:
        """Whether a scene's files exist and were made from the same content with the same model and settings.

        There may be more outputs than are wanted.

        Args:
            scene: its first file.
            channels: files of its further bands.
        """
        entry = self.scenes.get(str(scene), {})
        if "files" not in entry or "outputs" not in entry:
            return False
        if not set(self.settings.get("outputs", [])) <= set(entry["outputs"]):
            return False
        if entry.get("key") != self._key(entry["outputs"]):
            return False
        return entry["stamp"] == stamp_of(scene, channels) and all(
            (self.path.parent / f).is_file() for f in entry["files"]
        )

    def expect(self, scenes: Sequence[Path]) -> None:
        """Record that files of these scenes are about to be replaced: after a kill they may be of either model.

        Raises:
            DataError: the disk is full or not writable.
        """
        outdated = [entry for s in scenes if "key" in (entry := self.scenes.get(str(s), {}))]
        self._earlier |= {
            str(s): self.scenes[str(s)].get("model", {}) for s in scenes if str(s) in self.scenes
        }
        for entry in outdated:
            for fact in entry.keys() - {"name", "files", "kept"}:
                del entry[fact]
        if outdated:
            self.save()

    def add(self, scene: Path, name: str, **facts: Any) -> None:
        """Record the result of a scene; files of an earlier prediction that this one did not write stay, as `kept`."""
        entry = self.scenes.get(str(scene), {})
        model = self._earlier.get(str(scene), {})
        left = {**entry.get("kept", {}), **dict.fromkeys(entry.get("files", []), model)}
        kept = {
            file: of
            for file, of in left.items()
            if file not in facts.get("files", []) and (self.path.parent / file).is_file()
        }
        facts |= {"kept": kept} if kept else {}
        facts |= {"outputs": list(self.settings.get("outputs", []))}
        self.scenes[str(scene)] = {"name": name, "key": self.key, "model": self.model, **facts}
        if time.monotonic() - self._written > _SECONDS:
            self.save()

    def others(self, scenes: Iterable[Path]) -> list[str]:
        """Files of earlier predictions of these scenes that the latest one did not write."""
        return sorted({file for s in scenes for file in self.scenes.get(str(s), {}).get("kept", {})})

    def delete_others(self, scenes: Iterable[Path]) -> list[str]:
        """Delete the files of these scenes that are no wanted output; returns their names."""
        deleted = []
        for entry in (self.scenes[str(s)] for s in scenes if "files" in self.scenes.get(str(s), {})):
            item, wanted = entry["name"] + _ITEM, self._wanted(entry)
            others = [file for file in [*entry["files"], *entry.pop("kept", {})] if file not in wanted]
            entry["files"] = [file for file in entry["files"] if file in wanted]
            # those of a prediction with fewer outputs
            entry |= {"key": self.key, "outputs": list(self.settings["outputs"])}
            for file in others:
                (self.path.parent / file).unlink(missing_ok=True)
            if others and item in entry["files"]:
                from segcore.prediction.stac import remove_assets

                remove_assets(self.path.parent / item, others)
            deleted += others
        return deleted

    def _wanted(self, entry: dict[str, Any]) -> list[str]:
        """Files of a scene that a prediction with the wanted outputs would have written."""
        if entry["key"] == self.key:
            return list(entry["files"])
        name, words = entry["name"], set(self.settings["outputs"])
        is_volume = f"{name}.nii.gz" in entry["files"] or (
            f"{name}.tif" in entry["files"] and f"{name}.qml" not in entry["files"]
        )
        if is_volume and "dicomseg" not in words:
            # whatever else is asked for
            words.add("classes")
        possible = [name + end for end in (*(end for word in words for end in _KINDS[word]), _ITEM)]
        return [file for file in entry["files"] if file in possible]

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
        settings = _used(self.settings, self.settings.get("outputs", []), self.model.get("kind"))
        content = {"model": self.model, "settings": settings, "scenes": self.scenes}
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._written = time.monotonic()


def _check_entry(scene: str, entry: dict[str, Any]) -> None:
    """Check that an entry names outputs in the output folder alone: outdated ones are deleted."""
    name, files, kept = entry["name"], entry.get("files", []), entry.get("kept", {})
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise ValueError(f"{name!r} of {scene} is no file name")
    # UnicodeEncodeError for half a surrogate pair
    os.fsencode(name)
    outputs = [name + suffix for suffix in suffixes([*_KINDS])]
    is_typed = isinstance(files, list) and isinstance(kept, dict)
    if not set(entry.get("outputs", [])) <= _KINDS.keys():
        raise ValueError(f"{entry['outputs']!r} of {scene} are no outputs")
    if not is_typed or any(file not in outputs for file in [*files, *kept]):
        raise ValueError(f"{files!r} of {scene} are not its outputs")
