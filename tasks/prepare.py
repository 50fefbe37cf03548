"""Step 2: split without leaks, index training windows, fit statistics on the training split.

`python -m tasks prepare` reads data/ingested/ and data/packed/, and writes data/prepared/ and splits/<name>.csv, which
says for good which group is in which split. It fails if any leak is found.
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
        registry: of the splits decided so far; None: splits-<name>.csv beside `target`.
        work: where results are kept for the next time; None: beside `target`.

    Raises:
        DataError: no catalogue, unreadable files or an empty split; LeakError: splits that touch.
    """
    registry = registry or target.parent / f"splits-{p.data.name}.csv"
    work = work or target.parent / "work"
    try:
        table = pd.read_parquet(ingested / "catalog.parquet")
        links = pd.read_parquet(ingested / "links.parquet")
    except FileNotFoundError as error:
        raise DataError(f"{ingested}: has no catalogue", "run `dvc repro ingest` first") from error
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
        print(f"prepare: {item} is set aside: {reason}", flush=True)
    data = PreparedData(target, packed)
    _print_summary(data)
    return target


def _print_summary(data: PreparedData) -> None:
    clusters = data.regions.loc[data.regions["split"] == "test", "cluster"].nunique()
    if clusters < _FEW:
        print(
            f"prepare: only {clusters} groups or blocks to test on: differences between architectures can hardly be "
            "shown; more groups, a finer data.group or a larger test share would help",
            flush=True,
        )
    counts = data.regions["split"].value_counts()
    described = ", ".join(f"{counts.get(name, 0)} {name}" for name in params.SPLITS)
    print(f"prepare: regions {described}; {len(data.windows)} training windows; no leak found", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks prepare", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")

    # Arrow's own allocator keeps what it once had, so that memory would grow with the tables.
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())

    def run(arguments: argparse.Namespace) -> None:
        p = params.load(arguments.params)
        prepare(p, registry=split_file(p.data.name), work=WORK)

    console.run(run, parser)


console.refuse_as_script(__name__)
