"""Find or download images and masks, read and check each once, quarantine bad items, pack the others.

`python -m tasks ingest` reads `data` of params.yaml and writes data/ingested/ (catalogue, links, quarantine) and
data/packed/ (one file per accepted item). `--check`, like `make check-data`, only checks and writes the data card.
"""

import argparse
import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segcore.errors import DataError
from segcore.files import atomic_folder, locked
from segcore.ingest import reader_pool
from tasks import console
from tasks.links import require_folders
from tasks.project import INGESTED, WORK, report_folder, split_file

if TYPE_CHECKING:
    # the reader processes load this module as well, and do not need these
    import pandas as pd

    from segcore import params
    from segcore.io.layouts import Stray


class Checked(NamedTuple):
    """Result of a check: catalogue, linked pairs, notes on files of no item, folder of the packed items."""

    table: "pd.DataFrame"
    links: "pd.DataFrame"
    strays: "list[Stray]"
    store: Path


def _progress(rows: Iterable[Any], total: int) -> Iterable[Any]:
    return console.progress(rows, "ingest", total=total) if total else rows


def check(data: "params.Data", folder: Path, work: Path = WORK) -> Checked:
    """Read and check all items of the folder and of later batches that were not read before; print a summary.

    Raises:
        DataError: missing or empty folder, or a wrong pattern.
    """
    from segcore.ingest import catalog, companions, label_keys
    from segcore.ingest.links import footprints
    from segcore.ingest.source_files import more_files
    from segcore.io import layouts
    from tasks.data_card import card

    cache = work / "ingest" / data.name
    table = catalog.build(data, folder, cache, _progress, catalog.batch_folders(data))
    require_source(table, data, work.parent)
    label_keys.note_unused(table, data)
    links = footprints.links(table[table["status"] == "accepted"])
    used = {*table["label"], *table["valid"]}.union(*(json.loads(b).values() for b in table["baselines"]))
    used.update(*map(more_files, table.to_dict("records")))
    strays = layouts.strays(data, folder, used)
    if data.layout == "pairs" and not data.listing:
        folders = {catalog.FIRST: folder, **catalog.batch_folders(data)}
        strays += companions.entries_without_image(table, folders)
    checked = Checked(table, links, strays, cache / "items")
    print(card.summary(checked.table, checked.links, checked.strays, data), flush=True)
    return checked


def require_source(table: "pd.DataFrame", data: "params.Data", root: Path = Path()) -> None:
    """Check that a source without items has always been without: an unmounted source is an empty folder.

    Args:
        table: catalogue of the source and of all batches.
        data: settings.
        root: folder of the project, with the split file and the last catalogue.

    Raises:
        DataError: there were items in the source before.
    """
    from segcore.ingest import catalog

    if (table["batch"] == catalog.FIRST).any():
        return
    splits, last = root / split_file(data.name), root / INGESTED / "catalog.parquet"
    groups = set(table["group"])
    if last.exists() and catalog.has_source(last):
        record = f"{last} has items of it"
    elif splits.exists() and (lost := sorted(_groups(splits) - groups)):
        record = f"{splits} has groups that are in no batch ({', '.join(lost[:3])})"
    else:
        return
    raise DataError(
        f"{data.source}: data.source is empty, but was not before: {record}",
        f"mount or restore it; if its files were removed on purpose, delete {last} and {splits}, and all groups are "
        "assigned to the splits again",
        kind="no-images",
    )


def _groups(splits: Path) -> set[str]:
    """Groups of a split file, whose first two lines are settings and header."""
    with splits.open(encoding="utf-8", newline="") as stream:
        return {row[0] for row in list(csv.reader(stream))[2:] if row}


def write_card(
    checked: Checked, data: "params.Data", root: Path = Path(), p: "params.Params | None" = None
) -> Path:
    """Write reports/<name>/data.html, and print what components can reach, and its path, which is returned.

    `p`: as of `ingest`.
    """
    from tasks.data_card import card

    target = root / report_folder(data.name) / "data.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    # crops and blocks are not known before the first plan
    p = p if p and p.is_planned else None
    card.write_card(checked.table, checked.links, checked.strays, data, checked.store, target, p)
    if line := card.limit_line(checked.table, data, checked.store, p):
        print(line, flush=True)
    print(f"Data card: {target}", flush=True)
    return target


def alone(data: "params.Data", work: Path) -> AbstractContextManager[Path]:
    """Lock: only one ingest or check per dataset at a time, because each removes packed items that it does not use."""
    return locked(work / "ingest" / data.name / "lock")


def _link(source: Path, target: Path) -> None:
    """Hard link `source` as `target`: packed items never change, so one copy on disk is enough."""
    try:
        os.link(source, target)
    except OSError:
        # another file system, or one without hard links
        shutil.copyfile(source, target)


def ingest(
    data: "params.Data",
    target: Path = INGESTED,
    work: Path | None = None,
    p: "params.Params | None" = None,
) -> Path:
    """Write `target`/{catalog,links}.parquet and quarantine.csv, and packed items to its sibling folder `packed`.

    Args:
        data: what to ingest.
        target: folder that is replaced as a whole or, on an error, not at all.
        work: folder of the cache of packed items and catalogue rows; None: `work` beside `target`.
        p: all parameters, for what the data card says of training crops and networks; None: this is left out.

    Returns:
        Path of the catalogue.

    Raises:
        DataError: more unusable items than data.max_quarantined; DownloadError: the sample cannot be downloaded.
    """
    from segcore.ingest import catalog, label_keys, samples

    work = work or target.parent / "work"
    with (
        alone(data, work),
        atomic_folder(target) as part,
        atomic_folder(target.parent / "packed") as packed,
    ):
        if catalog.is_sample(data):
            samples.fetch(samples.load_manifest(data.source), part / "files")
        checked = check(data, catalog.files_folder(data, part), work)
        write_card(checked, data, work.parent, p)
        catalog.require_enough(checked.table, data)
        label_keys.require_matched(checked.table, data)
        bad = checked.table[checked.table["status"] == "quarantined"]
        checked.table.to_parquet(part / "catalog.parquet", index=False)
        checked.links.to_parquet(part / "links.parquet", index=False)
        bad[["id", "image", "label", "kind", "reason", "remedy"]].to_csv(part / "quarantine.csv", index=False)
        for name in checked.table.loc[checked.table["status"] == "accepted", "packed"]:
            _link(checked.store / name, packed / name)
    return target / "catalog.parquet"


def check_only(data: "params.Data", work: Path = WORK, p: "params.Params | None" = None) -> None:
    """Check the data and write the data card; data/ is not changed; arguments as of `ingest`.

    Raises:
        DataError: as for `ingest`.
    """
    from segcore.ingest import catalog, label_keys, samples

    with alone(data, work), tempfile.TemporaryDirectory() as folder:
        if catalog.is_sample(data):
            samples.fetch(samples.load_manifest(data.source), Path(folder) / "files")
        checked = check(data, catalog.files_folder(data, Path(folder)), work)
        write_card(checked, data, work.parent, p)
    catalog.require_enough(checked.table, data)
    label_keys.require_matched(checked.table, data)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks ingest", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only check the data and write the data card")

    def run(arguments: argparse.Namespace) -> None:
        # reader processes import their modules while this process imports its own
        reader_pool.warm_up([console.__name__])
        from segcore import params

        p = params.load(arguments.params)
        if arguments.check:
            check_only(p.data, p=p)
        else:
            require_folders()
            ingest(p.data, work=WORK, p=p)

    console.run(run, parser)


console.refuse_as_script(__name__)
