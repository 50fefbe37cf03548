"""Facts about the items of a catalogue, as numbers and as text, for the data card."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from segcore.params.data import Data
from tasks.formatting import amount


def parsed(value: Any) -> Any:
    """Value of a JSON column; None if it is empty."""
    return json.loads(value) if isinstance(value, str) and value else None


def accepted(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the accepted items."""
    return table[table["status"] == "accepted"]


def plural(count: int, word: str) -> str:
    """`1 item`, `1,200 items`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def number(value: float) -> str:
    """A number as text: three digits; integers and values from 1000 on without decimals, up to ten million."""
    whole = abs(value) >= 1000 or float(value).is_integer()
    return (f"{value:,.0f}" if whole and abs(value) < 1e7 else f"{value:.3g}").replace("-", "−")


def counted(values: Iterable[Any]) -> list[tuple[Any, int]]:
    """Distinct values with their number, the most frequent first; missing values are left out."""
    # NaN is not equal to itself
    kept = [v for v in values if v is not None and v == v]
    return sorted(Counter(kept).items(), key=lambda pair: -pair[1])


def some(values: Iterable[Any], most: int = 3) -> str:
    """The most frequent values as text, with their numbers if there are several."""
    pairs = counted(values)
    if len(pairs) < 2:
        return str(pairs[0][0]) if pairs else "none"
    more = f" and {len(pairs) - most:,} more" if len(pairs) > most else ""
    return ", ".join(f"{value} ({count:,})" for value, count in pairs[:most]) + more


def sizes(good: pd.DataFrame) -> list[str]:
    """`width × height` of each item, and `× planes` if there are volumes."""
    volumes = bool((good["depth"] > 1).any())
    return [
        f"{int(w)} × {int(h)}" + (f" × {int(d)}" if volumes else "")
        for w, h, d in zip(good["width"], good["height"], good["depth"], strict=True)
    ]


def pixel_counts(good: pd.DataFrame) -> np.ndarray:
    """Number of pixels of each item in all planes, (items,) float64."""
    return good[["height", "width", "depth"]].astype(np.float64).prod(axis=1).to_numpy()


def class_counts(good: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Number of pixels, (items, classes) int64."""
    rows = [parsed(text) or {} for text in good["pixels_per_class"]]
    counts = [[row.get(name, 0) for name in classes] for row in rows]
    return np.array(counts, np.int64).reshape(len(good), len(classes))


def shares(counts: np.ndarray) -> np.ndarray:
    """Counts (..., classes) as fractions of their row; 0 if the row is empty."""
    return counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1)


@cache
def _unit(crs: str) -> tuple[str, bool]:
    """Unit of a coordinate system, and whether it is an angle."""
    from rasterio.crs import CRS

    system = CRS.from_user_input(crs)
    return ("°", True) if system.is_geographic else (f" {system.linear_units}", False)


def pixel_sizes(good: pd.DataFrame) -> list[str]:
    """Height of a pixel on the ground, for each georeferenced item, to two digits; degrees also in metres."""
    texts = []
    for text, crs in zip(good["transform"], good["crs"], strict=True):
        transform = parsed(text)
        if transform and isinstance(crs, str) and crs:
            unit, angle = _unit(crs)
            side = float(np.hypot(transform[1], transform[4]))
            texts.append(f"{side:.2g}{unit}" + (f", about {side * 111_320:.2g} m" if angle else ""))
    return texts


def spacings(good: pd.DataFrame) -> list[str]:
    """Voxel spacing of each volume in mm: planes, rows, columns."""
    return [" × ".join(f"{v:.3g}" for v in values) for text in good["spacing"] if (values := parsed(text))]


def noted(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(kind, id, text) of all notes on accepted items."""
    good = accepted(table)
    pairs = zip(good["id"], good["notes"], strict=True)
    return [(kind, str(item), text) for item, notes in pairs for kind, text in parsed(notes) or []]


def short_crs(text: str) -> str:
    """Code of a coordinate system, or the name in its WKT."""
    return text.split('"')[1] if '"' in text else text


def declared(data: Data) -> dict[str, str]:
    """Settings of the section `data` of params.yaml: name -> text."""
    masks = list(data.baselines.values()) if data.annotators else data.mask_patterns
    pairs = f"{', '.join(data.image_patterns)} with {', '.join(masks)}"
    how = data.listing or (pairs if data.layout == "pairs" else data.layout)
    if data.objects:
        how += f"; object numbers in {data.objects}"
    labels = {"Labels from": f"property {data.label_property}"} if data.label_property else {}
    return {"Source": data.source, "Pairing": how, "Group": data.group} | labels


def facts(good: pd.DataFrame) -> dict[str, str]:
    """Facts about the accepted items: name -> text."""
    if not len(good):
        return {}
    found = {
        "Size": size_words(good),
        "Bands": some([f"{int(b)} of {d}" for b, d in zip(good["bands"], good["dtype"], strict=True)]),
        "Valid": valid_words(good),
    }
    if spacings(good):
        found["Spacing"] = some(spacings(good)) + " mm (planes, rows, columns)"
        found["Orientation"] = some(good["orientation"])
    else:
        found["CRS"] = some([short_crs(c) for c in good["crs"].dropna()])
        if pixel_sizes(good):
            found["Pixel size"] = some(pixel_sizes(good))
    if good["nodata"].notna().any():
        found["Nodata"] = some([number(float(v)) for v in good["nodata"].dropna()])
    if good["objects"].notna().any():
        objects = good["objects"].dropna().astype(int)
        least, most = int(objects.min()), int(objects.max())
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        found["Objects"] = f"{objects.sum():,}" + (f", {each} per item" if len(objects) > 1 else "")
    if good["split"].notna().any():
        found["Given split"] = some(good["split"])
    found["On disk"] = f"{amount(float(good['bytes'].fillna(0).sum()))}B of images"
    return found


def size_words(good: pd.DataFrame) -> str:
    """The sizes: up to three in full, else the range along each axis and the most frequent size."""
    different = counted(sizes(good))
    if len(different) <= 3:
        return some(sizes(good))
    axes = ["width", "height", "depth"] if (good["depth"] > 1).any() else ["width", "height"]
    ends = [(int(good[axis].min()), int(good[axis].max())) for axis in axes]
    ranges = [
        f"{axis} {low} to {high}" if low < high else f"{axis} {low}"
        for axis, (low, high) in zip(axes, ends, strict=True)
    ]
    return f"{len(different):,} different, {', '.join(ranges)}; most often {different[0][0]} ({different[0][1]:,})"


def valid_words(good: pd.DataFrame) -> str:
    """The valid fraction of the images as text."""
    partly = int((good["valid_share"] < 1).sum())
    if not partly:
        return "every pixel"
    total = float((good["valid_share"].astype(float) * pixel_counts(good)).sum() / pixel_counts(good).sum())
    least = float(good["valid_share"].min())
    items = f"{plural(partly, 'item')} {'has' if partly == 1 else 'have'} invalid pixels"
    return f"{total * 100:.4g} % of all pixels; {items}, lowest valid share {least * 100:.3g} %"
