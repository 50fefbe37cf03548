"""A project of three items with an inbox, and what a round would make of it."""

import json
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from segcore.ingest import catalog
from segcore.params import Params
from tasks.receive import receive
from tests.support.tiny import blobs, make_pairs, params_for

HOUR = 3600
BOX = Path("data/inbox")


def project(folder: Path, retrain: dict | None = None, **data: object) -> Params:
    """Parameters of a project in `folder`, which must be the current one, with the items a0, a1 and a2."""
    make_pairs(folder / "source", 3)
    (folder / "data/inbox").mkdir(parents=True)
    return params_for("source", data=data, retrain=retrain or {})


def look(p: Params, now: float | None = None):
    """What `receive` would do; nothing is changed."""
    return receive(p, now, dry_run=True)


def aged(path: Path, age: float = HOUR) -> Path:
    """The path, last changed `age` seconds ago."""
    os.utime(path, (time.time() - age,) * 2)
    return path


def put(path: Path | str, pixels: np.ndarray, **options: object) -> Path:
    """Save an image, last changed an hour ago."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return aged(path)


def pair(name: str, seed: int, folder: Path = BOX, other_mask: bool = False) -> None:
    """Image and mask of a seed; seeds 0 to 2 are those of the source."""
    image, mask = blobs(48, 56, seed=seed)
    put(folder / f"images/{name}.png", image)
    put(folder / f"masks/{name}.png", (1 - mask if other_mask else mask) * 255)


def batch(p: Params, name: str, received: str, seeds: dict[str, int]) -> Path:
    """A batch that was received and not ingested, with items of these names and seeds."""
    folder = Path(p.data.batches) / p.data.name / name
    for item, seed in seeds.items():
        pair(item, seed, folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "batch.json").write_text(json.dumps({"items": len(seeds), "files": [], "received": received}))
    return folder


def kinds(found) -> dict[str, str]:
    """Kind of each quarantined image by its path."""
    return dict(zip(found.quarantined["image"], found.quarantined["kind"], strict=True))


def built(p: Params):
    """The catalogue as the ingest would build it."""
    return catalog.build(p.data, Path("source"), Path("work/x"), batches=catalog.batch_folders(p.data))
