"""Drift between the training data and a new batch: band values, class balance, the champion on both test sets.

The population stability index (PSI) of two histograms p, q is the sum of (p - q) ln(p / q). Below 0.1 the shift is
small and above 0.25 large, by a rule of thumb from credit scoring (Siddiqi, "Credit Risk Scorecards", Wiley 2006).
The rule ignores the number of scenes: a batch of one or two scenes differs from all others by its content alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from segcore.constants import IGNORE
from segcore.data.packed import Packed, sample_step
from segcore.data.prepared import PreparedData

BINS = 64
MODERATE, LARGE = 0.1, 0.25
SOURCE = "Siddiqi, Credit Risk Scorecards, Wiley 2006"
# at most this many planes are read of the training data, and of the batch, evenly spaced
_PLANES = 4000
# at most this many values per band, of the training data and of the batch
_VALUES = 2_000_000
_DIGITS = 6


def drift(
    data: PreparedData,
    batches: Sequence[str],
    champion: Mapping[str, Mapping[str, float | None]] | None = None,
) -> dict[str, Any] | None:
    """Compare all regions of new batches with the training regions of all other batches.

    Args:
        data: prepared data whose items name their batch.
        batches: names of the new batches.
        champion: "score" and "ece", each with "frozen" and "new" in [0, 1] (None where nothing is scored); None where
            there is no champion.

    Returns:
        Values for JSON: "training" and "new" (number of images or planes, of those read, and of values per band);
        "bands", for each its "range", both histograms (fractions that add up to 1, up to 64 bins between "edges"),
        "outside" (fraction of new values outside the range), "psi" and "ks" (Kolmogorov-Smirnov distance in [0, 1]);
        "classes" with the fractions of both and "psi"; "champion"; "verdicts", one sentence each; "thresholds".
        None if the training data or the new batches have no valid pixel.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    of_batch = data.regions["item"].map(data.items["batch"]).astype(str).isin(batches)
    training = _sample(data, data.regions[~of_batch & (data.regions["split"] == "train")])
    new = _sample(data, data.regions[of_batch])
    if not len(training.values) or not len(new.values):
        return None
    bands = [
        _band(data, band, training.values[:, band], new.values[:, band])
        for band in range(training.values.shape[1])
    ]
    classes = _classes(data.classes, training.classes, new.classes)
    champion_scores = {name: dict(values) for name, values in champion.items()} if champion else None
    return {
        "batch": ", ".join(batches),
        "training": training.facts,
        "new": new.facts,
        "bands": bands,
        "classes": classes,
        "champion": champion_scores,
        "thresholds": {"psi": [MODERATE, LARGE], "source": SOURCE},
        "verdicts": [
            *map(_band_verdict, bands),
            _class_verdict(classes),
            *_champion_verdicts(champion_scores),
        ],
    }


def psi(a: np.ndarray, b: np.ndarray) -> float:
    """Population stability index of two histograms (counts, same bins), 0 for equal proportions.

    Half a count is added to every bin, so that an empty bin gives a large index and not an infinite one.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (np.asarray(a, float), np.asarray(b, float)))
    return float(((p - q) * np.log(p / q)).sum())


def expected_calibration_error(curves: Iterable[Mapping[str, Sequence[float]]]) -> float | None:
    """Error in [0, 1], pooled over curves of `Calibration.result` with the same bins; None without a counted pixel."""
    pixels = confident = correct = np.zeros(1)
    for curve in curves:
        count = np.asarray(curve["count"], float)
        pixels = pixels + count
        confident = confident + count * np.asarray(curve["confidence"], float)
        correct = correct + count * np.asarray(curve["accuracy"], float)
    return float(np.abs(correct - confident).sum() / pixels.sum()) if pixels.sum() else None


class _Sample:
    """Values (n, C), number of pixels per class (K,), and how much was read."""

    def __init__(self, values: np.ndarray, classes: np.ndarray, facts: dict[str, int]) -> None:
        self.values, self.classes, self.facts = values, classes, facts


def _sample(data: PreparedData, regions: pd.DataFrame) -> _Sample:
    items = np.sort(regions["item"].unique())
    read = items[:: max(1, -(-len(items) // _PLANES))]
    most = max(64, _VALUES // max(1, len(read)))
    values, classes = [np.zeros((0, data.bands))], np.zeros(len(data.classes), np.int64)
    for item, part in regions[regions["item"].isin(read)].groupby("item", sort=True):
        row = data.items.loc[str(item)]
        pixels, labels = _plane(Packed(data.packed / row["packed"]), int(row["plane"]), part)
        values.append(pixels[:: max(1, -(-len(pixels) // most))].astype(np.float64))
        classes += np.bincount(labels[labels != IGNORE], minlength=256)[: len(classes)]
    joined = np.concatenate(values)
    joined = joined[np.isfinite(joined).all(axis=1)]
    return _Sample(joined, classes, {"images": len(items), "read": len(read), "values": len(joined)})


def _plane(packed: Packed, plane: int, regions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Valid pixels (n, C) and labels (n,) uint8 inside the regions, from the plane's even sample."""
    kept = packed.sample_mask(plane, regions.itertuples())
    step = sample_step(*packed.shapes["labels"][1][1:])
    return packed.array("sample")[plane][kept], packed.thinned("labels", (plane,), step)[kept]


