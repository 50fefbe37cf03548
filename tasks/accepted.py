"""Comparison of a delivery with all accepted items: data.source, every batch, and the delivery itself."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from segcore.errors import DataError, StageError
from segcore.ingest import catalog, samples
from segcore.ingest.doubles import Content, Images, differences
from segcore.params.data import Data
from tasks import console, ingest
from tasks.project import INGESTED, WORK


class Accepted(NamedTuple):
    """Catalogue of the source and of all batches, also of those not yet ingested, and the folder of packed items."""

    table: pd.DataFrame
    store: Path


def _progress(rows: Iterable[Any], total: int) -> Iterable[Any]:
    return console.progress(rows, "accepted", total=total) if total else rows


def read_accepted(data: Data, scratch: Path, read_only: bool = False) -> Accepted:
    """Read what has been accepted; the caller holds `ingest.alone`, whose cache the next ingest uses as well.

    Args:
        data: settings.
        scratch: folder for the files of a sample that has not been ingested yet.
        read_only: leave the cache as it is, and use a copy of it in `scratch`.

    Raises:
        DataError: the source is missing, or is empty and was not before; StageError: the folder of a batch is missing.
    """
    _require_batches(data)
    cache = WORK / "ingest" / data.name
    if read_only:
        cache = _linked_copy(cache, scratch / "accepted")
    folder, batches = catalog.files_folder(data, INGESTED), catalog.batch_folders(data)
    if catalog.is_sample(data) and not folder.is_dir():
        folder = scratch / "sample"
        samples.fetch(samples.load_manifest(data.source), folder)
    if not batches and catalog.is_empty(folder):
        table = pd.DataFrame(columns=catalog.COLUMNS)
    else:
        table = catalog.build(data, folder, cache, _progress, batches)
    ingest.require_source(table, data)
    return Accepted(table, cache / "items")


def _linked_copy(source: Path, target: Path) -> Path:
    """Copy the cache of an ingest; packed items, which never change, are linked."""
    target.mkdir()
    for name, copy in (("items", os.link), ("rows", shutil.copyfile)):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, copy_function=copy)
    return target


def _require_batches(data: Data) -> None:
    parent = Path(data.batches) / data.name
    missing = sorted(file.stem for file in parent.glob("*.dvc") if not file.with_suffix("").is_dir())
    if missing:
        raise StageError(
            f"{parent}: the batches {', '.join(missing)} are not on this machine",
            "run `dvc pull`, then run again",
        )


def require_apart(data: Data, table: pd.DataFrame, inbox: Path) -> None:
    """Check that no accepted file is in the inbox: the file would be recognised there, and moved away.

    Args:
        data: settings.
        table: catalogue of what has been accepted.
        inbox: folder of the inbox.

    Raises:
        DataError: one is.
    """
    inbox = inbox.resolve()
    of_source = table["batch"] == catalog.FIRST
    places = (
        ("data.source", Path(data.source), of_source),
        ("data.batches", Path(data.batches) / data.name, ~of_source),
    )
    for key, place, rows in places:
        folder = place.resolve()
        inside = next(
            (name for name in table.loc[rows, "image"] if (folder / name).is_relative_to(inbox)), None
        )
        if inside is not None:
            raise DataError(
                f"{inbox}: the inbox contains files of {key} ({folder / inside}), which would be moved out of the data",
                "set retrain.inbox in params.yaml to a folder of its own",
            )


def compare(data: Data, table: pd.DataFrame, store: Path, accepted: Accepted) -> list[str]:
    """Quarantine valid items of a delivery that contradict accepted ones or each other.

    Args:
        data: settings.
        table: catalogue of the delivery; changed in place.
        store: folder of its packed items.
        accepted: all accepted items.

    Returns:
        Ids of valid items that have been accepted before, and of repetitions within the delivery.
    """
    catalog.compare(table, catalog.usual_of(accepted.table))
    images = Images()
    for row in _valid(accepted.table):
        images.add(Content(row, accepted.store))
    known, new = [], []
    for row in _valid(table):
        content = Content(row, store)
        found = [(other, differences(content, other)) for other in images.same_image(content)]
        if not found:
            new.append(content)
        elif not all(what for _, what in found):
            known.append(str(row["id"]))
        else:
            _quarantine(table, content, *_contradiction(data, content, *found[0]))
    return [*known, *_compare_with_each_other(table, new)]


def _valid(table: pd.DataFrame) -> list[dict[Any, Any]]:
    return table[table["status"] == "accepted"].to_dict("records")


def _quarantine(table: pd.DataFrame, content: Content, reason: str, remedy: str) -> None:
    catalog.quarantine(table, table["id"] == content.row["id"], "relabelled", reason, remedy)


def _contradiction(data: Data, new: Content, old: Content, what: list[str]) -> tuple[str, str]:
    """Reason and remedy for an image that has been accepted with another mask."""
    row = old.row
    is_source = row["batch"] == catalog.FIRST
    batch = Path(data.batches) / data.name / row["batch"]
    folder = Path(data.source) if is_source else batch
    file = row["image"] if what == ["georeference"] else row["label"]
    path = folder / (Path(file).relative_to(row["batch"]) if file == row["image"] and not is_source else file)
    image = folder / (row["image"] if is_source else Path(row["image"]).relative_to(row["batch"]))
    shown = row["image"] if catalog.is_sample(data) and is_source else image
    reason = f"{new.row['image']}: the data contain this image ({shown}) with another {' and '.join(what)}"
    if is_source and catalog.is_sample(data):
        return reason, "remove it from the inbox: the masks of a sample cannot be replaced"
    record = "" if is_source else f", run `dvc add {batch}`"
    return reason, (
        f"if the delivered one is correct, replace {path} by it{record} and run `make run`; "
        "otherwise remove it from the inbox"
    )


def _compare_with_each_other(table: pd.DataFrame, new: list[Content]) -> list[str]:
    """Ids of repetitions; of an image with several masks, all are quarantined, since nothing shows which is right."""
    images, groups = Images(), dict[str, list[Content]]()
    for content in new:
        same = images.same_image(content)
        if not same:
            images.add(content)
        groups.setdefault((same[0] if same else content).row["id"], []).append(content)
    repeated = []
    for first, *others in groups.values():
        found = sorted({words for other in others for words in differences(other, first)})
        if not found:
            repeated += [str(other.row["id"]) for other in others]
            continue
        for content in (first, *others):
            rest = [o.row["image"] for o in (first, *others) if o is not content]
            names = ", ".join(rest[:3]) + (", ..." if len(rest) > 3 else "")
            reason = (
                f"{content.row['image']}: is the same image as {names}, with another {' and '.join(found)}"
            )
            _quarantine(table, content, reason, "keep the correct one in the inbox, and remove the others")
    return repeated
