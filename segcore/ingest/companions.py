"""Files of a data set that are not images: which wait for their image, by their names alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from segcore.errors import DataError
from segcore.io import annotations
from segcore.io.annotations._shared import ids
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts import cityscapes, coco, nnunet, voc
from segcore.io.layouts._builder import is_set
from segcore.io.layouts._names import DATA_FILES, is_side_file, printable
from segcore.params.data import Data

if TYPE_CHECKING:
    import pandas as pd

_MOST_FILES = 100


def lists(data: Data) -> list[patterns.Pattern]:
    """Patterns of the files that list items: tables, annotations of many images, lists of names."""
    return [patterns.Pattern(patterns.tokens_of(text)) for text in _lists(data)]


def _lists(data: Data) -> tuple[str, ...]:
    if data.listing:
        return (data.listing,)
    if data.layout == "coco":
        return coco.FILES
    if data.layout == "voc":
        return tuple(f"**/ImageSets/Segmentation/{name}.txt" for name in voc.LISTS)
    if data.layout == "nnunet":
        return (nnunet.DESCRIPTION, f"*/{nnunet.DESCRIPTION}")
    return ()


def shared(data: Data, paths: Iterable[str]) -> list[str]:
    """Those of the paths that go with every batch, because they describe all items: the table, or dataset.json."""
    if not data.listing and data.layout != "nnunet":
        return []
    return sorted(path for path in paths if any(pattern.match(path) for pattern in lists(data)))


def _masks(data: Data) -> list[str]:
    """Patterns of masks, masks of valid pixels, object numbers, baselines, and files of further bands."""
    if data.listing or data.layout in ("coco", "listing"):
        return []
    objects = [data.objects] if data.objects else []
    if data.layout == "voc":
        return ["**/SegmentationClass/{stem}.png", *objects]
    if data.layout == "cityscapes":
        return [*(data.mask_patterns if is_set(data, "masks") else [cityscapes.MASKS]), *objects]
    if data.layout == "nnunet":
        return [f"**/{nnunet.MASKS}/*", *objects]
    others = [*([data.valid] if data.valid else []), *objects, *data.baselines.values()]
    return [*data.mask_patterns, *others, *data.image_patterns[1:]]


def why_stray(data: Data) -> str:
    """Why a file belongs to no item of the layout, for a list of such files."""
    if data.listing:
        return f"not named in {data.listing}"
    if data.layout == "coco":
        return f"not listed in {' or '.join(coco.FILES)}"
    if data.layout == "pairs":
        return "no pattern in section data of params.yaml matches"
    return f"not part of the layout {data.layout}"


def without_image(data: Data, paths: Iterable[str]) -> list[str]:
    """Those of the paths that are named as masks, sidecar files or lists, and so wait for their image."""
    wanted = [patterns.Pattern(patterns.tokens_of(text)) for text in (*_masks(data), *_lists(data))]
    return [
        path
        for path in paths
        if is_side_file(path)
        or path.lower().endswith((".hdr", *DATA_FILES))
        or any(pattern.match(path) for pattern in wanted)
    ]


def entries_without_image(table: "pd.DataFrame", folders: Mapping[str, Path]) -> list[tuple[str, Path, str]]:
    """Notes on annotation files of many images with entries that belong to none: kind, path of the file, and text.

    Args:
        table: catalogue.
        folders: folder of each batch of the catalogue.
    """
    notes, files = [], [g for g in table.groupby(["batch", "label"], sort=False) if g[0][0] in folders]
    # More files than this are one for each image.
    for (batch, label), rows in files if len(files) <= _MOST_FILES else ():
        folder = folders[str(batch)].absolute()
        names, count = annotations.without_image(
            folder / str(label), [folder / name for name in rows["image"]]
        )
        if names:
            text = f"{len(names)} of its {count} entries belong to no image of the data set: {ids(names)}"
            notes.append(("entry-without-image", Path(str(label)), text))
    return notes


def is_rather_a_mask(data: Data, image: str) -> bool:
    """Whether a file that matches data.images is a mask: it matches the pattern of masks, which is more specific."""
    own = _letters(data.image_patterns[0])
    specific = [text for text in _masks(data) if _letters(text) > own]
    return any(patterns.Pattern(patterns.tokens_of(text)).match(image) for text in specific)


def _letters(pattern: str) -> int:
    """Number of characters that a pattern prescribes."""
    tokens = [token for component in patterns.tokens_of(pattern) for token in component]
    return sum(len(text) for kind, text in tokens if kind == "text")


def damaged_list(data: Data, folder: Path, error: DataError) -> str | None:
    """Path of the list that an error of `layouts.find` is about; None if it is about none that exists."""
    if error.kind != "no-list":
        return None
    for pattern in _lists(data):
        for path in _matching(folder, pattern):
            if error.what.startswith((f"{printable(path)}:", f"{printable(PurePosixPath(path).name)}:")):
                return path
    return None


def _matching(folder: Path, pattern: str) -> list[str]:
    wanted = patterns.Pattern(patterns.tokens_of(pattern))
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in paths if wanted.match(path)]
