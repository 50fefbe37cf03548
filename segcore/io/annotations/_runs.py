"""Outlines of COCO annotations as runs of pixels, checked before any library may trip over them."""

from typing import Any

import numpy as np

from segcore.errors import DataError

Runs = tuple[np.ndarray, np.ndarray]  # first pixel and length of each, counted column by column
_MOST_CHARACTERS = 7  # of a count: 5 bits each, and no picture has 2**35 pixels


def runs_of(annotation: dict[str, Any], name: str, height: int, width: int) -> Runs | None:
    """Pixels of an annotation's outline; None where it has none.

    Args:
        annotation: of an image; its `segmentation` is a list of polygons or a run-length mask.
        name: of the file, for errors.
        height, width: of the image, in pixels.

    Raises:
        DataError: coordinates or counts that make no sense for the image.
    """
    outline = annotation.get("segmentation")
    who = f"{name}: annotation {annotation.get('id')}"
    if not outline:
        return None
    if isinstance(outline, dict):
        return _decoded(outline, who, height, width)
    polygons = [p for p in _polygons(outline, who, height, width) if len(p) >= 6]
    if not polygons:
        return None
    from pycocotools import mask

    encoded = mask.merge(mask.frPyObjects([p.tolist() for p in polygons], height, width))
    return _foreground(_counts(encoded["counts"], who), who, height, width)


def _polygons(outline: Any, who: str, height: int, width: int) -> list[np.ndarray]:
    """Flat arrays x, y, x, y...; pycocotools would take four numbers for a box and reserve memory for any distance."""
    polygons = []
    for part in outline if isinstance(outline, list) else [outline]:
        try:
            points = np.array(part, np.float64)
        except (TypeError, ValueError, OverflowError):
            points = np.empty((0, 0))
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise DataError(
                f"{who} has an outline that is no list of x, y, x, y, ...",
                "mend or remove the annotation, or export it again",
                kind="polygons-unreadable",
            )
        reach = np.abs(points.reshape(-1, 2) - (width / 2, height / 2)).max(axis=0, initial=0)
        if (reach > (1.5 * width, 1.5 * height)).any():
            x, y = points[np.abs(points).argmax() // 2 * 2 :][:2]
            raise DataError(
                f"{who} reaches x {x:g}, y {y:g}, far outside the image of {height} x {width}",
                "annotate the picture at its own size, or scale the annotations to it",
                kind="size-mismatch",
            )
        polygons.append(points)
    return polygons


def _bad(who: str, what: str) -> DataError:
    return DataError(
        f"{who} has a run-length mask that {what}",
        "export it again; `size` is [height, width], and counts sum to their product",
        kind="bad-run-length",
    )


def _decoded(outline: dict[str, Any], who: str, height: int, width: int) -> Runs:
    size, counts = outline.get("size"), outline.get("counts")
    if size != [height, width]:
        raise _bad(who, f"is of size {size}, the image of [{height}, {width}]")
    if isinstance(counts, str):
        try:
            counts = _counts(counts.encode("ascii"), who)
        except UnicodeEncodeError as error:
            raise _bad(who, "holds characters that are no counts") from error
    elif not (isinstance(counts, list) and all(type(c) is int and 0 <= c <= height * width for c in counts)):
        raise _bad(who, f"holds counts that are not numbers from 0 to {height * width}")
    return _foreground(np.array(counts, np.int64), who, height, width)


def _counts(text: bytes, who: str) -> np.ndarray:
    """Run lengths of a compressed mask (rleFrString of pycocotools, which reads on past damaged texts).

    A count has 5 bits a character, the lowest first, is signed, and from the fourth on is the difference to the last
    but one.
    """
    characters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if len(characters) == 0:
        return characters
    more = (characters & 0x20) > 0
    if characters.min() < 0 or characters.max() > 63 or more[-1]:
        raise _bad(who, "holds characters that are no counts, or is cut off")
    starts = np.flatnonzero(np.concatenate([[True], ~more[:-1]]))
    lengths = np.diff(np.append(starts, len(characters)))
    if lengths.max() > _MOST_CHARACTERS:
        raise _bad(who, "holds counts larger than any image")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    values = np.add.reduceat((characters & 0x1F) << (5 * place), starts)
    negative = (characters[starts + lengths - 1] & 0x10) > 0
    values -= np.where(negative, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _foreground(counts: np.ndarray, who: str, height: int, width: int) -> Runs:
    """Runs of the object; counts alternate, beginning outside of it."""
    total = height * width
    if counts.min(initial=0) < 0 or counts.max(initial=0) > total or counts.sum() != total:
        raise _bad(who, f"sums to {counts.sum()} pixels, the image has {total}")
    ends = np.cumsum(counts)
    starts, lengths = (ends - counts)[1::2], counts[1::2]
    return starts[lengths > 0], lengths[lengths > 0]
