"""Advice of the data card for instance networks: objects per crop, shared cells, limits of detections, overlap."""

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from segcore import plugins
from segcore.params import Params, TrainSettings
from segcore.params.architectures import instance_networks

# quantile of the longer sides of objects that windows should overlap by
_LARGE = 0.95
# least side of a cell of SOLO, and side of an object relative to its cell, as far as cells follow from the objects
_LEAST_CELL, _PER_CELL = 4, 1.5
# settings of `model` that limit the objects per 256 x 256 pixels
_LIMITS = ("detections", "candidates")
_AREA = 256 * 256
# of networks whose windows are as large as their training crops, in their files: torch is not imported
_DEPENDENT = re.compile(r"^ +is_position_dependent = True$", re.MULTILINE)


def most_in_crop(objects: pd.DataFrame, crop: int) -> int:
    """Largest number of objects with their centre in a crop, of crops at all multiples of half its side.

    Args:
        objects: at, and row, col, height, width of the boxes.
        crop: side in pixels.
    """
    if objects.empty:
        return 0
    half = max(crop // 2, 1)
    places = _centres(objects) // half
    counts = pd.DataFrame({"at": objects["at"].to_numpy(), "row": places[:, 0], "col": places[:, 1]})
    # an object is in the four crops that begin up to one step before its own place
    steps = [(down, right) for down in (0, 1) for right in (0, 1)]
    moved = [counts.assign(row=counts["row"] - down, col=counts["col"] - right) for down, right in steps]
    return int(pd.concat(moved).groupby(["at", "row", "col"]).size().max())


def shared_cells(objects: pd.DataFrame) -> float:
    """Share of the objects whose centre is in the same cell as that of another, in the cells that SOLO would choose.

    Args:
        objects: at, and row, col, height, width of the boxes; not empty.
    """
    side = np.sqrt(objects["height"] * objects["width"]).to_numpy()
    cell = 2 ** np.floor(np.log2(np.maximum(side / _PER_CELL, _LEAST_CELL))).astype(int)
    places = _centres(objects) // cell[:, None]
    table = pd.DataFrame(
        {"at": objects["at"].to_numpy(), "cell": cell, "row": places[:, 0], "col": places[:, 1]}
    )
    return float(table.duplicated(keep=False).mean())


def _centres(objects: pd.DataFrame) -> np.ndarray:
    starts, sizes = objects[["row", "col"]].to_numpy(), objects[["height", "width"]].to_numpy()
    return np.asarray((starts + sizes / 2).astype(np.int64))


def warnings(objects: pd.DataFrame, p: Params) -> list[tuple[str, str]]:
    """(heading, text) of settings that limit what instance networks can find, and of windows that overlap too little.

    Args:
        objects: at, side, and row, col, height, width of the boxes; not empty.
        p: params.yaml.
    """
    settings = {name: p.for_architecture(name) for name in p.architectures if name in instance_networks()}
    return [*_limits(objects, settings), *_overlap(objects, p)]


def _limits(objects: pd.DataFrame, settings: Mapping[str, TrainSettings]) -> list[tuple[str, str]]:
    texts = []
    for name, of in settings.items():
        most = most_in_crop(objects, of.crop)
        for key in _LIMITS:
            limit = of.model.get(key)
            if isinstance(limit, int) and limit * max(of.crop**2 / _AREA, 1) < most:
                text = (
                    f"a crop of {of.crop} px has up to {most} objects, more than {key}: {limit} of {name} allows. "
                    f"Set {key}: auto in train.{name}.model."
                )
                texts.append(("Many objects", text))
    return texts


def _overlap(objects: pd.DataFrame, p: Params) -> list[tuple[str, str]]:
    """Advice where the windows of a prediction overlap by less than large objects, as the prediction itself gives it.

    Windows of instance networks overlap by that much by themselves, as far as half a window goes.
    """
    large = math.ceil(objects["side"].quantile(_LARGE))
    tile = p.predict.tile or p.evaluate.tile
    instance = [name for name in p.architectures if name in instance_networks()]
    fixed = [name for name in instance if _DEPENDENT.search(plugins.source("segcore.models", name))]
    remedies = []
    if len(instance) < len(p.architectures) and large > p.predict.overlap:
        wider = f"predict.tile: {2 * large} and " if 2 * large > tile else ""
        remedies.append(f"Set {wider}predict.overlap: {large}.")
    elif len(fixed) < len(instance) and 2 * large > tile:
        remedies.append(f"Set predict.tile: {2 * large}.")
    if narrow := [name for name in fixed if 2 * large > p.for_architecture(name).crop]:
        remedies.append(
            f"Windows of {' and '.join(narrow)} are as large as the training crops: train with a larger crop, "
            f"{2 * large}, and prepare.window as large."
        )
    text = (
        f"5 % of the objects are longer than {large} px, by which windows of a prediction should overlap: where they "
        f"meet, such an object is otherwise seen in parts. {' '.join(remedies)}"
    )
    return [("Large objects", text)] if remedies else []
