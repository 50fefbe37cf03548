"""Predict images with a trained model: arrays in memory, or files of any size on their own grid.

    predictor = load("models/unet-0")
    prediction = predictor.predict(array)                   # classes, probabilities, valid
    predictor.predict_file("scene.tif", "predictions")      # ["scene.tif"]

Pixels are processed as in training, according to `input` of model.json: bands, nodata, scaling, and the axis along
which volumes are cut into planes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from segcore.cpu import keep_memory
from segcore.data.prepared import neighbouring_planes
from segcore.data.raster import Info, Note
from segcore.errors import DataError, ParamsError
from segcore.files import fsync
from segcore.inference.device import choose_precision, default_device
from segcore.inference.postprocess import Postprocess
from segcore.inference.tta import PREDICTED, require_no_objects, require_trained, with_flips
from segcore.io import images
from segcore.io.bands import Declared
from segcore.io.layouts._patterns import stem_of
from segcore.models.base.bundle import Bundle, read_bundle
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.params import Predict, error_texts
from segcore.prediction import mosaic
from segcore.prediction.arrays import ArraySource, ArrayWriter, Prediction, with_confidence, with_objects
from segcore.prediction.bundle_settings import (
    OBJECT_OUTPUTS,
    declared_data,
    find_settings,
    in_windows,
    overlap_note,
    require_finite,
    resolved,
    temperature_of,
)
from segcore.prediction.class_store import ClassStore
from segcore.prediction.fit import (
    UNLIKE_TRAINING,
    check_bands,
    check_resolution,
    check_size,
    check_values,
    resampling_steps,
)
from segcore.prediction.fuse_batchnorm import fused
from segcore.prediction.grid import Grid
from segcore.prediction.instance_store import InstanceStore
from segcore.prediction.instance_windows import find_objects, grid_of
from segcore.prediction.object_outputs import ObjectOutputs
from segcore.prediction.resampling import Resampled, ScoreStore
from segcore.prediction.scene_objects import ObjectStore
from segcore.prediction.scene_reader import opened, within_limit
from segcore.prediction.scene_windows import BlockWriter, blend_windows, panel_columns, reader_of
from segcore.prediction.scene_writer import SceneWriter, scratch_folder
from segcore.prediction.stac import write_item
from segcore.prediction.writers.cog import writing
from segcore.prediction.writers.dicom_segmentation import SegmentationWriter
from segcore.prediction.zones import read_zones

# entries of model.json that every prediction needs, besides those of the network
_REQUIRED = ("classes", "colors")
# called with the number of windows done and their total
Progress = Callable[[int, int], None]


def load(bundle: Path | str, device: torch.device | str | None = None, **settings: Any) -> "Predictor":
    """Load a trained model for prediction.

    Args:
        bundle: folder of model.json and model.safetensors, whose checksum is verified.
        device: None for CUDA where available, else the CPU.
        settings: any of `tile`, `overlap`, `blend`, `flips` and `outputs` of `segcore.params.Predict`.

    Raises:
        ModelError: the bundle is missing or damaged.
        ParamsError: an unknown setting, a wrong value, or an overlap of more than half a tile.
    """
    try:
        chosen = Predict.model_validate(settings)
    except ValidationError as error:
        known = ", ".join(sorted(Predict.model_fields))
        raise ParamsError(
            f"prediction settings: {error_texts.text(error, settings)}", f"known settings: {known}"
        ) from error
    return Predictor(bundle, chosen, device)


class Predictor:
    """A trained model, ready to predict.

    On a CPU, this process keeps freed memory from then on, which saves a quarter of the time.

    Args:
        bundle: folder of model.json and model.safetensors, which are read once and verified, or a bundle read before.
        settings: tile None: the bundle's tile, with an overlap of at most half of it; flips None: False.
        device: None for CUDA where available, else the CPU.
        model: what computes instead of the bundle's network, in float32, such as an exported file of it.

    Attributes:
        classes: names, in the order of the class indices.
        settings: with all None resolved.
        precision: "fp32" or "bf16".

    Raises:
        ModelError: the bundle is missing or damaged.
        ParamsError: the overlap is more than half a tile, or flips are set for a model trained without, or for an
            instance network.
    """

    def __init__(
        self,
        bundle: Path | str | Bundle,
        settings: Predict | None = None,
        device: torch.device | str | None = None,
        model: SegmentationModel | None = None,
    ) -> None:
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(bundle)
        bundle.require(*_REQUIRED)
        self.description, self._name = bundle.description, bundle.folder.resolve().name
        self.classes: list[str] = self.description["classes"]
        self.settings = resolved(settings or Predict(), bundle)
        self.find = find_settings(self.settings, bundle)
        self.temperature = temperature_of(self.settings, bundle)
        self._postprocess = Postprocess.of(self.description)
        is_counted = "counts" in self.settings.outputs and self.settings.count_by is not None
        self.zones = read_zones(Path(str(self.settings.count_by))) if is_counted else None
        self.data = declared_data(bundle)
        device = default_device() if device is None else torch.device(device)
        if device.type == "cpu":
            keep_memory()
        self.channels_per_band = len(neighbouring_planes(0, self.data.neighbours, 1))
        parameters = self.description.get("parameters", {})
        flips = bool(self.settings.flips)
        if flips:
            require_trained(parameters, bundle.folder.name, PREDICTED)
        is_own = model is None
        model = bundle.model(device) if model is None else model.to(device)
        if flips:
            require_no_objects(model, PREDICTED)
        require_finite(model, bundle)
        self.settings, self.tile = in_windows(self.settings, bundle, model)
        self.warning = overlap_note(self.settings, bundle, model)
        if is_own:
            model = fused(model).to(memory_format=torch.channels_last)
        self.model = with_flips(model, flips)
        self.precision = choose_precision(parameters.get("precision", "auto") if is_own else "fp32", device)

    def predict(
        self, image: np.ndarray | Path | str, valid: np.ndarray | None = None, channels: Sequence[Path] = ()
    ) -> Prediction:
        """Predict an array, or a file as a whole in memory.

        Both are tiled; bands, nodata, scaling and normalisation are those of the training. Pixels that are NaN,
        infinite, nodata as in the training data, or not `valid` do not influence others.

        Args:
            image: raw pixel values (H, W), (H, W, C), or (D, H, W, C) for a volume; or the path of a file, or of a
                folder with one DICOM series.
            valid: (H, W) or (D, H, W), True where the array has data; None: everywhere. Only for arrays.
            channels: files of the further bands of a file.

        Returns:
            classes (H, W) uint8, probabilities (K, H, W) float32 and valid (H, W) bool; for a volume with an axis D
            before H, planes of a file in RAS order. Objects and confidence if `settings.outputs` names an output of
            them.

        Raises:
            DataError: the image cannot be read, is empty, or does not fit the model (bands, dtype).
        """
        if not isinstance(image, Path | str):
            array = ArraySource(image, valid)
            return self._predict_source(array, "array", array.is_volume)
        if valid is not None:
            raise DataError(
                f"{image}: a mask is given for a file, which has its own nodata",
                "pass the pixels as an array, or no mask",
            )
        with opened(Path(image), self.data, channels) as source:
            return self._predict_source(source, Path(image).name, _is_volume(source.info))

    def _predict_source(self, source: images.Source, name: str, is_volume: bool) -> Prediction:
        declared, _ = self._declared(source, name)
        # one panel, because the whole image is in memory anyway
        grid = self._grid(declared.info, declared.info.width)
        store = self._store(source.info, None)
        if isinstance(store, InstanceStore):
            self._find(declared, store, grid)
            return store.prediction(len(self.classes), self.settings.min_area, is_volume)
        blend, touching = self.settings.blend, self.model.touching
        collected = ArrayWriter(source.info, self.model.num_classes, blend, touching)
        self._blend(declared, collected, grid, None)
        made = collected.result(is_volume)
        if self.temperature is not None:
            made = with_confidence(made, self.temperature)
        if self.find is not None:
            made = with_objects(made, self.description["foreground"], self.find, self.settings.min_area)
        # last, because objects are those of the network's own classes
        for plane in made.classes if is_volume else [made.classes]:
            self._postprocess.apply(plane)
        return made

    def predict_file(
        self,
        scene: Path | str,
        folder: Path | str,
        name: str | None = None,
        progress: Progress = lambda done, total: None,
        notes: Callable[[list[Note]], None] = lambda notes: None,
        channels: Sequence[Path] = (),
    ) -> list[str]:
        """Predict a scene of any size in bounded memory, and write the outputs of `settings.outputs`.

        Every file appears complete or not at all.

        Args:
            scene: a file, or a folder with one DICOM series.
            folder: for the outputs; files of the same name are replaced.
            name: prefix of the outputs' names; None: the scene's name without file extension.
            progress: called with the number of windows done and their total, also while objects are found afterwards.
            notes: called with what was done to the scene on reading, before it is predicted.
            channels: files of the further bands of the scene.

        Returns:
            Names of the files: NAME.tif (uint8, 255 is nodata), NAME_probabilities.tif and NAME_confidence.tif (uint8,
            0..254 for 0..1), each with a QGIS style (.qml), NAME.gpkg, NAME_objects.tif (uint32, 0 is none), NAME.json,
            NAME_counts.csv, NAME_zones.csv, NAME_zones.gpkg, and for a scene with a position on the earth
            NAME.stac.json; for a volume NAME.nii.gz with NAME.ctbl, NAME_confidence.nii.gz, NAME.dcm,
            NAME_objects.nii.gz and NAME_counts.csv.

        Raises:
            DataError: the scene cannot be read, does not fit the model, or the outputs cannot be written.
        """
        scene, folder = Path(scene), Path(folder)
        name = name or (scene.name if scene.is_dir() else stem_of(scene.name))
        with scratch_folder(folder, name) as part:
            with opened(scene, self.data, channels) as source:
                declared, noted = self._declared(source, scene.name)
                notes(noted)
                grid = self._grid(declared.info, self._columns(declared.info))
                total = len(grid) * declared.info.depth
                with writing(folder / name):
                    store = self._store(source.info, part)
                    objects = self._objects(store, source.info, scene.name, name, part, noted)
                segmentation = self._segmentation(scene, source.info)
                writer = SceneWriter(
                    self.description, self.settings, source.info, name, part, objects, segmentation
                )
                with writer:
                    if isinstance(store, InstanceStore):
                        self._find(declared, store, grid, progress)
                        least = self.settings.min_area
                        for block in store.blocks(least, lambda: progress(total, total)):
                            writer.put_classes(block)
                    else:
                        self._blend(declared, writer, grid, part, progress)
                        writer.postprocess(lambda: progress(total, total))
            with writing(folder / name):
                files = writer.finish(lambda: progress(total, total))
                files += write_item(part, name, files, writer.info, scene, self._name, self.description)
                notes(writer.notes)
                for file in files:
                    fsync(part / file)
                    (part / file).replace(folder / file)
                fsync(folder)
        return files

    def _segmentation(self, scene: Path, info: Info) -> SegmentationWriter | None:
        if "dicomseg" not in self.settings.outputs:
            return None
        return within_limit(scene, lambda: SegmentationWriter(scene, info, self.description))

    def _store(self, info: Info, folder: Path | None) -> ClassStore | None:
        """What has the objects; None if a semantic network is not asked for any."""
        if self.find is None:
            return None
        foreground: list[int] = self.description["foreground"]
        if isinstance(self.model, InstanceModel):
            return InstanceStore(info, foreground, self.model.background, self.find.score, folder)
        return ObjectStore(info, self.description, self.find, folder)

    def _objects(
        self,
        store: ClassStore | None,
        info: Info,
        scene: str,
        name: str,
        folder: Path,
        notes: list[Note],
    ) -> ObjectOutputs | None:
        if store is None or self.find is None or not set(OBJECT_OUTPUTS) & set(self.settings.outputs):
            return None
        return ObjectOutputs(
            self.description,
            self.settings,
            self.find,
            store,
            self.zones,
            info,
            scene,
            name,
            folder,
            is_like_training=not any(kind in UNLIKE_TRAINING for kind, _ in notes),
        )

    def _grid(self, info: Info, columns: int) -> Grid:
        """The windows of a plane, in panels of a number of columns."""
        tiling = self.tile, self.settings.overlap
        if isinstance(self.model, InstanceModel):
            return grid_of(self.model, info.height, info.width, *tiling, columns)
        return Grid(info.height, info.width, *tiling, columns)

    def _columns(self, info: Info) -> int:
        """Width of a panel in pixels."""
        return panel_columns(info, self.channels_per_band, self.tile, self.model.outputs)

    def _declared(self, source: images.Source, name: str) -> tuple[Declared | Resampled, list[Note]]:
        """The image, read like the training data, after checking that it fits the model, and notes of its reading."""
        check_size(source.info, self.data, name)
        declared = Declared(source, self.data, name)
        check_bands(declared.info, self.model.in_channels // self.channels_per_band, name)
        accept, resample = self.settings.accept, self.settings.resample
        notes = [*source.info.notes]
        notes += check_resolution(source.info, self.description, accept, resample, name)
        notes += check_values(declared, source.info.dtype, self.description, accept, name)
        steps = resampling_steps(source.info, self.description, resample)
        return Resampled(declared, steps) if steps else declared, notes

    def _find(
        self,
        declared: Declared | Resampled,
        store: InstanceStore,
        grid: Grid,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Find the objects of an instance network."""
        assert isinstance(self.model, InstanceModel)
        read = reader_of(declared, self.data.neighbours)
        find_objects(self.model, declared, read, grid, self.precision, store, progress)

    def _blend(
        self,
        declared: Declared | Resampled,
        writer: BlockWriter,
        grid: Grid,
        scratch: Path | None,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Blend the windows of a semantic network."""
        read = reader_of(declared, self.data.neighbours)
        with writing(scratch or Path()):
            blending = mosaic.Mosaic(self.model, grid, self.settings.blend, self.precision, scratch)
            if isinstance(declared, Resampled):
                writer = ScoreStore(declared, writer, self.model.num_classes, self.model.touching, scratch)
        blend_windows(blending, declared.info.depth, read, writer, progress)
        if isinstance(writer, ScoreStore):
            writer.finish()


def _is_volume(info: Info) -> bool:
    return info.affine is not None or info.depth > 1
