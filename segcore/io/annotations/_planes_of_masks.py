"""Remedies for masks with more or fewer planes, pages or bands than can belong to their image."""

from pathlib import Path

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io import images
from segcore.params.data import Data

SEPARATE = (
    "if each is one class, save each as a file of its own and make data.masks a mapping `class: pattern`; if each is "
    "one object, save each as a file of its own, with data.instances: true and a `*` in data.masks"
)


def with_remedy(error: DataError, path: Path, image: Info, data: Data) -> DataError:
    """The error of a mask that does not open on its image's grid, with a remedy for masks where planes differ.

    Args:
        error: as it was raised.
        path: of the mask.
        image: header of the image.
        data: settings.
    """
    if error.kind not in ("pages", "not-3d", "size-mismatch"):
        return error
    planes = 0 if error.kind != "size-mismatch" else _planes(path, image, data)
    if error.kind == "pages" and image.depth == 1:
        what = f"{error.what}; its image has one plane"
        remedy = f"save the mask as one page with class values; {SEPARATE}"
    elif error.kind == "not-3d":
        what, remedy = error.what, f"save the mask as three dimensions with class values; {SEPARATE}"
    elif image.depth == 1 and planes > 1:
        what, remedy = error.what, f"save the mask as one plane with class values; {SEPARATE}"
    elif image.depth > 1 and planes == 1:
        what = error.what
        remedy = (
            f"save a mask of {image.depth} planes, in the order of those of the image; if the mask holds for every "
            "plane, repeat it; if it is of one plane, save that plane of the image as a file of its own"
        )
    else:
        return error
    return DataError(what, remedy, kind=error.kind)


def _planes(path: Path, image: Info, data: Data) -> int:
    slices = image.axis if image.canonical else data.slices
    with images.open_source(path, slices, "planes" if image.depth > 1 else data.pages) as source:
        return source.info.depth
