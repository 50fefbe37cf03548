"""The catalogue: one row per item. All items are checked before training; unusable ones are quarantined.

An item whose files have not changed since the last ingest is not read again: its row comes from the cache, and its
packed file is reused.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.constants import FIRST_BATCH
from segcore.errors import DataError
from segcore.ingest.agreement import AGREEMENT
from segcore.ingest.item_reading import BatchItem, Outcome, read_all
from segcore.io import layouts
from segcore.io.crs import same_on_map, short_name
from segcore.io.images._scales import UNSCALED
from segcore.params.data import Data

COLUMNS = [
    *("id", "group", "split", "batch", "image", "label", "valid", "baselines", "sha256", "label_sha256"),
    *("packed", "bytes", "height", "width", "depth", "bands", "dtype", "crs", "transform", "spacing"),
    *("affine", "orientation", "axis", "nodata", "valid_share", "pixels_per_class", "ignored_pixels"),
    "label_counts",
    *("objects", "band_min", "band_max", "scaled_from", "phash", "thumb"),
    *("status", "kind", "reason", "remedy", "notes", "words", "channels", "parts"),
]
# column of data sets with data.objects alone: path of the raster of object numbers
NUMBERS = "numbers"
FIRST = FIRST_BATCH
_WHOLE = ["bytes", "height", "width", "depth", "bands", "axis", "ignored_pixels", "objects"]
_FRACTIONS = ["nodata", "valid_share"]
# reasons and remedies in the error about too many unusable items
_SHOWN = 3


def is_sample(data: Data) -> bool:
    """Whether the source is the manifest of a sample and not a folder."""
    return Path(data.source).suffix in (".yaml", ".yml") and not Path(data.source).is_dir()


def batch_folders(data: Data) -> dict[str, Path]:
    """Folders of later batches by name, in the order of their receipt.

    Batches of one day have the same date in their names, so `received` in batch.json decides. A batch that was made by
    hand has no such file, and precedes the others of its day.
    """
    parent = Path(data.batches) / data.name
    if not parent.is_dir():
        return {}
    folders = [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return {p.name: p for p in sorted(folders, key=_receipt)}


def _receipt(folder: Path) -> tuple[datetime, str]:
    return time_of_receipt(folder), folder.name


def time_of_receipt(folder: Path) -> datetime:
    """When a batch was received; without batch.json, the beginning of the day in its name.

    Raises:
        DataError: batch.json is damaged.
    """
    facts, day = folder / "batch.json", folder.name[:8]
    if not facts.is_file():
        try:
            return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)
        except ValueError:
            return datetime.min.replace(tzinfo=UTC)
    try:
        received = datetime.fromisoformat(json.loads(facts.read_text(encoding="utf-8"))["received"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{facts}: the time of receipt cannot be read ({type(error).__name__}: {error})",
            "restore the folder of the batch from your data storage",
        ) from error
    return received if received.tzinfo else received.replace(tzinfo=UTC)


def files_folder(data: Data, ingested: Path) -> Path:
    """Folder that the catalogue's paths are relative to: the source folder, or that of the unpacked sample."""
    return ingested / "files" if is_sample(data) else Path(data.source)


def is_empty(folder: Path) -> bool:
    """Whether a folder exists and has no file but hidden ones and a README."""
    return folder.is_dir() and not any(
        not name.startswith(".") and not name.lower().startswith("readme")
        for _, _, names in os.walk(folder)
        for name in names
    )


def _find(data: Data, folder: Path, batches: Mapping[str, Path]) -> list[BatchItem]:
    """Items of the source, which may be empty if there are batches, and of later batches.

    The ids of the latter begin with the name of the batch.
    """
    first = [] if batches and is_empty(folder) else layouts.find(data, folder)
    items = [BatchItem(item, folder, FIRST) for item in first]
    for batch, batch_folder in batches.items():
        items.extend(
            BatchItem(replace(item, id=f"{batch}-{item.id}"), batch_folder, batch)
            for item in layouts.find(data, batch_folder)
        )
    return items


