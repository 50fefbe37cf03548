"""The evaluation table: pixel counts, one row per image and class, from which every score derives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.constants import IGNORE
from segcore.errors import DataError

COUNTS = (
    "tp",
    "fp",
    "fn",
    "ignored",
    "pixels",
    "boundary_predicted",
    "boundary_predicted_matched",
    "boundary_true",
    "boundary_true_matched",
)


def confusion(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of pixels by true class (row) and predicted class (column), without ignored pixels.

    Args:
        prediction: `(H, W)` class indices; any value where the label is IGNORE.
        label: `(H, W)` class indices with IGNORE.
        num_classes: K.

    Returns:
        `(K, K)` int64.

    Raises:
        DataError: the shapes differ, or a valid pixel is not a class index below K.
    """
    if prediction.shape != label.shape:
        raise DataError(
            f"prediction {prediction.shape} and label {label.shape} differ in shape",
            "score predictions at the label's own resolution",
        )
    valid = label != IGNORE
    true, predicted = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, values in (("label", true), ("prediction", predicted)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise DataError(
                f"{name} has values {values.min()} to {values.max()}, classes are 0 to {num_classes - 1}",
                f"map every value to a class, or to {IGNORE} to ignore it",
            )
    return np.bincount(true * num_classes + predicted, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def count(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, boundary_tolerance: int = 2
) -> pd.DataFrame:
    """Pixel counts of one image, one row per class.

    Args:
        prediction: `(H, W)` uint8 class indices; any value where the label is IGNORE.
        label: `(H, W)` uint8 class indices with IGNORE, at the original resolution.
        num_classes: K.
        boundary_tolerance: Euclidean distance in pixels up to which boundary pixels match.

    Returns:
        K rows in the order of classes, columns COUNTS, int64. `ignored` and `pixels` (valid) are of the whole image.

    Raises:
        DataError: the shapes differ, or a valid pixel is not a class index below K.
    """
    matrix = confusion(prediction, label, num_classes)
    tp = np.diag(matrix)
    valid = label != IGNORE
    pixels = int(valid.sum())
    # an array, because filling a data frame by columns takes milliseconds
    table = np.empty((num_classes, len(COUNTS)), dtype=np.int64)
    table[:, 0], table[:, 1], table[:, 2] = tp, matrix.sum(0) - tp, matrix.sum(1) - tp
    table[:, 3], table[:, 4] = label.size - pixels, pixels
    for index in range(num_classes):
        predicted, true = _boundary(prediction == index, valid), _boundary(label == index, valid)
        predicted_matched = _matched(predicted, true, boundary_tolerance)
        true_matched = _matched(true, predicted, boundary_tolerance)
        table[index, 5:] = predicted.sum(), predicted_matched, true.sum(), true_matched
    return pd.DataFrame(table, columns=list(COUNTS))


def _boundary(mask: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Valid pixels of the mask with a valid 4-neighbour outside it; edges of image and nodata do not count."""
    outside = np.pad(~mask & valid, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    boundary: np.ndarray = mask & valid & beside
    return boundary


def _matched(boundary: np.ndarray, other: np.ndarray, tolerance: int) -> int:
    """Number of pixels of `boundary` with a pixel of `other` within the tolerance."""
    rows, columns = np.nonzero(boundary)
    padded = np.pad(other, tolerance)
    matched = np.zeros(len(rows), dtype=bool)
    for dy in range(-tolerance, tolerance + 1):
        for dx in range(-tolerance, tolerance + 1):
            if dy**2 + dx**2 <= tolerance**2:
                matched |= padded[rows + tolerance + dy, columns + tolerance + dx]
    return int(matched.sum())


def counts_table(images: Iterable[tuple[str, str, pd.DataFrame]], classes: Sequence[str]) -> pd.DataFrame:
    """The evaluation table: one row per image and class.

    Args:
        images: item, its cluster (resampled as a whole: patient, scene, block), and its `count`.
        classes: K names.

    Returns:
        Columns item, cluster, class_index, class_name and COUNTS.
    """
    columns = list(COUNTS)
    rows = [(item, cluster, counts[columns].to_numpy()) for item, cluster, counts in images]
    if not rows:
        return pd.DataFrame(columns=["item", "cluster", "class_index", "class_name", *columns])
    names = {
        "item": [item for item, _, _ in rows for _ in classes],
        "cluster": [cluster for _, cluster, _ in rows for _ in classes],
        "class_index": np.tile(np.arange(len(classes)), len(rows)),
        "class_name": [*classes] * len(rows),
    }
    counted = pd.DataFrame(np.concatenate([counts for _, _, counts in rows]), columns=columns)
    return pd.concat([pd.DataFrame(names), counted], axis=1)


def require_all(table: pd.DataFrame, expected_items: Iterable[str]) -> None:
    """Check that the table holds each expected item exactly once, and no other.

    Raises:
        DataError: items are missing, counted twice, or not expected.
    """
    expected, counted = set(expected_items), set(table["item"])
    twice = set(table.loc[table.duplicated(["item", "class_index"]), "item"])
    for what, items in (
        ("have no prediction", expected - counted),
        ("are counted twice", twice),
        ("do not belong to the scored set", counted - expected),
    ):
        if items:
            raise DataError(
                f"{len(items)} of {len(expected)} images {what}: {', '.join(sorted(items)[:5])}",
                "evaluate the model on the whole test set again",
            )


@dataclass(frozen=True)
class Evaluation:
    """An evaluation table as arrays, images sorted by name; those without a valid pixel are left out.

    Attributes:
        items: (I,) str.
        clusters: (I,) str.
        classes: K names.
        counts: by COUNTS, each (I, K) int64.
    """

    items: np.ndarray
    clusters: np.ndarray
    classes: list[str]
    counts: dict[str, np.ndarray]


def as_arrays(table: pd.DataFrame) -> Evaluation:
    """Arrays of an evaluation table.

    Raises:
        DataError: an image lacks a class or has one twice, or no image has a valid pixel.
    """
    table = table[table["pixels"] > 0].sort_values(["item", "class_index"], kind="stable")
    names = table.drop_duplicates("class_index").set_index("class_index")["class_name"].sort_index()
    classes, gapless = names.tolist(), names.index.tolist() == list(range(len(names)))
    per_image = (
        table.groupby("item")["class_index"].agg(["size", "nunique"]) if len(table) else pd.DataFrame()
    )
    if per_image.empty or not gapless or (per_image != len(classes)).any(axis=None):
        raise DataError(
            "the evaluation table has no valid pixel, or not one row per image and class",
            "evaluate the model again",
        )
    shape = (len(per_image), len(classes))
    first = table.iloc[:: len(classes)]
    counts = {name: table[name].to_numpy(np.int64).reshape(shape) for name in COUNTS}
    return Evaluation(first["item"].to_numpy(), first["cluster"].to_numpy(), classes, counts)
