"""An image with its mask, as a layout finds it before any file is read."""

from dataclasses import dataclass, field
from pathlib import Path

from segcore.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image (a picture, a scene, or a volume) and its files; paths are relative to the source folder.

    Attributes:
        id: unique; letters, digits, `_`, `-` and `.`; stable while the path of the image is.
        group: items of one group are never divided between splits.
        image: a file, or a folder for a DICOM series.
        mask: a raster, a volume, or a file of polygons or COCO annotations that other images share.
        split: "train", "validation" or "test" if the data set defines it, else None.
        valid: mask of the pixels that are scored.
        baselines: annotator -> mask.
        words: word -> text, by which scores can be divided, such as {"site": "oslo"}.
        problem: first problem found while pairing; an item with one is quarantined.
    """

    id: str
    group: str
    image: Path
    mask: Path | None = None
    split: str | None = None
    valid: Path | None = None
    baselines: dict[str, Path] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    problem: DataError | None = None