def _row(batch_item: BatchItem, outcome: Outcome) -> dict[str, Any]:
    item, batch = batch_item.item, batch_item.batch
    row: dict[str, Any] = {
        "id": item.id,
        "group": item.group,
        "split": item.split,
        "batch": batch,
        "image": (item.image if batch == FIRST else batch / item.image).as_posix(),
        "label": item.mask.as_posix() if item.mask else None,
        "valid": item.valid.as_posix() if item.valid else None,
        "baselines": json.dumps({name: path.as_posix() for name, path in item.baselines.items()}),
        "status": "accepted",
        "kind": "",
        "reason": "",
        "remedy": "",
        "notes": "[]",
        "words": json.dumps(item.words),
        "channels": json.dumps([path.as_posix() for path in item.channels]) if item.channels else None,
        "parts": json.dumps([(name, path.as_posix()) for name, path in item.parts]) if item.parts else None,
    }
    if item.objects:
        row[NUMBERS] = item.objects.as_posix()
    if isinstance(outcome, DataError):
        problem = {"kind": outcome.kind, "reason": outcome.what, "remedy": outcome.remedy}
        return {**row, **problem, "status": "quarantined", "packed": None}
    return {
        **row,
        **outcome,
        "thumb": bytes.fromhex(outcome["thumb"]),
        "notes": json.dumps([*item.notes, *outcome["notes"]]),
    }


def quarantine(table: pd.DataFrame, row: Any, kind: str, reason: str, remedy: str) -> None:
    """Mark a row of the catalogue as quarantined, with kind (a key of problems.KINDS), reason and remedy."""
    columns = ["status", "kind", "reason", "remedy", "packed"]
    table.loc[row, columns] = ["quarantined", kind, reason, remedy, None]


class Usual(NamedTuple):
    """Number of bands, data type and scale that all items must have, and where they come from, in words."""

    bands: int
    dtype: str
    origin: str
    scale: str


def usual_of(table: pd.DataFrame) -> Usual | None:
    """Bands, data type and scale of most items of the source or, without any there, of the batch received first.

    Args:
        table: rows of the catalogue, those of the source first, then those of the batches in the order of receipt.

    Returns:
        None if no item is accepted.
    """
    accepted = table[table["status"] == "accepted"]
    if accepted.empty:
        return None
    first = accepted["batch"].iloc[0]
    bands = _most_frequent(accepted.loc[accepted["batch"] == first, "bands"])
    same = accepted[(accepted["batch"] == first) & (accepted["bands"] == bands)]
    dtype = _most_frequent(same["dtype"])
    scale = _most_frequent(same.loc[same["dtype"] == dtype, "notes"].map(_scale))
    return Usual(int(bands), str(dtype), _origin(first), str(scale))


def _scale(notes: str) -> str:
    """Scale and offset that an image declares, from its notes."""
    texts = [text for _, text in json.loads(notes) if text.startswith(UNSCALED)]
    return "; ".join(text.removeprefix(UNSCALED) for text in texts) or "x 1 + 0"


def _most_frequent(values: "pd.Series[Any]") -> Any:
    """The smallest of the most frequent values."""
    return values.value_counts(sort=False).sort_index().sort_values(ascending=False, kind="stable").index[0]


def compare(table: pd.DataFrame, usual: Usual | None = None) -> None:
    """Quarantine items whose bands, data type or scale are not the usual ones, and note mixed coordinate systems.

    Args:
        table: rows of the catalogue; changed in place.
        usual: of the data that the items are added to; None: that of the table itself.
    """
    expected = usual or usual_of(table)
    if expected is None:
        return
    for column, kind, what in (("bands", "band-count", "bands"), ("dtype", "other-dtype", "dtype")):
        accepted = table[table["status"] == "accepted"]
        wanted = getattr(expected, column)
        for index, value in accepted[column][accepted[column] != wanted].items():
            name = Path(str(table.at[index, "image"])).name
            is_reference = usual is None and expected.origin == _origin(table.at[index, "batch"])
            origin = "most others have" if is_reference else f"{expected.origin} has"
            quarantine(
                table,
                index,
                kind,
                f"{name}: {what} is {value}, {origin} {wanted}",
                (_alpha_remedy(table, int(value), int(wanted)) if column == "bands" else "")
                + "convert it, select bands with data.bands, set data.grey_to_rgb, or use another data.name for these",
            )
    _compare_scales(table, expected)
    crs = table.loc[table["status"] == "accepted", "crs"].dropna().value_counts()
    for index, value in table["crs"].items() if len(crs) > 1 else ():
        has_crs = table.at[index, "status"] == "accepted" and isinstance(value, str)
        if has_crs and not same_on_map(value, crs.index[0]):
            most = short_name(crs.index[0])
            note = ["mixed-crs", f"has {short_name(value)}, most others have {most}"]
            table.at[index, "notes"] = json.dumps([*json.loads(table.at[index, "notes"]), note])


