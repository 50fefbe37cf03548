"""Data sets of a known layout: nnU-Net and the Medical Segmentation Decathlon, VOC, Cityscapes, COCO, or a list."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.errors import DataError
from segcore.io import layouts
from segcore.io.layouts.nnunet import DESCRIPTION
from segcore.params.data import Data
from segcore.planning.guess import annotation_files, class_values, image_headers
from segcore.planning.guess.families import Files
from segcore.planning.guess.names import Names, names_in
from segcore.planning.guess.values import read_masks

if TYPE_CHECKING:
    from segcore.planning.guess.section import Guess

# folders and files that two patterns of paths must both have
_FORMS = {
    "nnunet": (r"([^/]+/)?imagesTr/[^/]+", r"([^/]+/)?labelsTr/[^/]+"),
    "voc": (r"([^/]+/){0,2}JPEGImages/[^/]+", r"([^/]+/){0,2}SegmentationClass/[^/]+"),
    "cityscapes": (r"leftImg8bit/.+_leftImg8bit\.png", r"gtFine/.+_gtFine_labelIds\.png"),
    "coco": (r"annotations/instances_[^/]+\.json|[^/]+/_annotations\.coco\.json", r".+\.(jpe?g|png|tiff?)"),
}
_VOC = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)


def layout_of(paths: Sequence[str]) -> str | None:
    """Layout of a data set by its paths; None for others."""
    for name, forms in _FORMS.items():
        patterns: list[Callable[[str], object]] = [
            re.compile(form, re.IGNORECASE).fullmatch for form in forms
        ]
        if all(any(map(pattern, paths)) for pattern in patterns):
            return name
    return None


def listing_of(folder: Path, paths: Sequence[str]) -> str | None:
    """A CSV at the top of a folder with the columns image and mask."""
    for path in paths:
        if "/" not in path and path.lower().endswith(".csv"):
            with (folder / path).open(encoding="utf-8-sig", errors="replace", newline="") as file:
                header = next(csv.reader(file), [])
            if {"image", "mask"} <= set(header):
                return path
    return None


def fill(made: "Guess", folder: Path, files: Files) -> None:
    """Set the keys of a data set whose layout or list is set; its own reader finds the items.

    Raises:
        DataError: it finds none, or no mask can be read.
    """
    layout = made.keys.get("layout", "listing")
    names = names_in(folder, files.paths)
    if layout == "voc" and not names.origin:
        names = Names(in_order=_VOC.split(), origin="the names of Pascal VOC")
    if layout == "nnunet":
        # its reader compares the labels of dataset.json
        described = [p for p in files.paths if p.rpartition("/")[2] == DESCRIPTION]
        names = names_in(folder, described[:1])
    known = names.by_value or {0: "background", 1: "foreground"}
    data = Data.model_validate(
        {
            **made.keys,
            "classes": list(dict.fromkeys(known.values()))
            if len(set(known.values())) > 1
            else ["background", "a"],
            "background": None,
            "unlabelled": "ignore",
            "label_values": known if len(set(known.values())) > 1 else {0: "background", 1: "a"},
        }
    )
    items = layouts.find(data, folder)
    masks = list(dict.fromkeys(item.mask.as_posix() for item in items if item.mask))
    made.images = [item.image.as_posix() for item in items if item.mask]
    made.without_mask = [item.image.as_posix() for item in items if not item.mask]
    if not masks:
        raise DataError(
            f"{folder}: has the layout {layout}, but no image with a mask",
            "add the masks",
            kind="missing-mask",
        )
    headers = image_headers.read(folder, made.images, folder.resolve().name)
    made.take(headers.keys, headers.reasons)
    if layout == "coco":
        classes = annotation_files.classes_of(folder, masks, names)
        made.read = f"{len(masks)} files of annotations"
    else:
        found = read_masks(folder, masks)
        classes = class_values.classes_of(found, names)
        made.read = f"{found.read} of {found.total} masks"
    made.take(classes.keys, classes.reasons)
    made.counts = classes.shares
