"""Batches of a dataset: their order, and which of them have no decision yet."""

from pathlib import Path

from segcore.ingest import catalog
from segcore.params import Params
from tasks.promotion.record import decided_batches


def undecided(p: Params, root: Path = Path()) -> list[str]:
    """Names of the batches on which no decision was acted upon, in the order of their receipt."""
    decided = decided_batches(root, p.data.name)
    return [name for name in catalog.batch_folders(p.data) if name not in decided]
