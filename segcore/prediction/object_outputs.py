"""Outputs of the objects of a scene: numbers, polygons, COCO, and counts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Info, Note
from segcore.errors import DataError
from segcore.objects.canvas import SceneObjects
from segcore.objects.find import FindSettings
from segcore.objects.linking import VolumeObjects
from segcore.params import Predict
from segcore.prediction.class_store import ClassStore
from segcore.prediction.counts import FIELDS, Validation, tallied, write_table
from segcore.prediction.ground import HECTARE, PixelAreas, pixel_areas
from segcore.prediction.writers.coco import write_coco
from segcore.prediction.writers.nifti import write_prediction
from segcore.prediction.writers.objects import write_object_layer, write_object_raster
from segcore.prediction.writers.stack import write_object_stack
from segcore.prediction.zone_counts import count_in, write_zones
from segcore.prediction.zone_shapes import in_pixels
from segcore.prediction.zones import Zones


class ObjectOutputs:
    """Writes the outputs that are made of the objects of a scene, after it was predicted.

    Args:
        description: model.json of the bundle.
        settings: `outputs`, `min_area` and `simplify`.
        find: how objects are found.
        store: has the objects.
        zones: in which objects are counted; None: none.
        info: of the scene.
        scene: name of its file.
        name: prefix of the outputs' names.
        folder: scratch folder.
        is_like_training: False for a scene that does not fit the training images, whose counts have no interval.

    Attributes:
        store: as given.
        notes: what was done that differs from what one may expect.

    Raises:
        DataError: zones and scene cannot be put into one coordinate system, or the scene is a volume, which has none.
    """

    def __init__(
        self,
        description: dict[str, Any],
        settings: Predict,
        find: FindSettings,
        store: ClassStore,
        zones: Zones | None,
        info: Info,
        scene: str,
        name: str,
        folder: Path,
        is_like_training: bool = True,
    ) -> None:
        self._shapes: list[Any] = []
        self.notes: list[Note] = []
        if zones is not None:
            self._shapes = self._placed(zones, info, scene)
        self.store = store
        self._description, self._settings, self._zones = description, settings, zones
        self._info, self._scene, self._name, self._folder = info, scene, name, folder
        is_volume = info.affine is not None or info.depth > 1
        self._validation = Validation.of(description, find, settings)
        if is_volume:
            self._validation = self._validation.without("the validation counted objects of planes")
        if not is_like_training:
            self._validation = self._validation.without("the scene is unlike the training images")
        self._names: list[str] = description["classes"]

    def finish(self, tags: dict[str, str], stop_if_asked: Callable[[], object] = lambda: None) -> list[str]:
        """Find the objects, write the outputs in the scratch folder, and return their names.

        Args:
            tags: further metadata of GeoTIFFs.
            stop_if_asked: called now and then; may raise to stop.

        Raises:
            OSError, RasterioError: the disk is full or not writable.
        """
        objects = self.store.objects(self._settings.min_area, stop_if_asked)
        if isinstance(objects, VolumeObjects):
            return self._of_volume(objects)
        made, outputs = list[str](), self._settings.outputs
        of_pixels = pixel_areas(self._info)
        areas = None if of_pixels is None else of_pixels.of_objects(objects)
        if "objects" in outputs:
            made += [f"{self._name}_objects.tif", f"{self._name}.gpkg"]
            write_object_raster(objects, self._folder / made[0], self._info, tags)
            target = self._folder / made[1]
            write_object_layer(objects, target, self._info, self._names, areas, self._settings.simplify)
        if "coco" in outputs:
            made.append(f"{self._name}.json")
            target = self._folder / made[-1]
            write_coco(objects, target, self._info, self._scene, self._names, self.store.foreground)
        if "counts" in outputs:
            made += self._write_counts(objects, areas, of_pixels)
        return made

    def _write_counts(
        self, objects: SceneObjects, areas: np.ndarray | None, of_pixels: PixelAreas | None
    ) -> list[str]:
        name = f"{self._name}_counts.csv"
        hectares = None if of_pixels is None else self.store.square_metres(of_pixels) / HECTARE
        foreground = self.store.foreground
        rows = tallied(objects.classes, objects.areas, areas, foreground, self._validation, hectares)
        self._write_rows(name, rows)
        if self._zones is None:
            return [name]
        counts = count_in(self._shapes, objects, areas, self._info, foreground, of_pixels, self.store.valid)
        self._note_zones(self._zones, int(counts.is_beyond.sum()), int(counts.counts[-1, -1]))
        classes = self._validation.names
        return [name, *write_zones(self._folder / self._name, self._zones, counts, self._validation, classes)]

    def _write_rows(self, name: str, rows: list[dict[str, Any]]) -> None:
        write_table(self._folder / name, rows, FIELDS)
        if reason := self._validation.missing(rows):
            self.notes.append(("counts", reason))

    def _placed(self, zones: Zones, info: Info, scene: str) -> list[Any]:
        if info.affine is not None or info.depth > 1:
            raise DataError(
                f"{scene}: is a volume or a stack, whose objects are not counted by zones",
                "set predict.count_by to null, or predict volumes apart from pictures",
            )
        shapes, self._failed = in_pixels(zones, info)
        return shapes

    def _note_zones(self, zones: Zones, beyond: int, outside: int) -> None:
        facts = []
        if zones.left_out:
            facts.append(f"{zones.left_out} features without an area are left out")
        if zones.crs is None and (self._info.crs or self._info.gcps_crs):
            facts.append("it has no coordinate system, and is taken to have that of the scene")
        if self._failed:
            facts.append(
                f"{self._failed} of {len(zones.shapes)} zones cannot be converted to the coordinate system of the "
                "scene, and count none"
            )
        beyond -= self._failed
        if beyond:
            facts.append(
                f"{beyond} of {len(zones.shapes)} zones {'has' if beyond == 1 else 'have'} no pixel of the scene"
            )
        if outside:
            facts.append(f"{outside} {'object is' if outside == 1 else 'objects are'} in no zone")
        if facts:
            self.notes.append(("zones", f"{zones.name}: {'; '.join(facts)}"))

    def _of_volume(self, objects: VolumeObjects) -> list[str]:
        made, outputs = list[str](), self._settings.outputs
        if "coco" in outputs:
            kind = "stack" if self._info.is_stack else "volume"
            self.notes.append(("coco", f"is a {kind}, of which no coco is written"))
        if "objects" in outputs and self._info.is_stack:
            made.append(f"{self._name}_objects.tif")
            write_object_stack(self._folder / made[-1], objects.numbers, self._info)
        elif "objects" in outputs:
            made.append(f"{self._name}_objects.nii.gz")
            write_prediction(self._folder / made[-1], objects.numbers, self._info)
        if "counts" in outputs:
            made.append(f"{self._name}_counts.csv")
            foreground = self.store.foreground
            rows = tallied(objects.classes, objects.areas, None, foreground, self._validation, None)
            self._write_rows(made[-1], rows)
        return made
