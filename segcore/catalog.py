"""The catalogue: one row an item, checked before a second of training."""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore import formats
from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.files import sha256
from segcore.params import Data
from segcore.raster import Info, same_place

_LOSSY = (".jpg", ".jpeg")
_ROWS_AT_ONCE = 1024


def files_folder(data: Data, ingested: Path) -> Path:
    """Folder that the catalogue's paths are relative to: the user's, or where a sample was unpacked."""
    return ingested / "files" if is_sample(data) else Path(data.source)


def is_sample(data: Data) -> bool:
    """Whether the source is a sample's manifest and not a folder."""
    return Path(data.source).suffix in (".yaml", ".yml")


def find_images(data: Data, folder: Path) -> list[Path]:
    """Images of the source in a stable order.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder", "set data.source in params.yaml to the folder of your images"
        )
    images = sorted(p for p in folder.glob(data.images) if p.is_file())
    if not images:
        raise DataError(
            f"{folder}: no image matches {data.images!r}",
            "correct data.images in params.yaml or fill the folder",
        )
    return images


def _fill(pattern: str, image: Path, folder: Path) -> str:
    parents = [*image.relative_to(folder).parent.parts[::-1], "", ""]
    return pattern.format(stem=image.stem, name=image.name, parent=parents[0], parent2=parents[1])


def _item_id(image: Path, folder: Path, pattern: str) -> str:
    fixed = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0]
    relative = image.relative_to(folder / fixed).with_suffix("").as_posix()
    return re.sub(r"[^\w.-]+", "_", relative.replace("/", "__"))


def decode_label(pixels: np.ndarray, values: dict[int, int | str], name: str) -> np.ndarray:
    """Class indices of a mask.

    Args:
        pixels: (1, H, W), or (3, H, W) with three equal bands, integers.
        values: value in the mask -> class index or "ignore".
        name: of the mask, for the error.

    Returns:
        (H, W) uint8, IGNORE where the mask says so.

    Raises:
        DataError: bands differ, or a value is not declared.
    """
    first = pixels[0]
    if any(not np.array_equal(first, band) for band in pixels[1:]):
        raise DataError(
            f"{name}: has {len(pixels)} bands that differ", "give a mask of one band with class values"
        )
    if not np.issubdtype(first.dtype, np.integer) and not np.array_equal(first, np.round(first)):
        raise DataError(f"{name}: holds fractions ({first.dtype})", "give a mask of whole class values")
    found, counts = np.unique(first, return_counts=True)
    unknown = [(int(v), int(c)) for v, c in zip(found, counts, strict=True) if int(v) not in values]
    if unknown:
        listed = ", ".join(f"{v} ({c} pixels)" for v, c in unknown[:8])
        raise DataError(
            f"{name}: label values outside the declared classes: {listed}",
            f"declare them in data.label_values (now {sorted(values)}) or mend the mask",
        )
    table = np.array(
        [IGNORE if values[int(v)] == "ignore" else values[int(v)] for v in found], dtype=np.uint8
    )
    return table[np.searchsorted(found, first)]


def read_label(path: Path, data: Data) -> np.ndarray:
    """A mask as (H, W) uint8 class indices; nodata becomes IGNORE."""
    raster = formats.read(path)
    pixels = np.where(raster.valid, raster.pixels, next(iter(data.label_values)))
    label = decode_label(pixels, dict(data.label_values), path.name)
    label[~raster.valid] = IGNORE
    return label


def _read_through(path: Path, info: Info) -> None:
    """Read every pixel once, a band of rows at a time, so that a truncated file fails here and not at night."""
    for row in range(0, info.height, _ROWS_AT_ONCE):
        formats.read(path, (row, 0, min(_ROWS_AT_ONCE, info.height - row), info.width))


def _partner(pattern: str, image: Path, folder: Path, what: str) -> Path:
    path = folder / _fill(pattern, image, folder)
    if not path.is_file():
        raise DataError(
            f"{image.name}: has no {what}, {path.relative_to(folder)} is missing",
            "add the file, correct the pattern in params.yaml, or move the image out of the folder",
        )
    if path.suffix.lower() in _LOSSY:
        raise DataError(f"{path.name}: a JPEG {what} has lost its exact values", "give it as PNG or GeoTIFF")
    return path


def _row(image: Path, folder: Path, data: Data, batch: str) -> dict[str, Any]:
    info = formats.info(image)
    mask = _partner(data.masks, image, folder, "mask")
    same_place(info, formats.info(mask), (image, mask))
    others = {"valid": data.valid} if data.valid else {}
    extra = {}
    for what, pattern in {**others, **data.baselines}.items():
        extra[what] = _partner(pattern, image, folder, what)
        same_place(info, formats.info(extra[what]), (image, extra[what]))
    for name in data.baselines:
        read_label(extra[name], data)
    label = read_label(mask, data)
    _read_through(image, info)
    pixels = {name: int((label == i).sum()) for i, name in enumerate(data.classes)}
    return {
        "id": _item_id(image, folder, data.images),
        "group": _fill(data.group, image, folder),
        "image": image.relative_to(folder).as_posix(),
        "label": mask.relative_to(folder).as_posix(),
        "valid": extra["valid"].relative_to(folder).as_posix() if data.valid else None,
        "baselines": json.dumps(
            {name: extra[name].relative_to(folder).as_posix() for name in data.baselines}
        ),
        "sha256": sha256(image),
        "label_sha256": sha256(mask),
        "height": info.height,
        "width": info.width,
        "bands": info.bands,
        "dtype": info.dtype,
        "crs": info.crs,
        "transform": json.dumps(info.transform),
        "nodata": info.nodata,
        "pixels_per_class": json.dumps(pixels),
        "batch": batch,
        "status": "accepted",
        "reason": "",
    }


def _orphans(data: Data, folder: Path, used: set[str]) -> list[str]:
    pattern = re.sub(r"\{\w+\}", "*", data.masks)
    found = {p.relative_to(folder).as_posix() for p in folder.glob(pattern) if p.is_file()}
    return [f"{mask}: a mask without an image" for mask in sorted(found - used)]


def _uniform(table: pd.DataFrame) -> list[str]:
    problems = []
    for column in ("bands", "dtype"):
        counts = table[column].value_counts()
        for row in table[table[column] != counts.index[0]].itertuples():
            value = getattr(row, column)
            problems.append(f"{Path(row.image).name}: {column} is {value}, others have {counts.index[0]}")
    repeated = table[table["id"].duplicated(keep=False)]
    problems += [f"{row.image}: another file gives the same id {row.id!r}" for row in repeated.itertuples()]
    return problems


def build(
    data: Data, folder: Path, batch: str, progress: Callable[[list[Path]], Iterable[Path]] = iter
) -> pd.DataFrame:
    """The catalogue of a folder; every problem found is named before it fails.

    Raises:
        DataError: missing or empty folder, or a list of all unusable items with reason and remedy.
    """
    images = find_images(data, folder)
    rows, problems, remedies = [], [], []
    for image in progress(images):
        try:
            rows.append(_row(image, folder, data, batch))
        except DataError as error:
            problems.append(error.what)
            remedies.append(error.remedy)
    table = pd.DataFrame(rows)
    if rows:
        problems += _uniform(table)
    if len(rows) == len(images):
        problems += _orphans(data, folder, set(table["label"]))
    if problems:
        shown = "\n  ".join(problems[:20]) + (
            f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        )
        remedy = "; ".join(dict.fromkeys(remedies)) or "rename, add or remove the files named"
        raise DataError(f"{len(problems)} of {len(images)} items cannot be used:\n  {shown}", remedy)
    return table