def _range(data: PreparedData, band: int, values: np.ndarray) -> tuple[float, float]:
    """The range that models clip to, or the lowest and highest training value; never empty."""
    clipped = data.statistics.get("range")
    low, high = (clipped[0][band], clipped[1][band]) if clipped else (values.min(), values.max())
    return float(low), float(max(high, low + max(abs(low), 1) * 1e-6))


def _bins(data: PreparedData, low: float, high: float) -> tuple[int, tuple[float, float]]:
    """Number of bins and their outer edges.

    Bins of integers have an integer width. With any other width, neighbouring bins would contain different numbers of
    possible values, and a difference in rounding would look like a shift.
    """
    if not np.issubdtype(np.dtype(str(data.items["dtype"].iloc[0])), np.integer):
        return BINS, (low, high)
    span = np.floor(high) - np.floor(low) + 1
    width = np.ceil(span / BINS)
    bins, first = int(np.ceil(span / width)), float(np.floor(low)) - 0.5
    return bins, (first, first + bins * float(width))


def _band(data: PreparedData, band: int, training: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    # imported here, because it takes a second
    from scipy.stats import ks_2samp

    limits = _range(data, band, training)
    bins, edges = _bins(data, *limits)
    counts = [np.histogram(np.clip(v, *edges), bins, edges)[0] for v in (training, new)]
    shares = [np.round(c / c.sum(), _DIGITS).tolist() for c in counts]
    index = psi(*counts)
    return {
        "band": band + 1,
        "range": list(limits),
        "edges": list(edges),
        "training": shares[0],
        "new": shares[1],
        "outside": round(float(((new < limits[0]) | (new > limits[1])).mean()), _DIGITS),
        "psi": round(index, _DIGITS),
        "ks": round(float(ks_2samp(training, new, method="asymp").statistic), _DIGITS),
        "level": _level(index),
    }


def _classes(names: Sequence[str], training: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    index = psi(training, new)
    shares = [np.round(c / max(1, c.sum()), _DIGITS).tolist() for c in (training, new)]
    return {
        "names": list(names), "training": shares[0], "new": shares[1], "psi": round(index, _DIGITS),
        "level": _level(index),
    }  # fmt: skip


def _level(index: float) -> str:
    return "little" if index < MODERATE else "moderate" if index <= LARGE else "large"


def _shift_text(level: str, index: float) -> str:
    limit = {
        "little": f"below {MODERATE:g}", "moderate": f"between {MODERATE:g} and {LARGE:g}", "large": f"above {LARGE:g}"
    }  # fmt: skip
    return f"{level} shift, PSI {index:.2f} ({limit[level]})"


def _band_verdict(band: Mapping[str, Any]) -> str:
    beyond = f"; {100 * band['outside']:.1f} % of its values are outside the training range"
    shift = _shift_text(band["level"], band["psi"])
    text = f"Band {band['band']}: {shift}, Kolmogorov-Smirnov distance {band['ks']:.2f}"
    return f"{text}{beyond if band['outside'] >= 0.001 else ''}."


def _class_verdict(classes: Mapping[str, Any]) -> str:
    changed = max(
        zip(classes["names"], classes["training"], classes["new"], strict=True),
        key=lambda c: abs(c[2] - c[1]),
    )
    return (
        f"Class balance: {_shift_text(classes['level'], classes['psi'])}; {changed[0]} changed most, from "
        f"{100 * changed[1]:.1f} % to {100 * changed[2]:.1f} % of the pixels."
    )


def _champion_verdicts(champion: Mapping[str, Mapping[str, float | None]] | None) -> list[str]:
    lines = []
    for name, words in (("score", "score"), ("ece", "expected calibration error")):
        values = (champion or {}).get(name) or {}
        frozen, new = values.get("frozen"), values.get("new")
        if frozen is not None and new is not None:
            change = 100 * (new - frozen)
            side = "higher" if change >= 0 else "lower"
            lines.append(
                f"The champion's {words} is {100 * new:.1f} % on the new batch and {100 * frozen:.1f} % on the frozen "
                f"test set: {abs(change):.1f} points {side}."
            )
    return lines
