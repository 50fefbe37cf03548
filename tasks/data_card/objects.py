"""Objects on the data card: sizes, density, how many touch or are cut, and what components could reach at most."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from segcore.cache import Cache, code_digest
from segcore.class_colors import hex_color
from segcore.objects import planes
from segcore.params import Params, TrainSettings
from segcore.params.data import Data
from segcore.splits.blocks import block_edges, is_divided
from tasks.data_card import component_limit, instance_advice
from tasks.data_card.facts import plural
from tasks.data_card.pictures import evenly, stacked_columns

# bars of the histogram of sizes
_BARS = 24
# labels of its axis
_TICKS = 7
# encoders whose finest feature map has the resolution of the image
_FINE = ("plain", "vgg16", "vgg16_bn")


class CardObjects(NamedTuple):
    """Objects of all accepted items.

    Attributes:
        planes: one row per picture or plane of a volume: item, packed, plane, height, width.
        objects: of `segcore.objects.planes.found`, and `side`, the longer side of the box; `at` is a row of `planes`.
        ceiling: of the same function.
    """

    planes: pd.DataFrame
    objects: pd.DataFrame
    ceiling: pd.DataFrame


def card_objects(good: pd.DataFrame, data: Data, store: Path) -> CardObjects | None:
    """Objects of the accepted items, cached beside the store; None where the data have no objects.

    Args:
        good: the accepted items.
        data: the section `data` of params.yaml.
        store: folder of the packed files.

    Raises:
        DataError: a packed file is missing.
    """
    if not data.has_objects or not len(good) or good["objects"].isna().any():
        return None
    table = good[["id", "packed", "height", "width", "depth"]].rename(columns={"id": "item"})
    table = table.loc[table.index.repeat(table["depth"].astype(int))].reset_index(drop=True)
    table["plane"] = table.groupby("item", sort=False).cumcount()
    each = [
        planes.Plane(str(name), int(plane))
        for name, plane in zip(table["packed"], table["plane"], strict=True)
    ]
    cache = Cache(store.parent / "objects", json.dumps(data.foreground), code_digest("data", "objects"))
    cache.start()
    objects, ceiling = planes.found(each, store, data.foreground, cache.folder)
    return CardObjects(table, objects.assign(side=objects[["height", "width"]].max(axis=1)), ceiling)


def view(found: CardObjects, data: Data, p: Params | None) -> dict[str, Any]:
    """What the page shows of objects, without pictures.

    Args:
        found: of `card_objects`.
        data: the section `data` of params.yaml.
        p: all parameters, for crops, blocks and networks; None: what depends on them is left out.
    """
    counts = _per_plane(found, data)
    classes = _class_rows(found, counts, data)
    return {
        "word": "plane" if len(found.planes) > found.planes["item"].nunique() else "image",
        "total": len(found.objects),
        "planes": len(found.planes),
        "empty": int((counts.sum(axis=1) == 0).sum()),
        "median": int(np.median(counts.sum(axis=1))),
        "most": int(counts.sum(axis=1).max()),
        "classes": classes,
        "ceiling": component_limit.scores(found.objects, found.ceiling, data),
        "of_components": data.instances == "components",
        "density": _density(counts, data),
        "sizes": _sizes(found.objects, data),
        "cuts": _cuts(found, p) if p else [],
        "warnings": _warnings(classes, found, data, p),
    }


def _per_plane(found: CardObjects, data: Data) -> np.ndarray:
    """Number of objects (planes, foreground classes)."""
    columns = [found.objects["class_index"] == index for index in data.foreground]
    counts = [np.bincount(found.objects["at"][column], minlength=len(found.planes)) for column in columns]
    return np.stack(counts, axis=1)


def _class_rows(found: CardObjects, counts: np.ndarray, data: Data) -> list[dict[str, Any]]:
    rows = []
    for place, index in enumerate(data.foreground):
        objects = found.objects[found.objects["class_index"] == index]
        row = {
            "name": data.classes[index],
            "colour": hex_color(data.colors[index]),
            "count": len(objects),
            "planes": int((counts[:, place] > 0).sum()),
            "density": [float(np.median(counts[:, place])), int(counts[:, place].max())],
        }
        if len(objects):
            row |= {
                "sides": [float(q) for q in objects["side"].quantile([0.05, 0.5, 0.95])],
                "area": float(objects["area"].median()),
                "near": float((objects["neighbours"] > 0).mean()),
                "touching": float(objects["touches"].mean()),
                "cut": float(objects["cut_item"].mean()),
                "parts": int((objects["parts"] > 1).sum()),
            }
        rows.append(row)
    return rows


def _density(counts: np.ndarray, data: Data) -> dict[str, Any] | None:
    """Objects of every picture or plane (or of evenly chosen ones) as a column, the densest first."""
    total = counts.sum(axis=1)
    if len(counts) < 2 or not total.any():
        return None
    order = evenly(np.argsort(-total, kind="stable"))
    return stacked_columns(counts[order] / total.max(), _colours(data)) | {"top": int(total.max())}


def _sizes(objects: pd.DataFrame, data: Data) -> dict[str, Any] | None:
    """Histogram of the longer sides, on a logarithmic scale."""
    if objects.empty:
        return None
    low, high = int(objects["side"].min()), int(objects["side"].max())
    edges = np.unique(np.geomspace(low, high + 1, _BARS + 1).round())
    bars = [
        np.histogram(objects["side"][objects["class_index"] == index], edges)[0] for index in data.foreground
    ]
    top = int(np.sum(bars, axis=0).max())
    drawn = stacked_columns(np.stack(bars, axis=1) / top, _colours(data))
    places = np.unique(np.linspace(0, len(edges) - 1, _TICKS).round().astype(int))
    # the last bar ends with the longest object
    ticks = [(place / (len(edges) - 1), min(int(edges[place]), high)) for place in places.tolist()]
    return drawn | {"top": top, "low": low, "high": high, "ticks": ticks}


def _colours(data: Data) -> list[str]:
    return [hex_color(data.colors[index]) for index in data.foreground]


def _cuts(found: CardObjects, p: Params) -> list[str]:
    """Phrases: share of the objects that training crops and blocks of scenes cut."""
    if found.objects.empty:
        return []
    sizes = found.planes[["height", "width"]].astype(np.int64).to_numpy()
    texts = []
    for crop in sorted({p.for_architecture(name).crop for name in p.architectures}):
        share = cut_share(found.objects, sizes[found.objects["at"]], crop)
        most = instance_advice.most_in_crop(found.objects, crop)
        texts.append(
            f"{share * 100:.0f} % of the objects in a training crop of {crop} px are cut by its edge; such a crop has "
            f"at most {most}"
        )
    divided = np.array([is_divided(height, width, p.split) for height, width in sizes])
    if p.split.block and divided.any():
        share = _cut_by_blocks(found.objects, sizes, divided, p.split.block)
        texts.append(f"{share * 100:.0f} % of the objects of large scenes are cut by blocks of split.block")
    if share := instance_advice.shared_cells(found.objects):
        texts.append(f"{share * 100:.2g} % of the objects share a cell with another, of which SOLO sees one")
    return texts


def cut_share(objects: pd.DataFrame, sizes: np.ndarray, crop: int) -> float:
    """Expected share of the objects in sight of a random crop that the crop cuts, from their boxes.

    Args:
        objects: row, col, height, width of the boxes.
        sizes: (N, 2) height and width of each object's image; every place of a crop within it is equally likely, and
            an image that is smaller than the crop is in it as a whole.
        crop: side in pixels.
    """
    in_sight, whole = np.ones(len(objects)), np.ones(len(objects))
    for axis, (start, length) in enumerate((("row", "height"), ("col", "width"))):
        first, extent = objects[start].to_numpy(), objects[length].to_numpy()
        last_place = np.maximum(sizes[:, axis] - crop, 0)

        def places(low: np.ndarray, high: np.ndarray, last: np.ndarray = last_place) -> np.ndarray:
            return np.maximum(np.minimum(high, last) - np.maximum(low, 0) + 1, 0)

        in_sight *= places(first - crop + 1, first + extent - 1)
        whole *= places(first + extent - crop, first)
    return float(1 - whole.sum() / in_sight.sum())


def _cut_by_blocks(objects: pd.DataFrame, sizes: np.ndarray, divided: np.ndarray, block: int) -> float:
    cut = np.zeros(len(objects), bool)
    for at in np.flatnonzero(divided):
        here = (objects["at"] == at).to_numpy()
        for axis, (start, length) in enumerate((("row", "height"), ("col", "width"))):
            edges = block_edges(int(sizes[at, axis]), block)
            first = objects[start][here].to_numpy()
            last = first + objects[length][here].to_numpy() - 1
            cut[here] |= np.searchsorted(edges, first, "right") != np.searchsorted(edges, last, "right")
    return float(cut[divided[objects["at"]]].mean()) if divided[objects["at"]].any() else 0.0


def output_stride(architecture: str, settings: TrainSettings) -> float | None:
    """Distance in pixels of the image between the points that a network scores; None if it is not known."""
    model = settings.model
    if architecture == "unet" and settings.encoder.startswith("timm:"):
        return None
    if architecture == "unet":
        stride = 1 if settings.encoder in _FINE or model.get("full_resolution") else 2
    elif architecture == "fcn":
        stride = int(str(model.get("variant", "8s")).removesuffix("s"))
    elif architecture == "deeplab":
        version = model.get("version", "v3+")
        stride = 4 if version == "v3+" else int(model.get("output_stride") or (16 if version == "v3" else 8))
    else:
        return None
    return stride / settings.magnify


def _warnings(
    classes: Sequence[dict[str, Any]], found: CardObjects, data: Data, p: Params | None
) -> list[tuple[str, str]]:
    """(heading, text) of what is likely to limit results."""
    settings = {name: p.for_architecture(name) for name in p.architectures} if p else {}
    strides = {name: output_stride(name, of) for name, of in settings.items()}
    texts = []
    for row in classes:
        coarse = {n: s for n, s in strides.items() if s and row["count"] and row["sides"][1] < s}
        if coarse:
            side = row["sides"][1]
            needed = max(math.ceil(s * settings[n].magnify / side) for n, s in coarse.items())
            networks = " and ".join(f"{name} ({stride:g} px)" for name, stride in coarse.items())
            text = (
                f"half of the objects of {row['name']} are at most {side:g} px long, less than the distance of the "
                f"points that are scored by {networks}. Set magnify: {min(needed, 4)} in train.common."
            )
            texts.append(("Small objects", text))
    merged = int(found.objects["merged"].sum())
    if merged > component_limit.MANY * len(found.objects):
        text = f"{plural(merged, 'object')} share a component with another, so that components do not tell them apart."
        texts.append(("Objects that touch", text + component_limit.remedies(data, p)))
    return [*texts, *(instance_advice.warnings(found.objects, p) if p and len(found.objects) else [])]
