"""What a layout finds: images with their masks, before anything is read."""

from dataclasses import dataclass, field
from pathlib import Path

from segcore.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image (a picture, a scene, or a volume) and what belongs to it; paths are relative to the source folder.

    Attributes:
        id: unique, of letters, digits, `_`, `-` and `.`; stable as long as the file keeps its path.
        group: what must never be divided between splits.
        image: a file, or a folder for a DICOM series.
        mask: a raster, a volume, or a file of polygons or COCO annotations that other images share.
        split: "train", "validation" or "test" where the data set says so.
        valid: mask of what is scored.
        baselines: masks of other annotators.
        problem: found while pairing; such an item is quarantined.
    """

    id: str
    group: str
    image: Path
    mask: Path | None = None
    split: str | None = None
    valid: Path | None = None
    baselines: dict[str, Path] = field(default_factory=dict)
    problem: DataError | None = None
