"""Assign splits without leaks, index training windows, compute statistics of the training split.

`python -m tasks prepare` reads data/ingested/ and data/packed/, and writes data/prepared/ and splits/<name>.csv, the
permanent split assignment of all groups. It fails if any leak is found.
"""

import argparse
from pathlib import Path

import pandas as pd
import pyarrow

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.errors import DataError
from segcore.files import atomic_folder
from segcore.splits import prepare as preparation
from tasks import console
from tasks.project import INGESTED, PREPARED, WORK, split_file

# with fewer, three paired tests with Holm's correction cannot reach 0.05
_FEW = 8


def prepare(
    p: params.Params,
    ingested: Path = INGESTED,
    target: Path = PREPARED,
    registry: Path | None = None,
    work: Path | None = None,
) -> Path:
    """Write the prepared data to `target`, as a whole or not at all.

    Args:
        p: parameters.
        ingested: folder of the catalogue; packed items are in `packed` beside it.
        target: folder that is replaced.
        registry: CSV file of the split assignments so far; None: splits-<name>.csv beside `target`.
        work: folder of the cache; None: `work` beside `target`.

    Raises:
        DataError: no catalogue, unreadable files or an empty split; ParamsError: settings are `auto`, and there is no
            plan; LeakError: splits share pixels or groups.
    """
    p.require_plan()
    registry = registry or target.parent / f"splits-{p.data.name}.csv"
    work = work or target.parent / "work"
    try:
        table = pd.read_parquet(ingested / "catalog.parquet")
        links = pd.read_parquet(ingested / "links.parquet")
    except FileNotFoundError as error:
        raise DataError(f"{ingested}: contains no catalogue", "run `dvc repro ingest` first") from error
    packed = ingested.parent / "packed"
    with atomic_folder(target) as part:
        decision = preparation.prepare(
            table,
            links,
            p,
            packed,
            part,
            registry,
            work / "prepare" / p.data.name,
            lambda rows: console.progress(rows, "prepare"),
        )
    for item, reason in decision.aside.items():
        print(f"prepare: {item} is left out: {reason}", flush=True)
    without = table.loc[(table["status"] == "accepted") & table["objects"].isna(), "id"]
    if p.data.has_objects and len(without):
        print(
            f"prepare: objects are not used, because the ground truth of {len(without)} items has none, such as that "
            f"of {without.iloc[0]}",
            flush=True,
        )
    data = PreparedData(target, packed)
    _print_summary(data)
    return target


def _print_summary(data: PreparedData) -> None:
    clusters = data.regions.loc[data.regions["split"] == "test", "cluster"].nunique()
    if clusters < _FEW and data.folds is None:
        print(
            f"prepare: only {clusters} groups or blocks in the test split: differences between architectures can "
            "hardly be shown; add groups, use a finer data.group or a larger test fraction, or test all groups by "
            "cross-validation (split.folds)",
            flush=True,
        )
    if data.folds is not None:
        print(
            f"prepare: {data.folds} folds; {len(data.regions)} regions of {clusters} groups or blocks, each tested "
            "once; no leak found",
            flush=True,
        )
        return
    counts = data.regions["split"].value_counts()
    described = ", ".join(f"{counts.get(name, 0)} {name}" for name in params.SPLITS)
    print(f"prepare: regions {described}; {len(data.windows)} training windows; no leak found", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks prepare", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")

    # Arrow's default allocator does not return memory, so that memory use would grow with the tables.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())

    def run(arguments: argparse.Namespace) -> None:
        p = params.load(arguments.params)
        prepare(p, registry=split_file(p.data.name), work=WORK)

    console.run(run, parser)


console.refuse_as_script(__name__)
