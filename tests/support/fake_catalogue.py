"""Catalogue rows and packed items made in code, without the ingest stage."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.data.packed import PackedWriter
from segcore.ingest.catalog import COLUMNS
from segcore.params.data import Data


def card_data(**over: Any) -> Data:
    values = {
        "name": "tiny",
        "source": "somewhere",
        "classes": ["background", "water", "roof"],
        "colors": [[38, 50, 56], [3, 155, 229], [255, 179, 0]],
        "label_values": {0: 0, 1: 1, 2: 2, 9: "ignore"},
    }
    return Data.model_validate(values | over)


def pack(
    path: Path,
    pixels: np.ndarray,
    labels: np.ndarray,
    valid: np.ndarray | None = None,
    instances: np.ndarray | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write pixels (D, H, W, C), labels, validity (default: all valid), object numbers (D, H, W) and other tensors."""
    valid = np.ones(labels.shape, np.uint8) if valid is None else valid.astype(np.uint8)
    tensors = {"pixels": pixels, "labels": labels.astype(np.uint8), "valid": valid}
    if instances is not None:
        tensors["instances"] = instances.astype(np.uint32)
    tensors |= extra or {}
    with PackedWriter(path, {n: (t.dtype, t.shape) for n, t in tensors.items()}) as writer:
        for name, tensor in tensors.items():
            for plane, values in enumerate(tensor):
                writer.write(name, (plane,), (0, 0, *tensor.shape[1:3]), values)
    return path


def card_row(
    name: str, store: Path, bands: int = 3, dtype: str = "uint8", depth: int = 1, **over: Any
) -> dict[str, Any]:
    """A catalogue row of an accepted item, and its packed file with one square of water and one of roof."""
    rng = np.random.default_rng(len(name))
    shape = (depth, 40, 56)
    pixels = (rng.random((*shape, bands)) * 200 + 20).astype(dtype)
    labels = np.zeros(shape, np.uint8)
    labels[depth // 2, 5:20, 5:30], labels[depth // 2, 25:35, 30:50] = 1, 2
    packed = pack(store / f"{name}-x.safetensors", pixels, labels)
    counts = np.bincount(labels.ravel(), minlength=3).tolist()
    row = {
        "id": name,
        "group": name,
        "image": f"images/{name}.tif",
        "label": f"masks/{name}.tif",
        "packed": packed.name,
        "bytes": 1000,
        "height": 40,
        "width": 56,
        "depth": depth,
        "bands": bands,
        "dtype": dtype,
        "crs": "EPSG:32633",
        "transform": json.dumps([0.5, 0, 5e5, 0, -0.5, 5e6]),
        "spacing": json.dumps([3.0, 1.0, 1.0]) if depth > 1 else "null",
        "valid_share": 1.0,
        "pixels_per_class": json.dumps(dict(zip(card_data().classes, counts, strict=True))),
        "ignored_pixels": 0,
        "band_min": json.dumps([20.0] * bands),
        "band_max": json.dumps([220.0] * bands),
        "status": "accepted",
        **dict.fromkeys(("split", "orientation", "nodata", "objects")),
        **dict.fromkeys(("kind", "reason", "remedy"), ""),
        "notes": "[]",
        "words": "{}",
    }
    return row | over


def bad_row(name: str, kind: str, reason: str, remedy: str) -> dict[str, Any]:
    problem = {"kind": kind, "reason": reason, "remedy": remedy, "status": "quarantined", "packed": None}
    return {"id": name, "group": name, "image": f"images/{name}.tif", "notes": "[]", **problem}


def catalogue(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).reindex(columns=COLUMNS)
