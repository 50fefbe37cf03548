"""Step 1: fetch or find images and masks, check each, write the catalogue.

`python -m tasks.ingest` reads `data` of params.yaml and writes data/ingested/.
"""

import argparse
from pathlib import Path

from segcore import params, samples
from segcore.catalog import build, files_folder, is_sample
from segcore.files import atomic_folder
from tasks import console

INGESTED = Path("data/ingested")


def ingest(data: params.Data, target: Path = INGESTED, batch: str = "0") -> Path:
    """Write `target`/catalog.parquet, and the sample's files beside it.

    Args:
        data: what to ingest.
        target: folder that is replaced as a whole, or not at all.
        batch: name of this ingest.

    Returns:
        Path of the catalogue.

    Raises:
        DataError: unusable items; DownloadError: the sample cannot be had.
    """
    with atomic_folder(target) as part:
        if is_sample(data):
            samples.fetch(samples.load_manifest(data.source), part / "files")
        table = build(
            data, files_folder(data, part), batch, lambda images: console.progress(images, "ingest")
        )
        table.to_parquet(part / "catalog.parquet", index=False)
    print(f"ingest: {len(table)} items of {table['group'].nunique()} groups in {target}", flush=True)
    return target / "catalog.parquet"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.ingest", description=__doc__)
    parser.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    console.run(lambda a: ingest(params.load(a.params).data), parser)


if __name__ == "__main__":
    main()
