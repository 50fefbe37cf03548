"""Object tables of random masks, which may overlap, made by products of all masks; and literal metrics of masks."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from segcore.tables.counts import count, counts_table
from segcore.tables.objects import objects_table
from tests.support.object_tables import Mask

SIZE = 32


def rectangle(row: int, col: int, height: int, width: int, size: int = SIZE) -> np.ndarray:
    """(size, size) bool."""
    mask = np.zeros((size, size), bool)
    mask[row : row + height, col : col + width] = True
    return mask


def random_masks(
    rng: np.random.Generator, number: int, near: Sequence[Mask] = (), classes: Sequence[int] = (1, 2)
) -> list[Mask]:
    """Rectangles; each of half of them is one of `near`, moved and grown by up to two pixels."""
    masks = []
    for index in range(number):
        row, col, height, width = (int(n) for n in rng.integers([0, 0, 3, 3], [22, 22, 10, 10]))
        class_index = int(rng.choice(classes))
        if near and index % 2:
            other = near[int(rng.integers(len(near)))]
            rows, cols = np.nonzero(other.pixels)
            moves = rng.integers(-1, 2, 4)
            row, col = max(0, rows.min() + moves[0]), max(0, cols.min() + moves[1])
            height, width = np.ptp(rows) + 1 + moves[2], np.ptp(cols) + 1 + moves[3]
            class_index = other.class_index
        masks.append(Mask(rectangle(row, col, height, width), class_index, float(rng.random())))
    return masks


def fast_image(true: Sequence[Mask], predicted: Sequence[Mask], item: str, cluster: str = "") -> pd.DataFrame:
    """Rows of one image whose pixels are all scored, in the order of the masks; boundary counts are 1."""
    pixels = (true or predicted)[0].pixels.size if len(true) + len(predicted) else SIZE**2
    rows = [pd.DataFrame({"kind": ["image"], "pixels": [pixels]})]
    stacked = [
        np.array([m.pixels.ravel() for m in masks], np.float32).reshape(len(masks), pixels)
        for masks in (true, predicted)
    ]
    for kind, masks, flat in zip(("truth", "prediction"), (true, predicted), stacked, strict=True):
        areas = flat.sum(1).astype(np.int64)
        frame = {
            kind: np.arange(1, len(masks) + 1),
            "class_index": [m.class_index for m in masks],
            "area": areas,
            "area_full": [
                area if m.area_full is None else m.area_full for m, area in zip(masks, areas, strict=True)
            ],
            "score": [m.score for m in masks],
            "crowd": [m.crowd for m in masks],
        }
        rows.append(pd.DataFrame(frame).assign(kind=kind))
    shared = np.rint(stacked[0] @ stacked[1].T).astype(np.int64) if true and predicted else np.zeros((0, 0))
    t, p = np.nonzero(shared)
    boundary = {
        f"boundary_{name}": 1 for name in ("truth", "prediction", "truth_matched", "prediction_matched")
    }
    pairs = pd.DataFrame({"truth": t + 1, "prediction": p + 1, "intersection": shared[t, p]})
    rows.append(pairs.assign(kind="pair", **boundary))
    return objects_table([frame.assign(item=item, cluster=cluster or item) for frame in rows])


def counts_of(images: Iterable[tuple[str, str]], classes: Sequence[str]) -> pd.DataFrame:
    """Counts of images, given by item and cluster, without a foreground pixel."""
    empty = np.zeros((4, 4), np.uint8)
    one = count(empty, empty, len(classes))
    return counts_table([(item, cluster, one) for item, cluster in images], classes)


def iou(a: Mask, b: Mask) -> float:
    """Intersection over union of two masks."""
    return float((a.pixels & b.pixels).sum() / (a.pixels | b.pixels).sum())


def literal_matches(
    true: Sequence[Mask], predicted: Sequence[Mask], threshold: float
) -> list[tuple[int, int]]:
    """Pairs (truth, prediction) of one class: each prediction, the best first, takes the best free truth above."""
    free, pairs = set(range(len(true))), []
    for p in sorted(range(len(predicted)), key=lambda p: -predicted[p].score):
        own = [t for t in free if true[t].class_index == predicted[p].class_index]
        best = max(own, key=lambda t: iou(true[t], predicted[p]), default=None)
        if best is not None and iou(true[best], predicted[p]) > threshold:
            pairs.append((best, p))
            free.remove(best)
    return pairs


def literal_aji(true: Sequence[Mask], predicted: Sequence[Mask]) -> tuple[int, int]:
    """Aggregated intersection and union of one class (Kumar et al. 2017, algorithm 1)."""
    intersection, union, used = 0, 0, set()
    for t in true:
        best = max(range(len(predicted)), key=lambda p: iou(t, predicted[p]), default=None)
        if best is None or not (t.pixels & predicted[best].pixels).any():
            union += int(t.pixels.sum())
            continue
        intersection += int((t.pixels & predicted[best].pixels).sum())
        union += int((t.pixels | predicted[best].pixels).sum())
        used.add(best)
    union += sum(int(p.pixels.sum()) for index, p in enumerate(predicted) if index not in used)
    return intersection, union
