"""The output files of one scene, written block by block in a thread."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from segcore.constants import IGNORE
from segcore.data.raster import Info, Note
from segcore.inference.calibration import confidence
from segcore.inference.postprocess import Postprocess
from segcore.params import Predict
from segcore.prediction import mosaic
from segcore.prediction.held_classes import HeldClasses
from segcore.prediction.instance_store import ClassBlock
from segcore.prediction.object_outputs import ObjectOutputs
from segcore.prediction.scene_objects import BANDS, ObjectStore, as_steps
from segcore.prediction.writers import cog, objects, polygons
from segcore.prediction.writers.cog import PROBABILITY_STEPS, writing
from segcore.prediction.writers.color_table import write_color_table
from segcore.prediction.writers.dicom_segmentation import SegmentationWriter
from segcore.prediction.writers.geopackage import add_style, copy_others
from segcore.prediction.writers.nifti import write_prediction
from segcore.prediction.writers.stack import write_stack
from segcore.prediction.writers.styles import layer_style, probability_style, raster_style, write_style

# layers of a GeoPackage, by name in `predict.outputs`
_LAYERS = {"polygons": polygons.LAYER, "objects": objects.LAYER}
# rasters of numbers from 0 to 1, stored as bytes, by name in `predict.outputs`
_OF_BYTES = ("probabilities", "confidence")
# maximum of blocks that wait to be written
_QUEUED_BLOCKS = 4


@contextmanager
def scratch_folder(folder: Path, name: str) -> Iterator[Path]:
    """A temporary folder in the output folder; its name is fixed, so that the remains of a killed run are removed."""
    part = folder / f".{name}.part"
    with writing(folder / name):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


class SceneWriter:
    """Writes the blocks of a scene to a scratch folder, and makes the outputs from them.

    Args:
        description: model.json of the bundle.
        settings: `outputs`, `blend`, `min_area` and `simplify`.
        info: of the scene.
        name: prefix of the outputs' names.
        folder: scratch folder.
        found: outputs that are made of objects; None: none.
        segmentation: writes the DICOM segmentation; None: none.

    Attributes:
        notes: what was done that differs from what one may expect.

    Raises:
        DataError: the disk has too little space.
    """

    def __init__(
        self,
        description: dict[str, Any],
        settings: Predict,
        info: Info,
        name: str,
        folder: Path,
        found: ObjectOutputs | None = None,
        segmentation: SegmentationWriter | None = None,
    ) -> None:
        self.settings, self._objects, self._segmentation = settings, found, segmentation
        self.notes: list[Note] = []
        self.description, self.info, self.name, self.folder = description, info, name, folder
        self._shown = folder.parent / name
        self.blend, self.outputs = settings.blend, settings.outputs
        self.class_names: list[str] = description["classes"]
        self._stack, self._queue = ExitStack(), list[Future[None]]()
        volume = info.affine is not None or info.depth > 1
        size = (info.depth, info.height, info.width)
        self._planes = np.zeros(size, np.uint8) if volume else None
        possible: tuple[str, ...] = _OF_BYTES
        if volume:
            # all in memory, in which probabilities are too large
            possible = () if info.is_stack else ("confidence",)
        self._of_bytes = [name for name in possible if name in self.outputs]
        self._confidence = np.zeros(size, np.uint8) if volume and self._of_bytes else None
        self._files: dict[str, rasterio.io.DatasetWriter] = {}
        self._postprocess = Postprocess.of(description)
        self._held: HeldClasses | None = None
        if not volume:
            with writing(self._shown):
                if self._postprocess.steps:
                    self._held = HeldClasses(info.height, info.width, self._postprocess, folder)
                bands = 1 + sum(self._bands(name) for name in self._of_bytes)
                bands += BANDS if found is not None else 0
                cog.check_room(folder, info, bands)

    def _bands(self, name: str) -> int:
        return len(self.class_names) if name == "probabilities" else 1

    def __enter__(self) -> "SceneWriter":
        if self._planes is None:
            with writing(self._shown):
                self._files = {
                    "classes": self._open("classes", 1),
                    **{name: self._open(name, self._bands(name)) for name in self._of_bytes},
                }
                cog.describe_classes(self._files["classes"], self.class_names, self.description["colors"])
                if "probabilities" in self._files:
                    cog.describe_probabilities(self._files["probabilities"], self.class_names)
                if "confidence" in self._files:
                    cog.describe_confidence(self._files["confidence"])
        # entered last, so that the thread ends before the files are closed
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1))
        return self

    def _open(self, name: str, bands: int) -> rasterio.io.DatasetWriter:
        return self._stack.enter_context(cog.create(self.folder / name, self.info, bands))

    def __exit__(self, kind: object, *error: object) -> None:
        with writing(self._shown), self._stack:
            for future in self._queue:
                if kind is None:
                    future.result()
                future.cancel()

    def put(self, block: mosaic.Block) -> None:
        """Queue a block for writing; waits while the queue is full."""
        classes = mosaic.classes(block.scores).cpu().numpy()
        steps, shares = self._steps(block.scores), None
        if self._objects is not None and isinstance(self._objects.store, ObjectStore):
            shares = _of_objects(block, self.blend, self._objects.store.wants_all)
        self._submit(partial(self._write, block, classes, steps, shares))

    def _steps(self, scores: torch.Tensor) -> dict[str, np.ndarray]:
        """(n, H, W) uint8 of each raster of `_OF_BYTES` that is asked for."""
        if not self._of_bytes:
            return {}
        values = {"probabilities": mosaic.probabilities(scores, self.blend)}
        if "confidence" in self._of_bytes:
            temperature = self.description["calibration"]["temperature"]
            values["confidence"] = confidence(values["probabilities"], temperature)[None]
        # products are copies: the scores are overwritten by the next block
        scaled = {name: values[name] * PROBABILITY_STEPS for name in self._of_bytes}
        return {name: value.round_().to(torch.uint8).cpu().numpy() for name, value in scaled.items()}

    def put_classes(self, block: ClassBlock) -> None:
        """Queue a block of the classes of objects for writing; waits while the queue is full."""
        steps = {}
        if "probabilities" in self._of_bytes:
            found = block.probabilities(len(self.class_names)) * PROBABILITY_STEPS
            steps["probabilities"] = np.rint(found).astype(np.uint8)
            steps["probabilities"][:, block.classes == IGNORE] = IGNORE
        self._submit(partial(self._save, block.plane, block.row, block.col, block.classes, steps))

    def _submit(self, write: Callable[[], None]) -> None:
        self._queue.append(self._thread.submit(write))
        while len(self._queue) > _QUEUED_BLOCKS:
            with writing(self._shown):
                self._queue.pop(0).result()

    def _write(
        self,
        block: mosaic.Block,
        classes: np.ndarray,
        steps: dict[str, np.ndarray],
        shares: np.ndarray | None,
    ) -> None:
        if block.valid is not None:
            classes[~block.valid] = IGNORE
            for values in steps.values():
                values[:, ~block.valid] = IGNORE
        if shares is not None and self._objects is not None and isinstance(self._objects.store, ObjectStore):
            rows = slice(block.row, block.row + classes.shape[0])
            cols = slice(block.col, block.col + classes.shape[1])
            self._objects.store.put(block.plane, (rows, cols), classes, as_steps(shares))
        self._save(block.plane, block.row, block.col, classes, steps)

    def _save(
        self, plane: int, row: int, col: int, classes: np.ndarray, steps: dict[str, np.ndarray]
    ) -> None:
        if self._planes is None:
            if self._held is not None:
                self._held.put(row, col, classes)
            else:
                steps = {"classes": classes[None], **steps}
            for name, values in steps.items():
                cog.put(self._files[name], row, col, values)
            return
        height, width = classes.shape
        at = (plane, slice(row, row + height), slice(col, col + width))
        self._planes[at] = classes
        if self._confidence is not None:
            self._confidence[at] = steps["confidence"][0]

    def postprocess(self, stop_if_asked: Callable[[], object] = lambda: None) -> None:
        """Apply the model's post-processing to all planes, after the last block of a semantic network.

        Args:
            stop_if_asked: called now and then; may raise to stop.
        """
        with writing(self._shown):
            while self._queue:
                self._queue.pop(0).result()
            for plane in self._planes if self._planes is not None else ():
                self._postprocess.apply(plane, stop_if_asked)
            if self._held is not None:
                for row, classes in self._held.finished(stop_if_asked):
                    cog.put(self._files["classes"], row, 0, classes[None])

    def finish(self, stop_if_asked: Callable[[], object] = lambda: None) -> list[str]:
        """Make the outputs in the scratch folder, and return their names.

        Args:
            stop_if_asked: called now and then; may raise to stop.
        """
        tags = {"MODEL_SHA256": self.description["weights_sha256"]}
        self._keep_layers()
        made = self._of_volume() if self._planes is not None else self._of_picture(tags)
        if self._objects is not None:
            made += self._objects.finish(tags, stop_if_asked)
            self.notes += self._objects.notes
        self._style_layers()
        # files with several layers are named once
        return list(dict.fromkeys(made))

    def _keep_layers(self) -> None:
        """Start with the layers of an earlier prediction that are not written now."""
        if not self._layers:
            return
        name = f"{self.name}.gpkg"
        kept = copy_others(self.folder.parent / name, self.folder / name, [*_LAYERS.values()], self._layers)
        if kept:
            self.notes.append(("layers", f"{name} keeps of an earlier prediction: {', '.join(kept)}"))

    def _style_layers(self) -> None:
        style = layer_style(self.class_names, self.description["colors"], self.description["foreground"])
        for layer in self._layers:
            add_style(self.folder / f"{self.name}.gpkg", layer, style)

    @property
    def _layers(self) -> list[str]:
        """Layers of the GeoPackage that are written now; volumes have none."""
        if self._planes is not None:
            return []
        return [layer for word, layer in _LAYERS.items() if word in self.outputs]

    def _of_volume(self) -> list[str]:
        assert self._planes is not None
        if self.info.is_stack:
            path = self.folder / f"{self.name}.tif"
            write_stack(path, self._planes, self.info, self.class_names, self.description["colors"])
            return [path.name]
        made = list[str]()
        if self._segmentation is None or "classes" in self.outputs:
            made = [f"{self.name}.nii.gz", f"{self.name}.ctbl"]
            write_prediction(self.folder / made[0], self._planes, self.info)
            shown = self.description.get("foreground", range(1, len(self.class_names)))
            write_color_table(self.folder / made[1], self.class_names, self.description["colors"], shown)
        if self._segmentation is not None:
            made.append(f"{self.name}.dcm")
            self._segmentation.write(self.folder / made[-1], self._planes)
        if self._confidence is not None:
            made.append(f"{self.name}_confidence.nii.gz")
            write_prediction(self.folder / made[-1], self._confidence, self.info, 1 / PROBABILITY_STEPS)
        return made

    def _of_picture(self, tags: dict[str, str]) -> list[str]:
        made = list[str]()
        if "polygons" in self.outputs:
            made.append(f"{self.name}.gpkg")
            foreground, settings = self.description["foreground"], self.settings
            polygons.write_polygons(
                self.folder / "classes",
                self.folder / made[-1],
                self.info,
                self.class_names,
                foreground,
                settings.min_area,
                settings.simplify,
            )
        if "probabilities" in self.outputs:
            shown = min(self.description.get("foreground", []), default=0)
            made += self._raster("probabilities", tags, probability_style(shown + 1))
        if "confidence" in self.outputs:
            of_confidence = {**tags, "TEMPERATURE": str(self.description["calibration"]["temperature"])}
            made += self._raster("confidence", of_confidence, probability_style(1))
        if "classes" in self.outputs:
            made += self._raster("classes", tags, raster_style(self.class_names, self.description["colors"]))
        return made[::-1]

    def _raster(self, kind: str, tags: dict[str, str], style: str) -> list[str]:
        """Make a COG of a plain file, with its style beside it; returns the names of both, that of the style first."""
        is_of_classes = kind == "classes"
        target = self.folder / (f"{self.name}.tif" if is_of_classes else f"{self.name}_{kind}.tif")
        cog.to_cog(self.folder / kind, target, "NEAREST" if is_of_classes else "AVERAGE", tags)
        return [write_style(target, style), target.name]


def _of_objects(block: mosaic.Block, blend: str, wants_all: bool) -> np.ndarray:
    """(n, H, W) float32: what `ObjectStore.put` takes, before it is stored as steps."""
    probabilities = mosaic.probabilities(block.scores, blend)
    parts = [probabilities.amax(0, keepdim=True)]
    if block.touching is not None:
        parts.append(block.touching[None])
    if wants_all:
        parts.append(probabilities)
    # a copy: the scores are overwritten by the next block
    stacked: np.ndarray = torch.cat(parts).cpu().numpy()
    return stacked
