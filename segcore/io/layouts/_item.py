"""An image with its mask, as a layout finds it before any file is read."""

from dataclasses import dataclass, field
from pathlib import Path

from segcore.data.raster import Note
from segcore.errors import DataError


@dataclass(frozen=True)
class Item:
    """One image (a picture, a scene, or a volume) and its files; paths are relative to the source folder.

    Attributes:
        id: unique; letters, digits, `_`, `-` and `.`; stable while the path of the image is.
        group: items of one group are never divided between splits.
        image: a file, or a folder for a DICOM series; of an image in several files, the first.
        mask: a raster, a volume, or a file of polygons or COCO annotations that other images share; the first of parts.
        split: "train", "validation" or "test" if the data set defines it, else None.
        valid: mask of the pixels that are scored.
        objects: raster of object numbers, where the mask has the classes.
        baselines: annotator -> mask.
        words: word -> text, by which scores can be divided, such as {"site": "oslo"}.
        channels: files of further bands of the image, in the order of data.images.
        parts: (class, file) of masks that have files of their own, in the order in which they are drawn; the class of
            an object's file is "" where its values say it.
        notes: what pairing did.
        problem: first problem found while pairing; an item with one is quarantined.
    """

    id: str
    group: str
    image: Path
    mask: Path | None = None
    split: str | None = None
    valid: Path | None = None
    objects: Path | None = None
    baselines: dict[str, Path] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    channels: tuple[Path, ...] = ()
    parts: tuple[tuple[str, Path], ...] = ()
    notes: tuple[Note, ...] = ()
    problem: DataError | None = None

    @property
    def images(self) -> tuple[Path, ...]:
        """All files of the image."""
        return (self.image, *self.channels)

    @property
    def masks(self) -> tuple[Path, ...]:
        """All files of the mask."""
        if self.parts:
            return tuple(path for _, path in self.parts)
        return (self.mask,) if self.mask else ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files: of the image, its mask, the mask of valid pixels, object numbers and the baselines."""
        others = [path for path in (self.valid, self.objects) if path]
        return (*self.images, *self.masks, *others, *self.baselines.values())