def _compare_scales(table: pd.DataFrame, expected: Usual) -> None:
    """Quarantine items whose file declares another scale or offset: their stored values have another meaning."""
    accepted = table[table["status"] == "accepted"]
    for index, scale in accepted["notes"].map(_scale).items():
        if scale != expected.scale:
            quarantine(
                table,
                index,
                "other-scale",
                f"{Path(str(table.at[index, 'image'])).name}: declares its values {scale}, others {expected.scale}",
                "store the scaled values of all images: gdal_translate -unscale -ot Float32; if their stored values "
                "have the same meaning, remove the declarations: gdal_edit.py -scale 1 -offset 0",
            )


def _alpha_remedy(table: pd.DataFrame, bands: int, wanted: int) -> str:
    """What helps where a band is alpha in some images and data in others; empty elsewhere."""
    if abs(bands - wanted) != 1 or not table["notes"].str.contains('"alpha-').any():
        return ""
    listed = [list(range(1, n + 1)) for n in (max(bands, wanted), min(bands, wanted))]
    return (
        f"if a band is transparency in one and data in the other, set data.bands to {listed[0]} or to {listed[1]}; "
        "otherwise "
    )


def _origin(batch: str) -> str:
    return "data.source" if batch == FIRST else f"batch {batch}"


def has_source(path: Path) -> bool:
    """Whether a stored catalogue has items of the source."""
    return FIRST in set(pd.read_parquet(path, columns=["batch"])["batch"])


def require_enough(table: pd.DataFrame, data: Data) -> None:
    """Check that enough items can be used.

    Raises:
        DataError: no item can be used, or a larger fraction than data.max_quarantined cannot.
    """
    bad = table[table["status"] == "quarantined"]
    if len(bad) < len(table) and len(bad) / len(table) <= data.max_quarantined:
        return
    # the summary of the check has all kinds of problems
    more = f"\n  and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    shown = "\n  ".join(bad["reason"].head(_SHOWN)) + more
    raise DataError(
        f"{len(bad)} of {len(table)} items cannot be used:\n  {shown}",
        "; ".join(dict.fromkeys(bad["remedy"].head(_SHOWN)))
        + f"; data.max_quarantined accepts up to {data.max_quarantined:.0%} unusable items",
        kind="all-bad",
    )


def build(
    data: Data,
    folder: Path,
    work: Path,
    progress: Callable[..., Iterable[Any]] = lambda results, total: results,
    batches: Mapping[str, Path] | None = None,
) -> pd.DataFrame:
    """Build the catalogue: one row per item, accepted or quarantined with kind, reason and remedy.

    Args:
        data: settings.
        folder: source folder.
        work: folder of packed items (`items/`) and of the rows of the last ingest (`rows/`).
        progress: wraps the iterator of results; called with their number as `total`.
        batches: folders of later batches by name, laid out as `folder`, in the order of receipt.

    Raises:
        DataError: a folder is missing or has no images, or the disk is full.
    """
    table = read(data, _find(data, folder, batches or {}), work, progress)
    compare(table)
    return table


def read(
    data: Data,
    items: list[BatchItem],
    work: Path,
    progress: Callable[..., Iterable[Any]] = lambda results, total: results,
) -> pd.DataFrame:
    """One row per item, checked on its own and not yet compared with others; arguments as for `build`.

    Raises:
        DataError: the disk is full.
    """
    outcomes = read_all(items, data, work, progress)
    rows = [_row(batch_item, outcomes[batch_item.item.id]) for batch_item in items]
    columns = [*COLUMNS, *([NUMBERS] if data.objects else []), *([AGREEMENT] if data.annotators else [])]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table = table.astype(dict.fromkeys(_WHOLE, "Int64") | dict.fromkeys(_FRACTIONS, "Float64"))
    text = [c for c in columns if c not in (*_WHOLE, *_FRACTIONS)]
    table[text] = table[text].astype(object).where(table[text].notna(), None)
    return table
