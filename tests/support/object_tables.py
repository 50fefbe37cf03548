"""Object tables made by literal loops over masks, which may overlap: the reference of `segcore.objects.pairs`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.constants import IGNORE, IGNORED_SHARE, REQUIRED_SHARE
from segcore.objects.found import Objects
from segcore.tables.objects import objects_table


@dataclass(frozen=True)
class Mask:
    """An object: (H, W) bool of the whole image, class, score of a predicted one; of a true one crowd and full area."""

    pixels: np.ndarray
    class_index: int = 1
    score: float = 1.0
    crowd: bool = False
    area_full: int | None = None


def masks(
    numbers: np.ndarray,
    classes: dict[int, int] | None = None,
    scores: dict[int, float] | None = None,
    crowds: Sequence[int] = (),
) -> list[Mask]:
    """The objects of a number map, by default of class 1 and score 1."""
    classes, scores = classes or {}, scores or {}
    ids = [int(i) for i in np.unique(numbers) if i]
    return [Mask(numbers == i, classes.get(i, 1), scores.get(i, 1.0), i in crowds) for i in ids]


def as_objects(predicted: Sequence[Mask], shape: tuple[int, int]) -> Objects:
    """The same objects as masks in crops; those without a pixel are left out."""
    predicted = [m for m in predicted if m.pixels.any()]
    boxes = [_box(m.pixels) for m in predicted]
    return Objects(
        *shape,
        np.array([m.class_index for m in predicted], np.uint8),
        np.array([m.score for m in predicted], np.float32),
        np.array(boxes, np.int32).reshape(-1, 4),
        [m.pixels[r : r + h, c : c + w] for m, (r, c, h, w) in zip(predicted, boxes, strict=True)],
    )


def image(
    true: Sequence[Mask],
    predicted: Sequence[Mask],
    shape: tuple[int, int],
    item: str = "a",
    cluster: str = "",
    scored: np.ndarray | None = None,
    tolerance: int = 2,
    pixel_area: float = np.nan,
) -> pd.DataFrame:
    """The rows of one image; `cluster` is by default the item, and all pixels are scored."""
    scored = np.ones(shape, bool) if scored is None else scored
    true, predicted = _in_order(true, scored), _in_order(predicted, scored)
    rows = [_image_row(scored, pixel_area)]
    rows += [_truth_row(number, m, scored) for number, m in enumerate(true, 1)]
    rows += [_prediction_row(number, m, scored) for number, m in enumerate(predicted, 1)]
    for t, truth in enumerate(true, 1):
        for p, prediction in enumerate(predicted, 1):
            shared = int((truth.pixels & prediction.pixels & scored).sum())
            if shared:
                boundaries = _boundary_row(truth.pixels, prediction.pixels, scored, tolerance)
                rows.append(
                    {"kind": "pair", "truth": t, "prediction": p, "intersection": shared} | boundaries
                )
    return objects_table([pd.DataFrame(rows).assign(item=item, cluster=cluster or item)])


def table(*images: pd.DataFrame) -> pd.DataFrame:
    """One table of several images."""
    return objects_table(images)


def label_of(scored: np.ndarray) -> np.ndarray:
    """A label that is IGNORE where pixels are not scored."""
    return np.where(scored, 0, IGNORE).astype(np.uint8)


def _in_order(objects: Sequence[Mask], scored: np.ndarray) -> list[Mask]:
    seen = [m for m in objects if (m.pixels & scored).any()]
    return sorted(
        seen, key=lambda m: (int(np.flatnonzero(m.pixels & scored)[0]), -np.float32(m.score), m.class_index)
    )


def _box(pixels: np.ndarray) -> tuple[int, int, int, int]:
    rows, cols = np.nonzero(pixels)
    top, left = int(rows.min()), int(cols.min())
    return top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1


def _place(pixels: np.ndarray) -> dict[str, object]:
    row, col, height, width = _box(pixels)
    cut = min(row, col) == 0 or row + height == pixels.shape[0] or col + width == pixels.shape[1]
    return {"row": row, "col": col, "height": height, "width": width, "cut": cut}


def _image_row(scored: np.ndarray, pixel_area: float) -> dict[str, object]:
    pixels = int(scored.sum())
    return {
        "kind": "image",
        "pixels": pixels,
        "ignored_pixels": scored.size - pixels,
        "pixel_area": pixel_area,
    }


def _truth_row(number: int, m: Mask, scored: np.ndarray) -> dict[str, object]:
    area = int((m.pixels & scored).sum())
    full = area if m.area_full is None else m.area_full
    return {
        "kind": "truth",
        "truth": number,
        "class_index": m.class_index,
        "area": area,
        "area_full": full,
        "out": area <= REQUIRED_SHARE * full,
        "crowd": m.crowd,
    } | _place(m.pixels & scored)


def _prediction_row(number: int, m: Mask, scored: np.ndarray) -> dict[str, object]:
    area, full = int((m.pixels & scored).sum()), int(m.pixels.sum())
    share = (full - area) / full
    return {
        "kind": "prediction",
        "prediction": number,
        "class_index": m.class_index,
        "score": float(np.float32(m.score)),
        "area": area,
        "area_full": full,
        "ignored_share": share,
        "out": share > IGNORED_SHARE,
    } | _place(m.pixels & scored)


def _boundary(pixels: np.ndarray, scored: np.ndarray) -> list[tuple[int, int]]:
    """Scored pixels of the object with a scored 4-neighbour outside it."""
    height, width = pixels.shape
    found = []
    for r, c in zip(*np.nonzero(pixels & scored), strict=True):
        beside = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
        inside = [(y, x) for y, x in beside if 0 <= y < height and 0 <= x < width]
        if any(scored[y, x] and not pixels[y, x] for y, x in inside):
            found.append((int(r), int(c)))
    return found


def _near(pixels: list[tuple[int, int]], others: list[tuple[int, int]], tolerance: int) -> int:
    return sum(any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in others) for y, x in pixels)


def _boundary_row(
    true: np.ndarray, predicted: np.ndarray, scored: np.ndarray, tolerance: int
) -> dict[str, int]:
    of_truth, of_prediction = _boundary(true, scored), _boundary(predicted, scored)
    return {
        "boundary_truth": len(of_truth),
        "boundary_prediction": len(of_prediction),
        "boundary_truth_matched": _near(of_truth, of_prediction, tolerance),
        "boundary_prediction_matched": _near(of_prediction, of_truth, tolerance),
    }
