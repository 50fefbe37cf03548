"""Test regions on which a model is compared with its exported file."""

from pathlib import Path
from typing import TYPE_CHECKING

from segcore.data.prepared import PreparedData, of_seed, test_regions
from segcore.files import digest
from segcore.models.base.bundle import Bundle
from tasks.project import data_fingerprint

if TYPE_CHECKING:
    import pandas as pd

# whose score is compared
_REGIONS = 20


def held_out(bundle: Bundle, prepared: Path) -> "tuple[tuple[PreparedData, pd.DataFrame] | None, str]":
    """Prepared data and some of its test regions, which the model was not trained with; else None and the reason."""
    if not (prepared / "prepared.json").is_file():
        return None, "there are no prepared data"
    data = of_seed(prepared, bundle.description.get("seed", 0))
    if bundle.description.get("versions", {}).get("data") != data_fingerprint(data.folder):
        return None, "the model was trained on another version of the data"
    regions = test_regions(data)
    if regions.empty:
        return None, "no region is in the test split"
    chosen = sorted(regions["id"], key=digest)[:_REGIONS]
    return (data, regions[regions["id"].isin(chosen)]), ""
