"""Step 1: fetch or find images and masks, read and check each once, quarantine what is bad, pack the rest.

`python -m tasks ingest` reads `data` of params.yaml and writes data/ingested/ (catalogue, links, quarantine) and
data/packed/ (one file an accepted item). `--check` only checks, and writes the data card; so does `make check-data`.
"""

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segcore.files import atomic_folder, locked
from segcore.ingest import reader_pool
from tasks import console
from tasks.project import INGESTED, WORK, report_folder

if TYPE_CHECKING:  # the readers' processes load this module too, and need none of these
    import pandas as pd

    from segcore import params


class Checked(NamedTuple):
    """What a check finds: the catalogue, linked pairs, masks without an image, and the folder of packed items."""

    table: "pd.DataFrame"
    links: "pd.DataFrame"
    strays: list[Path]
    store: Path


def _progress(found: Iterable[Any], total: int) -> Iterable[Any]:
    return console.progress(found, "ingest", total=total) if total else found


def check(data: "params.Data", folder: Path, work: Path = WORK) -> Checked:
    """Read and check every item of a folder, and of later batches, that was not read before; print what was found.

    Raises:
        DataError: missing or empty folder, or a pattern that is wrong.
    """
    from segcore.ingest import catalog
    from segcore.ingest.links import footprints
    from segcore.io import layouts
    from tasks.data_card import card

    own = work / "ingest" / data.name
    table = catalog.build(data, folder, own, _progress, catalog.batch_folders(data))
    links = footprints.links(table[table["status"] == "accepted"])
    used = {*table["label"], *table["valid"]}.union(*(json.loads(b).values() for b in table["baselines"]))
    found = Checked(table, links, layouts.stray_masks(data, folder, used), own / "items")
    print(card.summary(found.table, found.links, found.strays), flush=True)
    return found


def write_card(found: Checked, data: "params.Data", root: Path = Path()) -> Path:
    """Write reports/<name>/data.html and say where it is."""
    from tasks.data_card import card

    target = root / report_folder(data.name) / "data.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    card.write_card(found.table, found.links, found.strays, data, found.store, target)
    print(f"Data card: {target}", flush=True)
    return target


def _alone(data: "params.Data", work: Path) -> AbstractContextManager[Path]:
    """Wait for another ingest or check of the same data to end: each removes packed items that it does not know."""
    return locked(work / "ingest" / data.name / "lock")


def _link(source: Path, target: Path) -> None:
    """The same file under another name: packed items never change, so one copy on disk is enough."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def ingest(data: "params.Data", target: Path = INGESTED, work: Path | None = None) -> Path:
    """Write `target`/{catalog,links}.parquet and quarantine.csv, and packed items to the folder `packed` beside it.

    Args:
        data: what to ingest.
        target: folder that is replaced as a whole, or not at all.
        work: where packed items and the rows of what was read are kept; None: beside `target`.

    Returns:
        Path of the catalogue.

    Raises:
        DataError: more unusable items than data.max_quarantined; DownloadError: the sample cannot be had.
    """
    from segcore.ingest import catalog, samples

    work = work or target.parent / "work"
    with (
        _alone(data, work),
        atomic_folder(target) as part,
        atomic_folder(target.parent / "packed") as packed,
    ):
        if catalog.is_sample(data):
            samples.fetch(samples.load_manifest(data.source), part / "files")
        found = check(data, catalog.files_folder(data, part), work)
        write_card(found, data, work.parent)
        catalog.require_enough(found.table, data)
        bad = found.table[found.table["status"] == "quarantined"]
        found.table.to_parquet(part / "catalog.parquet", index=False)
        found.links.to_parquet(part / "links.parquet", index=False)
        bad[["id", "image", "label", "kind", "reason", "remedy"]].to_csv(part / "quarantine.csv", index=False)
        for name in found.table.loc[found.table["status"] == "accepted", "packed"]:
            _link(found.store / name, packed / name)
    return target / "catalog.parquet"


def check_only(data: "params.Data", work: Path = WORK) -> None:
    """Check and write the data card; data/ stays as it is.

    Raises:
        DataError: as `ingest`.
    """
    from segcore.ingest import catalog, samples

    with _alone(data, work), tempfile.TemporaryDirectory() as folder:
        if catalog.is_sample(data):
            samples.fetch(samples.load_manifest(data.source), Path(folder) / "files")
        found = check(data, catalog.files_folder(data, Path(folder)), work)
        write_card(found, data, work.parent)
    catalog.require_enough(found.table, data)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks ingest", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only check, and write the data card")

    def run(arguments: argparse.Namespace) -> None:
        # the readers' processes load their modules while this one loads its own
        reader_pool.warm_up([console.__name__])
        from segcore import params

        data = params.load(arguments.params).data
        if arguments.check:
            check_only(data)
        else:
            ingest(data, work=WORK)

    console.run(run, parser)


console.refuse_as_script(__name__)
