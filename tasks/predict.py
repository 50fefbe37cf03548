"""Predict new scenes with the champion or any other model.

`python -m tasks predict SCENES... --model ADDRESS --output FOLDER` writes a class raster on each scene's own grid (of
volumes NIfTI), and what else `--outputs` or `predict.outputs` of params.yaml names: probabilities, polygons, and of
models that were trained on objects, the objects as raster and polygons, COCO instances, and counts, also by zone
(`--count-by`). Scenes that cannot be used are reported and skipped. After an interruption, run the same command again:
it continues with the remaining scenes. Files of outputs that are not asked for any more stay, and are listed.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from segcore import params
from segcore.constants import IGNORE
from segcore.data.raster import Note
from segcore.errors import DataError, ParamsError, StageError
from segcore.io.layouts._scenes import scenes_of
from segcore.params import Params, Predict
from segcore.prediction.fit import TRAINING_IMAGES
from segcore.prediction.scene_reader import stamp_of
from tasks import console
from tasks.exported import EAGER, exported_model, file_sha256
from tasks.output_folder import OutputFolder, require_writable
from tasks.prediction_arguments import chosen, parser, windows_note
from tasks.prediction_counts import count_text, write_counts
from tasks.prediction_record import COUNTS, COUNTS_SUFFIX, RECORD, Record, suffixes
from tasks.project import PREDICTIONS
from tasks.scenes import check_name, counted, find_scenes
from tasks.supervisor import deferred_stop
from tasks.tracking.fetch import CHAMPION, find_model

if TYPE_CHECKING:
    # torch takes seconds to import; --help and errors in the arguments must not wait for it
    from segcore.prediction.predictor import Progress
# names of files that are printed
_SHOWN = 20


def settings_of(p: Params) -> Predict:
    """`predict` of params.yaml; where its tile, flips or objects is null, that of `evaluate`."""
    tile = p.evaluate.tile if p.predict.tile is None else p.predict.tile
    flips = p.evaluate.flips if p.predict.flips is None else p.predict.flips
    outputs = sorted(set(p.predict.outputs))
    objects = p.predict.objects or ("components" if p.evaluate.objects == "none" else p.evaluate.objects)
    update = {"tile": tile, "flips": flips, "outputs": outputs, "objects": objects}
    return p.predict.model_copy(update=update)


class Batch:
    """Scenes, one model, one output folder; a context manager that locks the folder and saves the record.

    Args:
        p: parameters; `predict` is used, and `evaluate.tile` and `evaluate.flips`.
        scenes: files, folders and glob patterns.
        address: of the model, as for `find_model`.
        output: folder of the files and of predictions.json; checked before the model is loaded.
        runtime: what computes: the network of the bundle, or an exported file of it (`tasks.exported`).

    Attributes:
        todo: scenes that are not predicted yet.
        failed: error of each scene that has failed so far.
        notes: of each scene that was predicted or has failed, what was done to it on reading.

    Raises:
        SegflowError: a scene, the model or a setting is wrong.
    """

    def __init__(
        self,
        p: Params,
        scenes: Sequence[str | Path],
        address: str,
        output: Path,
        runtime: str = EAGER,
    ) -> None:
        require_writable(output)
        skipped: Counter[str] = Counter()
        self.output, paths = output, find_scenes(scenes, output, skipped)
        if skipped:
            print(f"predict: no images, skipped: {counted(skipped)}", flush=True)
        found = find_model(p, address)
        from segcore.prediction.predictor import Predictor

        self._runtime = [] if runtime == EAGER else [runtime, file_sha256(found, runtime)]
        model = None if runtime == EAGER else exported_model(found, runtime, address)
        self.predictor = Predictor(found.bundle, settings_of(p), model=model)
        self._windows_note = windows_note(p, self.predictor.description, self.predictor.tile)
        self._channels = scenes_of(paths, self.predictor.data)
        self.scenes = list(self._channels)
        self.model = {
            "address": address,
            "name": found.name,
            "version": found.version,
            "alias": found.alias,
            "architecture": found.bundle.description["architecture"],
            "weights_sha256": found.bundle.weights_sha256,
            "description_sha256": found.bundle.description_sha256,
        }
        if "kind" in found.bundle.description:
            self.model["kind"] = found.bundle.description["kind"]
        self.failed: dict[Path, DataError] = {}
        self.notes: dict[Path, list[Note]] = {}

    def __enter__(self) -> "Batch":
        with ExitStack() as stack:
            self._folder = stack.enter_context(OutputFolder(self.output))
            settings = {**self.predictor.settings.model_dump(), "precision": self.predictor.precision}
            if self._runtime:
                settings["runtime"] = self._runtime
            if self.predictor.zones is not None:
                settings["count_by"] = [settings["count_by"], self.predictor.zones.sha256]
            self.record = Record.open(self.output, self.model, settings)
            self.names = self.record.names(self.scenes)
            self._refuse_to_overwrite_scenes()
            self.todo = [scene for scene in self.scenes if not self._is_done(scene)]
            self.record.expect(self.todo)
            self._stack = stack.pop_all()
        self._print_facts()
        return self

    def _print_facts(self) -> None:
        """Which model predicts, what the values of class rasters mean, and whether scenes are compared with it."""
        model = self.model
        place = (
            model["address"] if model["name"] is None else f"version {model['version']} of {model['name']}"
        )
        alias = f" ({model['alias']})" if model["alias"] else ""
        by = f", by {self._runtime[0]}" if self._runtime else ""
        print(f"predict: {model['architecture']}, {place}{alias}, weights {model['weights_sha256'][:12]}{by}")
        values = ", ".join(f"{value} {name}" for value, name in enumerate(self.predictor.classes))
        print(f"predict: in class rasters {values}, {IGNORE} nodata", flush=True)
        for note in (self.predictor.warning, self._windows_note):
            if note:
                print(f"predict: {note}", flush=True)
        if TRAINING_IMAGES not in self.predictor.description:
            print(
                "predict: an older version trained this model, so units and resolution of the scenes are not "
                "compared with those of its training images",
                flush=True,
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self._folder.is_there():
                # of a scene of which a file is gone, only the name is kept
                for scene in self.record.removed():
                    self.record.scenes[scene] = {"name": self.record.scenes[scene]["name"]}
                try:
                    self.record.save()
                except DataError:
                    # on a full disk, the error of the scene is the one to report
                    if kind is None:
                        raise
            elif kind is None:
                self._folder.require()

    def _refuse_to_overwrite_scenes(self) -> None:
        # Path.resolve raises RuntimeError for a link to itself, which is an error of that scene
        sources = {os.path.realpath(file) for item in self._channels.items() for file in (item[0], *item[1])}
        for scene, name in self.names.items():
            for suffix in suffixes(self.predictor.settings.outputs):
                target = os.path.realpath(self.output / f"{name}{suffix}")
                if target in sources:
                    raise ParamsError(
                        f"{target}: the prediction of {scene.name} would overwrite a scene",
                        "choose another --output",
                    )

    def _is_done(self, scene: Path) -> bool:
        try:
            return self.record.is_done(scene, self._channels[scene])
        except DataError:
            # reported when the scene is predicted
            return False

    def predict(self, scene: Path, progress: "Progress" = lambda done, total: None) -> list[str]:
        """Predict a scene and add it to the record; returns the names of its files.

        Ctrl-C and SIGTERM take effect between two blocks of the scene.

        Raises:
            DataError: the scene cannot be used; the error is recorded as well.
            StageError: the output folder was removed.
        """
        with deferred_stop() as stop_if_asked:

            def step(done: int, total: int) -> None:
                stop_if_asked()
                progress(done, total)

            return self._predict(scene, step)

    def _predict(self, scene: Path, progress: "Progress") -> list[str]:
        name, notes = self.names[scene], self.notes.setdefault(scene, [])
        self._folder.require()
        try:
            check_name(scene, name, self.predictor.settings.outputs)
            channels = self._channels[scene]
            before = stamp_of(scene, channels)
            files = self.predictor.predict_file(scene, self.output, name, progress, notes.extend, channels)
        except DataError as error:
            self._folder.require()
            self.failed[scene] = error
            self.record.add(scene, name, error=str(error), notes=notes)
            raise
        self._folder.require()
        self.record.add(scene, name, stamp=before, files=files, notes=notes)
        return files

    def finish(self, delete_others: bool = False) -> dict[str, int]:
        """Numbers of scenes predicted now and before; files of outputs that are not wanted are listed.

        Args:
            delete_others: delete those files.

        Raises:
            StageError: scenes failed; all are listed. Or a file was removed meanwhile.
        """
        self._folder.require()
        removed = self.record.removed()
        if gone := [removed[str(scene)] for scene in self.scenes if str(scene) in removed]:
            raise StageError(
                f"{gone[0]}: was removed while scenes were predicted ({len(gone)} of {len(self.scenes)} scenes)",
                "run the same command again",
            )
        self._report_others(delete_others)
        done = [self.names[scene] for scene in self.scenes if scene not in self.failed]
        if self._counts and done:
            together = write_counts(self.output, done, self.predictor)
            print(f"predict: {len(done)} {'scene' if len(done) == 1 else 'scenes'}: {together}", flush=True)
        if self.failed:
            lines = "\n".join(f"  {scene}: {error.what}" for scene, error in self.failed.items())
            others = f", the others are in {self.output}" if len(self.failed) < len(self.scenes) else ""
            raise StageError(
                f"{len(self.failed)} of {len(self.scenes)} scenes failed{others}:\n{lines}", self._remedy()
            )
        return {"predicted": len(self.todo), "done before": len(self.scenes) - len(self.todo)}

    @property
    def _counts(self) -> bool:
        return "counts" in self.predictor.settings.outputs

    def counts(self, scene: Path) -> str | None:
        """What was counted in a scene that was predicted, as one line; None without the output `counts`."""
        if not self._counts or scene in self.failed:
            return None
        return f"{self.names[scene]}: {count_text(self.output, self.names[scene])}"

    def _remedy(self) -> str:
        """That of all errors if they have one in common."""
        remedies = {error.remedy for error in self.failed.values()}
        if len(remedies) == 1:
            return remedies.pop()
        return "correct or remove these scenes, then run again: finished scenes are not repeated"

    def _report_others(self, delete: bool) -> None:
        others = self.record.delete_others(self.scenes) if delete else self.record.others(self.scenes)
        if not others:
            return
        # with counts, it is written again
        is_outdated = not self._counts and any(file.endswith(COUNTS_SUFFIX) for file in others)
        if is_outdated and (self.output / COUNTS).is_file():
            others.append(COUNTS)
            if delete:
                (self.output / COUNTS).unlink()
        shown = ", ".join(others[:_SHOWN]) + (
            f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        )
        if delete:
            print(f"predict: deleted outputs that were not asked for: {shown}", flush=True)
        else:
            print(
                f"predict: left outputs of an earlier prediction, which this one did not replace: {shown}; "
                f"{RECORD} has the model of each, --delete-others deletes them",
                flush=True,
            )


def run_prediction(
    p: Params,
    scenes: Sequence[str | Path],
    address: str = CHAMPION,
    output: Path = PREDICTIONS,
    delete_others: bool = False,
    runtime: str = EAGER,
) -> dict[str, int]:
    """Predict all scenes that are not predicted yet, one after the other.

    Args:
        p: parameters; `predict` is used, and `evaluate.tile` and `evaluate.flips`.
        scenes: files, folders and glob patterns.
        address: of the model, as for `find_model`.
        output: folder of the files and of predictions.json.
        delete_others: delete files of earlier predictions of these scenes that are no wanted output.
        runtime: as of `Batch`.

    Returns:
        Numbers of scenes "predicted" and "done before".

    Raises:
        StageError: some scenes failed, the others are predicted; or the disk is full, and scenes that were finished are
            kept. SegflowError: nothing was predicted.
    """
    with (
        Batch(p, scenes, address, output, runtime) as batch,
        console.progress(batch.todo, "predict", unit="scene") as bar,
    ):
        # not over the bar, whose own count is wrong beside calls of `update`
        for scene in batch.todo:

            def show(done: int, total: int, name: str = scene.name) -> None:
                bar.set_postfix_str(f"{name} {done / total:.0%}", refresh=False)
                bar.update(0)

            try:
                batch.predict(scene, show)
            except DataError as error:
                if scene not in batch.failed:
                    raise
                bar.write(f"{scene}: {error}")
            for _, text in batch.notes.get(scene, []):
                bar.write(f"{scene}: {text}")
            if line := batch.counts(scene):
                bar.write(line)
            bar.update()
        return batch.finish(delete_others)


def main() -> None:
    """Command line."""

    def work(a: argparse.Namespace) -> None:
        p = chosen(params.load(a.params), a.outputs, a.accept, a.count_by)
        counts = run_prediction(p, a.scenes, a.model, a.output, a.delete_others, a.runtime)
        print(", ".join(f"{n} {what}" for what, n in counts.items()) + f": {a.output}")

    console.run(work, parser("python -m tasks predict", __doc__))


console.refuse_as_script(__name__)
