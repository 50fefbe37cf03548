"""Step 2: split without leaks, pack into memory-mapped files, index training windows, fit statistics.

`python -m tasks.prepare` reads data/ingested/ and writes data/prepared/. It fails if any leak is found.
"""

import argparse
from pathlib import Path

import pandas as pd

from segcore import params
from segcore.catalog import files_folder
from segcore.dataset import PreparedData
from segcore.errors import DataError
from segcore.files import atomic_folder
from segcore.packing import pack
from tasks import console
from tasks.ingest import INGESTED

PREPARED = Path("data/prepared")


def prepare(p: params.Params, ingested: Path = INGESTED, target: Path = PREPARED) -> Path:
    """Write the prepared data to `target`, as a whole or not at all.

    Raises:
        DataError: no catalogue, unreadable files or an empty split; LeakError: splits that touch.
    """
    try:
        table = pd.read_parquet(ingested / "catalog.parquet")
    except FileNotFoundError as error:
        raise DataError(f"{ingested}: has no catalogue", "run `dvc repro ingest` first") from error
    with atomic_folder(target) as part:
        pack(table, files_folder(p.data, ingested), p, part, lambda rows: console.progress(rows, "prepare"))
    data = PreparedData(target)
    counts = data.regions["split"].value_counts()
    described = ", ".join(f"{counts.get(name, 0)} {name}" for name in params.SPLITS)
    print(f"prepare: regions {described}; {len(data.windows)} training windows; no leak found", flush=True)
    return target


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.prepare", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(lambda a: prepare(params.load(a.params)), parser)


if __name__ == "__main__":
    main()
