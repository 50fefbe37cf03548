"""A scene in, files out: what a trained bundle says of a new image, on the image's own grid.

    predictor = Predictor(Path("models/unet-0"), Settings(tile=704, overlap=64))
    predictor.predict(Path("scene.tif"), "scene", Path("predictions"))   # ["scene.tif"]

Pixels are read as they were for training, which model.json tells under `input`: bands, nodata, scaling, and the axis
that volumes are cut along.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import beside
from segcore.data.raster import Info, Window
from segcore.errors import DataError, ParamsError
from segcore.files import fsync
from segcore.inference.device import choose_precision, default_device
from segcore.inference.tta import require_trained, seen
from segcore.io import images
from segcore.io.bands import Declared
from segcore.models.base.bundle import load_bundle, load_description
from segcore.params.data import Data
from segcore.prediction import mosaic
from segcore.prediction.fuse_batchnorm import fused
from segcore.prediction.writers import cog
from segcore.prediction.writers.cog import PROBABILITY_STEPS, writing
from segcore.prediction.writers.nifti import write_prediction
from segcore.prediction.writers.polygons import write_polygons

Progress = Callable[[int, int], None]  # windows done, and of how many
_PANEL_BYTES = 32_000_000
_STRIPED = 16_384  # columns of a panel where rows can only be decoded whole
_WAITING = 4  # blocks that may wait for the disk


@dataclass(frozen=True)
class PredictionSettings:
    """How scenes are predicted.

    Attributes:
        tile, overlap: of windows, in pixels.
        blend: what is averaged where windows overlap, "probabilities" or "logits"; always before the argmax.
        outputs: of "classes", "probabilities" and "polygons".
        flips: the mean over mirror images, in four times the time.
    """

    tile: int
    overlap: int = 64
    blend: str = "probabilities"
    outputs: tuple[str, ...] = ("classes",)
    flips: bool = False


def declared_data(description: dict[str, Any]) -> Data:
    """The `data` section that pixels are read by, of what a bundle's model.json says.

    Bundles of before `input` was written say nothing of it: all bands as they are.
    """
    given = {k: v for k, v in description.get("input", {}).items() if k in Data.model_fields}
    fixed: dict[str, Any] = {"name": "scene", "source": "", "label_values": {}, "background": None}
    classes = {"classes": description["classes"], "colors": description["colors"]}
    return Data.model_validate({**given, **fixed, **classes})


class Predictor:
    """A loaded bundle that predicts scenes.

    Args:
        bundle: folder of model.json and model.safetensors; its hash is verified.
        settings: how.
        device: None for CUDA where there is one.

    Raises:
        ModelError: the bundle is missing or damaged.
        ParamsError: the overlap is more than half a tile.
    """

    def __init__(
        self, bundle: Path, settings: PredictionSettings, device: torch.device | None = None
    ) -> None:
        if settings.overlap * 2 > settings.tile:
            raise ParamsError(
                f"predict.overlap {settings.overlap} is more than half of the window, {settings.tile}",
                "choose a smaller predict.overlap, or a larger predict.tile",
            )
        self.settings, self.description = settings, load_description(bundle)
        self.data, device = declared_data(self.description), device or default_device()
        self.channels_a_band = len(beside(0, self.data.neighbours, 1))
        self.model = fused(load_bundle(bundle, device)).to(memory_format=torch.channels_last)
        if settings.flips:
            require_trained(self.description.get("parameters", {}), bundle.name)
        self.model = seen(self.model, settings.flips)
        wanted = self.description.get("parameters", {}).get("precision", "auto")
        self.precision = choose_precision(wanted, device)

    def predict(
        self, scene: Path, name: str, folder: Path, progress: Progress = lambda done, total: None
    ) -> list[str]:
        """Predict a scene, and write what is asked for; every file appears whole or not at all.

        Args:
            scene: a file, or a folder that holds one DICOM series.
            name: that the outputs' names begin with.
            folder: existing; outputs there of the same name are replaced.

        Returns:
            Names of the files: NAME.tif (uint8, 255 is nodata), NAME_probabilities.tif (uint8, 0 to 254 is 0 to 1),
            NAME.gpkg; of a volume NAME.nii.gz.

        Raises:
            DataError: the scene cannot be read, does not fit the model, or the outputs cannot be written.
        """
        with _scratch(folder, name) as part:
            with images.open_source(scene, self.data.slices) as source:
                _check_size(source.info, self.data, scene.name)
                declared = Declared(source, self.data, scene.name)
                self._check_fit(declared.info, source.info, scene.name)
                made = _Writer(self, declared.info, name, part)
                with made:
                    self._run(declared, made, part, progress)
            with writing(folder / name):
                files = made.finish()
                for file in files:
                    fsync(part / file)
                    (part / file).replace(folder / file)
                fsync(folder)
        return files

    def _check_fit(self, info: Info, stored: Info, name: str) -> None:
        bands = self.model.in_channels // self.channels_a_band
        if info.bands != bands:
            raise DataError(
                f"{name}: has {info.bands} bands, the model takes {bands}",
                "give scenes with the bands of the training images, in their order",
                kind="band-count",
            )
        trained = self.description.get("input", {}).get("dtype")
        if trained and self.data.scale != "item" and (trained == "uint8") != (stored.dtype == "uint8"):
            raise DataError(
                f"{name}: holds {stored.dtype} values, the training images held {trained}",
                "give scenes in the units of the training images (gdal_translate -ot and -scale)",
                kind="other-dtype",
            )

    def _run(self, declared: Declared, made: "_Writer", scratch: Path, progress: Progress) -> None:
        info = declared.info
        grid = mosaic.Grid(
            info.height, info.width, self.settings.tile, self.settings.overlap, self._panel(info)
        )
        blending = mosaic.Mosaic(self.model, grid, self.settings.blend, self.precision, scratch)
        read = mosaic.strips_of_planes(grid, info.depth, self._reader(declared))
        done = 0
        with closing(read), closing(mosaic.ahead(read)) as coming:
            for plane in range(info.depth):
                for block in blending.blocks(coming):
                    made.put(plane, block)
                    done += block.windows
                    progress(done, len(grid) * info.depth)

    def _reader(self, declared: Declared) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """Reads a window of a plane as the model sees it: with the planes beside it, where it was trained so."""
        if self.channels_a_band == 1:
            return declared.read

        def read(window: Window, plane: int = 0) -> tuple[np.ndarray, np.ndarray]:
            planes = beside(plane, self.data.neighbours, declared.info.depth)
            found = {index: declared.read(window, index) for index in set(planes)}
            return np.concatenate([found[index][0] for index in planes]), found[plane][1]

        return read

    def _panel(self, info: Info) -> int:
        """Columns of a panel: what fits into a fixed amount of memory."""
        if info.block and info.block[1] >= info.width:
            return _STRIPED
        pixel = (
            3 * info.bands * self.channels_a_band * np.dtype(info.dtype).itemsize + 8 * self.model.num_classes
        )
        return _PANEL_BYTES // (self.settings.tile * pixel)


def _check_size(info: Info, data: Data, name: str) -> None:
    if info.depth * info.height * info.width > data.max_pixels:
        raise DataError(
            f"{name}: declares {info.depth} x {info.height} x {info.width} pixels, more than {data.max_pixels}",
            "restore the file if its header is damaged, or cut it into smaller scenes",
            kind="too-large",
        )


@contextmanager
def _scratch(folder: Path, name: str) -> Iterator[Path]:
    """A folder beside the outputs, of the same name each time, so that what a killed run left is cleared."""
    part = folder / f".{name}.part"
    with writing(part):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _Writer:
    """Takes blocks to the disk in a thread, and makes the outputs of them."""

    def __init__(self, predictor: Predictor, info: Info, name: str, part: Path) -> None:
        d, outputs = predictor.description, predictor.settings.outputs
        self.info, self.name, self.part = info, name, part
        self.blend, self.outputs = predictor.settings.blend, outputs
        self.names, self.colors, self.foreground = d["classes"], d["colors"], d["foreground"]
        self.tags = {"MODEL_SHA256": d["weights_sha256"]}
        self._stack, self._waiting = ExitStack(), list[Future[None]]()
        self.volume = info.affine is not None or info.depth > 1
        self._planes = np.zeros((info.depth, info.height, info.width), np.uint8) if self.volume else None
        self._classes = self._probabilities = None
        if not self.volume:
            bands = 1 + len(self.names) * ("probabilities" in outputs)
            cog.check_room(part, info, bands)

    def __enter__(self) -> "_Writer":
        if not self.volume:
            with writing(self.part):
                opened = cog.create(self.part / "classes", self.info, 1)
                self._classes = self._stack.enter_context(opened)
                cog.describe_classes(opened, self.names, self.colors)
                if "probabilities" in self.outputs:
                    opened = cog.create(self.part / "probabilities", self.info, len(self.names))
                    self._probabilities = self._stack.enter_context(opened)
                    cog.describe_probabilities(opened, self.names)
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1))  # ends before the files are closed
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        with writing(self.part), self._stack:
            for future in self._waiting:
                if kind is None:
                    future.result()
                future.cancel()

    def put(self, plane: int, block: mosaic.Block) -> None:
        """Have a block written; waits while the disk is behind."""
        found = mosaic.classes(block.scores).cpu().numpy()
        shares = None
        if self._probabilities is not None:
            steps = mosaic.probabilities(block.scores, self.blend) * PROBABILITY_STEPS
            shares = steps.round_().to(torch.uint8).cpu().numpy()
        self._waiting.append(self._thread.submit(self._write, plane, block, found, shares))
        while len(self._waiting) > _WAITING:
            with writing(self.part):
                self._waiting.pop(0).result()

    def _write(self, plane: int, block: mosaic.Block, found: np.ndarray, shares: np.ndarray | None) -> None:
        if block.valid is not None:
            found[~block.valid] = IGNORE
            if shares is not None:
                shares[:, ~block.valid] = IGNORE
        if self._planes is not None:
            rows = slice(block.row, block.row + found.shape[0])
            self._planes[plane, rows, block.col : block.col + found.shape[1]] = found
            return
        cog.put(self._classes, block.row, block.col, found[None])
        if shares is not None:
            cog.put(self._probabilities, block.row, block.col, shares)

    def finish(self) -> list[str]:
        """Make the outputs in the scratch folder; returns their names."""
        if self._planes is not None:
            write_prediction(self.part / f"{self.name}.nii.gz", self._planes, self.info)
            return [f"{self.name}.nii.gz"]
        made, plain = [], self.part / "classes"
        if "polygons" in self.outputs:
            made.append(f"{self.name}.gpkg")
            write_polygons(plain, self.part / made[-1], self.info, self.names, self.foreground)
        if "probabilities" in self.outputs:
            made.append(f"{self.name}_probabilities.tif")
            cog.to_cog(self.part / "probabilities", self.part / made[-1], "AVERAGE", self.tags)
        if "classes" in self.outputs:
            made.append(f"{self.name}.tif")
            cog.to_cog(plain, self.part / made[-1], "NEAREST", self.tags)
        return made[::-1]
