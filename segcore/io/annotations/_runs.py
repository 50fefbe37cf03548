"""Outlines of annotations as runs of pixels, validated before pycocotools reads them."""

from typing import Any

import numpy as np

from segcore.errors import DataError
from segcore.io.annotations._coordinates import polygons_of

# Start and length of each run, in pixels counted column by column.
Runs = tuple[np.ndarray, np.ndarray]
# Longest encoded count: 5 bits per character, and no picture has 2**35 pixels.
_MOST_CHARACTERS = 7


def runs_of(outline: Any, where: str, height: int, width: int) -> tuple[Runs | None, bool]:
    """Pixels of an outline, and whether parts of it outside of the image were clipped.

    Args:
        outline: a list of polygons, one polygon, a run-length mask of COCO, or runs.
        where: name of file and annotation, for errors.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        Runs (None where it has no outline), and whether it reaches more than a pixel outside of the image.

    Raises:
        DataError: coordinates or counts that do not fit the image.
    """
    if isinstance(outline, tuple):
        return outline, False
    if not outline:
        return None, False
    if isinstance(outline, dict):
        return _decoded(outline, where, height, width), False
    points, is_clipped = _polygons(outline, where, height, width)
    polygons = [p for p in points if len(p) >= 6]
    if not polygons:
        return None, False
    from pycocotools import mask

    encoded = mask.merge(mask.frPyObjects([p.tolist() for p in polygons], height, width))
    return _foreground(_counts(encoded["counts"], where), where, height, width), is_clipped


def _polygons(outline: Any, where: str, height: int, width: int) -> tuple[list[np.ndarray], bool]:
    """Flat arrays x, y, x, y, ..., and whether one reaches more than a pixel outside of the image.

    Checked here because pycocotools reads four numbers as a box, and allocates memory for any distance.
    """
    polygons, is_clipped = [], False
    for part in polygons_of(outline):
        try:
            points = np.array(part, np.float64)
        except (TypeError, ValueError, OverflowError):
            points = np.empty((0, 0))
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise DataError(
                f"{where} has an outline that is not a list of x, y, x, y, ...",
                "correct or remove the annotation, or export it again",
                kind="polygons-unreadable",
            )
        reach = np.abs(points.reshape(-1, 2) - (width / 2, height / 2)).max(axis=0, initial=0)
        if (reach > (1.5 * width, 1.5 * height)).any():
            x, y = points[np.abs(points).argmax() // 2 * 2 :][:2]
            raise DataError(
                f"{where} reaches x {x:g}, y {y:g}, far outside the image of {height} x {width}",
                "annotate the picture at its original size, or scale the annotations to it",
                kind="size-mismatch",
            )
        polygons.append(points)
        is_clipped = is_clipped or bool((reach > (width / 2 + 1, height / 2 + 1)).any())
    return polygons, is_clipped


def _bad(where: str, what: str) -> DataError:
    return DataError(
        f"{where} has a run-length mask that {what}",
        "export it again; `size` is [height, width], and counts sum to their product",
        kind="bad-run-length",
    )


def _decoded(outline: dict[str, Any], where: str, height: int, width: int) -> Runs:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise _bad(where, f"has size {size}, but the image has [{height}, {width}]")
    if isinstance(counts, str):
        try:
            counts = _counts(counts.encode("ascii"), where)
        except UnicodeEncodeError as error:
            raise _bad(where, "holds invalid characters") from error
    elif not (isinstance(counts, list) and all(type(c) is int and 0 <= c <= height * width for c in counts)):
        raise _bad(where, f"holds counts that are not numbers from 0 to {height * width}")
    return _foreground(np.array(counts, np.int64), where, height, width)


def _counts(text: bytes, where: str) -> np.ndarray:
    """Run lengths of a compressed mask.

    Same format as rleFrString of pycocotools, which reads past the end of damaged texts. A count is signed, with 5 bits
    per character, lowest bits first; from the fourth count on, the value two counts earlier is added.
    """
    characters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(characters) == 0:
        return characters
    more = (characters & 0x20) > 0
    if characters.min() < 0 or characters.max() > 63 or more[-1]:
        raise _bad(where, "holds invalid characters, or is cut off")
    starts = np.flatnonzero(np.concatenate([[True], ~more[:-1]]))
    lengths = np.diff(np.append(starts, len(characters)))
    if lengths.max() > _MOST_CHARACTERS:
        raise _bad(where, "holds counts larger than any image")
    position = np.arange(len(characters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & 0x1F) << (5 * position), starts)
    negative = (characters[starts + lengths - 1] & 0x10) > 0
    values -= np.where(negative, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _foreground(counts: np.ndarray, where: str, height: int, width: int) -> Runs:
    """Runs of the object; counts alternate between background and object, background first."""
    total = height * width
    if counts.min(initial=0) < 0 or counts.max(initial=0) > total or counts.sum() != total:
        raise _bad(where, f"sums to {counts.sum()} pixels, but the image has {total}")
    ends = np.cumsum(counts)
    starts, lengths = (ends - counts)[1::2], counts[1::2]
    return starts[lengths > 0], lengths[lengths > 0]
