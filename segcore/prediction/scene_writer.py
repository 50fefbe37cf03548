"""The output files of one scene, written block by block in a thread."""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.params import Predict
from segcore.prediction import mosaic
from segcore.prediction.writers import cog
from segcore.prediction.writers.cog import PROBABILITY_STEPS, writing
from segcore.prediction.writers.nifti import write_prediction
from segcore.prediction.writers.polygons import write_polygons
from segcore.prediction.writers.stack import write_stack

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
        settings: `outputs` and `blend`.
        info: of the scene.
        name: prefix of the outputs' names.
        folder: scratch folder.

    Raises:
        DataError: the disk has too little space.
    """

    def __init__(
        self, description: dict[str, Any], settings: Predict, info: Info, name: str, folder: Path
    ) -> None:
        self.description, self.info, self.name, self.folder = description, info, name, folder
        self._shown = folder.parent / name
        self.blend, self.outputs = settings.blend, settings.outputs
        self.class_names: list[str] = description["classes"]
        self._stack, self._queue = ExitStack(), list[Future[None]]()
        volume = info.affine is not None or info.depth > 1
        self._planes = np.zeros((info.depth, info.height, info.width), np.uint8) if volume else None
        self._classes: rasterio.io.DatasetWriter | None = None
        self._probabilities: rasterio.io.DatasetWriter | None = None
        if not volume:
            with writing(self._shown):
                bands = 1 + len(self.class_names) * ("probabilities" in self.outputs)
                cog.check_room(folder, info, bands)

    def __enter__(self) -> "SceneWriter":
        if self._planes is None:
            with writing(self._shown):
                self._classes = self._open("classes", 1)
                cog.describe_classes(self._classes, self.class_names, self.description["colors"])
                if "probabilities" in self.outputs:
                    self._probabilities = self._open("probabilities", len(self.class_names))
                    cog.describe_probabilities(self._probabilities, self.class_names)
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

    def put(self, plane: int, block: mosaic.Block) -> None:
        """Queue a block for writing; waits while the queue is full."""
        classes = mosaic.classes(block.scores).cpu().numpy()
        steps = None
        if self._probabilities is not None:
            scaled = mosaic.probabilities(block.scores, self.blend) * PROBABILITY_STEPS
            steps = scaled.round_().to(torch.uint8).cpu().numpy()
        self._queue.append(self._thread.submit(self._write, plane, block, classes, steps))
        while len(self._queue) > _QUEUED_BLOCKS:
            with writing(self._shown):
                self._queue.pop(0).result()

    def _write(self, plane: int, block: mosaic.Block, classes: np.ndarray, steps: np.ndarray | None) -> None:
        if block.valid is not None:
            classes[~block.valid] = IGNORE
            if steps is not None:
                steps[:, ~block.valid] = IGNORE
        if self._planes is not None:
            rows = slice(block.row, block.row + classes.shape[0])
            self._planes[plane, rows, block.col : block.col + classes.shape[1]] = classes
            return
        cog.put(self._classes, block.row, block.col, classes[None])
        if steps is not None:
            cog.put(self._probabilities, block.row, block.col, steps)

    def finish(self) -> list[str]:
        """Make the outputs in the scratch folder, and return their names."""
        if self._planes is not None and self.info.is_stack:
            path = self.folder / f"{self.name}.tif"
            write_stack(path, self._planes, self.info, self.class_names, self.description["colors"])
            return [path.name]
        if self._planes is not None:
            write_prediction(self.folder / f"{self.name}.nii.gz", self._planes, self.info)
            return [f"{self.name}.nii.gz"]
        made, plain = list[str](), self.folder / "classes"
        tags = {"MODEL_SHA256": self.description["weights_sha256"]}
        if "polygons" in self.outputs:
            made.append(f"{self.name}.gpkg")
            foreground = self.description["foreground"]
            write_polygons(plain, self.folder / made[-1], self.info, self.class_names, foreground)
        if "probabilities" in self.outputs:
            made.append(f"{self.name}_probabilities.tif")
            cog.to_cog(self.folder / "probabilities", self.folder / made[-1], "AVERAGE", tags)
        if "classes" in self.outputs:
            made.append(f"{self.name}.tif")
            cog.to_cog(plain, self.folder / made[-1], "NEAREST", tags)
        return made[::-1]
