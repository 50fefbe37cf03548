"""Objects of the test regions: found in predictions, and compared with the true ones in the object table."""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage, PreparedData
from segcore.data.raster import Info
from segcore.data.resolution import ground_resolution
from segcore.errors import DataError
from segcore.objects.find import FindSettings
from segcore.objects.found import Objects
from segcore.objects.pairs import pairs
from segcore.tables.objects import objects_table, require_images
from segcore.tables.slices import add_words

# operating score of a bundle that has none
DEFAULT_SCORE = 0.5


def find_settings(
    description: dict[str, Any], method: Literal["components", "watershed", "none"], data: PreparedData
) -> FindSettings | None:
    """How objects are found, with the operating score; None where the data have none or `method` is "none".

    An instance network finds its objects whatever `method` is.

    Args:
        description: model.json. Without an entry for the method, the score is DEFAULT_SCORE.
        method: `evaluate.objects`.
        data: prepared data.

    Raises:
        DataError: the model is an instance network, and the data have no objects.
        ModelError: it is one without an operating score.
    """
    if description.get("kind") == "instance":
        if not data.instances:
            raise DataError(
                f"{description['title']} finds objects, but the data have none",
                "set data.instances in params.yaml and run again, or remove this architecture from it",
            )
        return FindSettings.of(description, "network")
    if method == "none" or not data.instances:
        return None
    if method not in description.get("objects", {}):
        return FindSettings(method, DEFAULT_SCORE)
    return FindSettings.of(description, method)


def default_score_text(description: Mapping[str, Any], settings: FindSettings | None) -> str:
    """Note on a model for which no operating score was chosen; empty for others, and without objects.

    Args:
        description: model.json.
        settings: of `find_settings`.
    """
    if settings is None or settings.method in description.get("objects", {}):
        return ""
    return (
        "no operating score was chosen (the model is of an earlier version, or was trained without objects); objects "
        f"count from a score of {DEFAULT_SCORE} (train it again to choose one on the validation split)"
    )


class ObjectCounts:
    """Collects the rows of the object table region by region.

    Args:
        data: prepared data with objects.
        tolerance: distance in pixels up to which boundary pixels match.
    """

    def __init__(self, data: PreparedData, tolerance: int) -> None:
        self._data, self._tolerance = data, tolerance
        self._true = dict(iter(data.objects.groupby("item")))
        self._rows: list[pd.DataFrame] = []

    def add(self, region: str, patch: LabelledImage, found: Objects) -> Objects:
        """Compare the objects of a region, of any score, with the true ones.

        Args:
            region: id.
            patch: labels and validity of the region.
            found: predicted objects.

        Returns:
            The objects with a row in the table, in the order of their numbers.
        """
        data = self._data
        place = data.region(region)
        compared = pairs(
            data.read_instances(region),
            patch.label,
            self._true.get(place["item"], data.objects.iloc[:0]),
            found,
            self._tolerance,
        )
        scored = int((patch.label != IGNORE).sum())
        image = {
            "pixels": [scored],
            "ignored_pixels": [patch.label.size - scored],
            "pixel_area": [_pixel_area(data, place)],
        }
        rows = {
            "image": pd.DataFrame(image),
            "truth": compared.truths,
            "prediction": compared.predictions,
            "pair": compared.pairs,
        }
        whose = {"item": str(region), "cluster": str(place["cluster"])}
        self._rows += [frame.assign(kind=kind, **whose) for kind, frame in rows.items()]
        return compared.predicted

    def table(self, regions: pd.DataFrame) -> pd.DataFrame:
        """The object table of the regions, with one column per word of the data patterns.

        Raises:
            DataError: a region is missing.
        """
        table = objects_table(self._rows)
        require_images(table, regions["id"])
        return add_words(table, regions, self._data.items)


def _pixel_area(data: PreparedData, region: Mapping[str, Any]) -> float:
    """Area of a pixel on the ground in m2, at the centre of a region; NaN without a position on the earth."""
    item = data.items.loc[region["item"]]
    place = json.loads(item["transform"]) if isinstance(item["transform"], str) else None
    if place is None or not isinstance(item["crs"], str):
        return math.nan
    a, b, c, d, e, f = place[:6]
    row, col = int(region["row"]), int(region["col"])
    moved = (a, b, c + a * col + b * row, d, e, f + d * col + e * row)
    size = (int(region["height"]), int(region["width"]))
    side = ground_resolution(Info(*size, 1, "uint8", crs=item["crs"], transform=moved))
    return math.nan if side is None else side**2


def save_objects(path: Path, objects: Objects, score: float) -> None:
    """Write the numbers of objects of at least a score as uint32 GeoTIFF; of several in a pixel the best counts.

    Args:
        path: new file.
        objects: in the order of their numbers in the object table.
        score: operating score.
    """
    chosen = np.flatnonzero(objects.scores >= np.float32(score))
    numbers = np.append(0, chosen + 1).astype(np.uint32)[objects.select(chosen).numbers()]
    shape = {"height": objects.height, "width": objects.width, "count": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", dtype="uint32", compress="deflate", **shape) as out:
            out.write(numbers, 1)
