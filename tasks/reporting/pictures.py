"""Pictures and data card of the report: the gallery's rows, the splits, the class balance."""

import json
from typing import Any

import numpy as np

from segcore.class_colors import hex_color
from segcore.plots import gallery
from segcore.plots.gallery import (
    FALSE_ALARM,
    HIT,
    MISS,
    OVERLOOKED,
    WRONG_CLASS,
    contact_sheet,
    detail_window,
    framed,
    parts_of,
    split_map,
)
from segcore.plots.pictures import LEFT_OUT, data_uri
from tasks.formatting import amount
from tasks.reporting.inputs import Inputs

# label blocks read for the class balance of a split; more do not change its two digits
LABELS_READ = 300


def _row(inputs: Inputs, case: gallery.Case, side: int) -> dict[str, Any]:
    """One case: per column the whole picture and the detail with the densest errors."""
    data = inputs.params.data
    detail = detail_window(case)
    shown = gallery.case_pictures(case, data.colors, data.foreground)
    titles = {"image": "Image", "truth": "Truth"} | inputs.column_titles
    # two pictures per architecture, so image and truth share a column as well
    if len(data.foreground) > 1:
        shown["image"] += shown.pop("truth")
        titles["image"] = "Image, truth"
    columns = []
    for name, pictures in shown.items():
        whole = [framed(p, detail) if i == 0 and name == "image" else p for i, p in enumerate(pictures)]
        columns.append(
            {
                "title": titles[name],
                "whole": [data_uri(picture, side) for picture in whole],
                "detail": [data_uri(picture[detail], side) for picture in pictures],
                "iou": case.iou.get(name),
            }
        )
    mean = float(np.mean([case.iou[name] for name in inputs.titles]))
    return {"kind": case.kind, "item": case.item, "columns": columns, "mean": mean}


def gallery_view(inputs: Inputs, cases: list[gallery.Case]) -> dict[str, Any]:
    """Rows of the gallery with inlined pictures; many pictures are made smaller, to keep the page small."""
    data = inputs.params.data
    many = len(data.foreground) > 1
    cells = len(cases) * (2 + len(inputs.column_titles) * (1 + many))
    side = 480 if cells <= 32 else 360 if cells <= 60 else 240
    legend = {"right": HIT, "false alarm": FALSE_ALARM, "missed": MISS, "not scored": LEFT_OUT}
    if many:
        legend = {"wrong class": WRONG_CLASS, "missed": OVERLOOKED, "not scored": LEFT_OUT}
    return {
        "cases": [_row(inputs, case, side) for case in cases],
        "legend": legend,
        "classes": [(data.classes[i], data.colors[i]) for i in data.foreground] if many else [],
    }


def _balance(inputs: Inputs, regions: Any) -> tuple[list[float], int]:
    """Share of each class in up to LABELS_READ regions, and how many were read."""
    classes = len(inputs.params.data.classes)
    read = list(regions["id"])[:: -(-len(regions) // LABELS_READ) or 1]
    total = np.zeros(classes, np.int64)
    for region in read:
        patch = inputs.prepared.read(region)
        total += np.bincount(patch.label[patch.valid].ravel(), minlength=256)[:classes]
    return list(total / max(1, total.sum())), len(read)


def _splits(inputs: Inputs) -> list[dict[str, Any]]:
    regions = inputs.prepared.regions
    found = inputs.prepared.objects["region"].value_counts() if inputs.comparison.objects else None
    splits = []
    of_region, parts = parts_of(regions)
    for name, colour in parts.items():
        part = regions[of_region == name]
        shares, read = _balance(inputs, part)
        pixels = int((part["height"] * part["width"]).sum())
        size = {"regions": len(part), "clusters": part["cluster"].nunique(), "pixels": pixels}
        objects = None if found is None else int(found.reindex(part["id"], fill_value=0).sum())
        splits.append(
            {"name": name, "colour": colour, "shares": shares, "read": read, "objects": objects} | size
        )
    return splits


def _required(inputs: Inputs) -> int:
    """Number of true objects that scores and counts of the test images require; 0 without objects."""
    found = inputs.comparison.objects
    of_class = next(iter(found.counts.values()), {}) if found else {}
    return round(sum(count["true"] or 0 for count in of_class.values()))


def data_view(inputs: Inputs) -> dict[str, Any]:
    """Section on the data: catalogue, splits and class balance."""
    data = inputs.params.data
    scene = split_map(inputs.prepared)
    picture = contact_sheet(inputs.prepared) if scene is None else scene
    return {
        "splits": _splits(inputs),
        "required": _required(inputs),
        "facts": _catalogue(inputs),
        "picture": data_uri(picture, 900),
        "is_map": scene is not None,
        "classes": [(name, hex_color(c)) for name, c in zip(data.classes, data.colors, strict=True)],
    }


def _some(values: list[str]) -> str:
    different = list(dict.fromkeys(values))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _grouping(inputs: Inputs, groups: int) -> str:
    divided = inputs.prepared.regions.groupby("group")["split"].nunique().max() > 1
    if folds := inputs.comparison.folds:
        if inputs.comparison.cluster_kind == "block":
            return f"{groups}, divided into blocks, each tested in one of {folds} folds"
        return f"{groups}, each tested whole in one of {folds} folds"
    if divided:
        buffer = inputs.params.split.buffer
        return f"{groups}, divided into blocks with a buffer of {buffer} pixels between splits"
    return f"{groups}, each whole in one split"


def _catalogue(inputs: Inputs) -> dict[str, str]:
    catalog = inputs.catalog
    if catalog is None:
        return {"Source": inputs.params.data.source}
    good, refused = catalog[catalog["status"] == "accepted"], catalog[catalog["status"] != "accepted"]
    images = f"{len(good)} accepted"
    if len(refused):
        images += f", {len(refused)} quarantined: {_some(list(refused['reason'].astype(str)))}"
    labelled = sum(sum(json.loads(text).values()) for text in good["pixels_per_class"].dropna())
    return {
        "Source": inputs.params.data.source,
        "Images": images,
        "Groups": _grouping(inputs, good["group"].nunique()),
        "Size": _some([f"{w} × {h}" for h, w in zip(good["height"], good["width"], strict=True)]) + " pixels",
        "Bands": _some([f"{b} of {d}" for b, d in zip(good["bands"], good["dtype"], strict=True)]),
        "Coordinates": _some([c if isinstance(c, str) and c else "none" for c in good["crs"]]),
        "Labelled": f"{amount(labelled)} pixels",
    }
