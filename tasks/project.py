"""Where everything is in a project, and what it is called: every path that more than one step uses."""

from pathlib import Path

from segcore.files import digest, sha256

WORK = Path("work")
INGESTED = Path("data/ingested")
PREPARED = Path("data/prepared")
SPLITS = Path("splits")
MODELS = Path("models")
EVALUATIONS = Path("evaluations")


def data_fingerprint(prepared: Path) -> str:
    """Hash of what the prepared data are: their index, split, windows and statistics."""
    names = ("items.parquet", "regions.parquet", "windows.parquet", "statistics.json", "prepared.json")
    return digest(*(sha256(prepared / name) for name in names))
