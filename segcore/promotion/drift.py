"""Does a new batch look like the training data? Bands and classes of both, and the champion on both test sets.

The population stability index (PSI) of two histograms p, q is the sum of (p - q) ln(p / q). That less than 0.1 is
little and more than 0.25 much is a rule of thumb of credit scoring (Siddiqi, "Credit Risk Scorecards", Wiley 2006). It
does not know how many scenes a batch has: one or two differ from all the others by what they show.
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
_PLANES = 4000  # read of each side at most, evenly over all of them
_VALUES = 2_000_000  # of a band, of each side at most
_DIGITS = 6


def drift(
    data: PreparedData, batch: str, champion: Mapping[str, Mapping[str, float | None]] | None = None
) -> dict[str, Any] | None:
    """Compare all regions of a batch with the training regions of all other batches.

    Args:
        data: prepared data whose items name their batch.
        batch: the new one.
        champion: "score" and "ece", each with "frozen" and "new" in [0, 1] (None where nothing is scored); None where
            there is no champion.

    Returns:
        JSON-able: "training" and "new" (images: pictures or planes, how many were read, values a band); "bands", of
        each its "range", both histograms (shares that add up to 1, up to 64 bins between "edges"), "outside" (share of
        new values beyond the range), "psi" and "ks" (the Kolmogorov-Smirnov distance, in [0, 1]); "classes", shares of
        both and "psi"; "champion"; "verdicts", a plain line each; "thresholds". None where either side has no valid
        pixel.

    Raises:
        DataError: a packed item is missing or damaged.
    """
    of_batch = data.regions["item"].map(data.items["batch"]).astype(str) == batch
    training = _sample(data, data.regions[~of_batch & (data.regions["split"] == "train")])
    new = _sample(data, data.regions[of_batch])
    if not len(training.values) or not len(new.values):
        return None
    bands = [
        _band(data, band, training.values[:, band], new.values[:, band])
        for band in range(training.values.shape[1])
    ]
    classes = _classes(data.classes, training.classes, new.classes)
    held = {name: dict(values) for name, values in champion.items()} if champion else None
    return {
        "batch": batch,
        "training": training.facts,
        "new": new.facts,
        "bands": bands,
        "classes": classes,
        "champion": held,
        "thresholds": {"psi": [MODERATE, LARGE], "source": SOURCE},
        "verdicts": [*map(_band_verdict, bands), _class_verdict(classes), *_champion_verdicts(held)],
    }


def psi(a: np.ndarray, b: np.ndarray) -> float:
    """Population stability index of two histograms (counts, same bins), 0 for equal shares.

    Half a count is added to every bin, so that an empty one gives a large and not an infinite index.
    """
    p, q = ((counts + 0.5) / (counts + 0.5).sum() for counts in (np.asarray(a, float), np.asarray(b, float)))
    return float(((p - q) * np.log(p / q)).sum())


def expected_calibration_error(curves: Iterable[Mapping[str, Sequence[float]]]) -> float | None:
    """Pooled over calibration curves of `Calibration.result` with the same bins; None where no pixel was counted."""
    pixels = confident = correct = np.zeros(1)
    for curve in curves:
        count = np.asarray(curve["count"], float)
        pixels = pixels + count
        confident = confident + count * np.asarray(curve["confidence"], float)
        correct = correct + count * np.asarray(curve["accuracy"], float)
    return float(np.abs(correct - confident).sum() / pixels.sum()) if pixels.sum() else None


class _Sample:
    """Values (n, C), pixels of each class of the even sample, and what was read."""

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
    """Valid pixels (n, C) and labels (n,) uint8 of a plane's even sample that lie in the regions."""
    kept = packed.sample_mask(plane, regions.itertuples())
    step = sample_step(*packed.shapes["labels"][1][1:])
    return packed.array("sample")[plane][kept], packed.thinned("labels", (plane,), step)[kept]


def _range(data: PreparedData, band: int, values: np.ndarray) -> tuple[float, float]:
    """What the models clip to, or else lowest and highest value of training; never empty."""
    given = data.statistics.get("range")
    low, high = (given[0][band], given[1][band]) if given else (values.min(), values.max())
    return float(low), float(max(high, low + max(abs(low), 1) * 1e-6))


def _bins(data: PreparedData, low: float, high: float) -> tuple[int, tuple[float, float]]:
    """Number of bins and their outer edges. Whole numbers get bins of a whole width: with any other, neighbouring bins
    would hold now more, now fewer of the values there can be, and two kinds of rounding would look like a shift.
    """
    if not np.issubdtype(np.dtype(str(data.items["dtype"].iloc[0])), np.integer):
        return BINS, (low, high)
    span = np.floor(high) - np.floor(low) + 1
    width = np.ceil(span / BINS)
    bins, first = int(np.ceil(span / width)), float(np.floor(low)) - 0.5
    return bins, (first, first + bins * float(width))


def _band(data: PreparedData, band: int, training: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    limits = _range(data, band, training)
    from scipy.stats import ks_2samp  # takes a second to import

    bins, edges = _bins(data, *limits)
    counts = [np.histogram(np.clip(v, *edges), bins, edges)[0] for v in (training, new)]
    shares = [np.round(c / c.sum(), _DIGITS).tolist() for c in counts]
    found = psi(*counts)
    return {
        "band": band + 1,
        "range": list(limits),
        "edges": list(edges),
        "training": shares[0],
        "new": shares[1],
        "outside": round(float(((new < limits[0]) | (new > limits[1])).mean()), _DIGITS),
        "psi": round(found, _DIGITS),
        "ks": round(float(ks_2samp(training, new, method="asymp").statistic), _DIGITS),
        "level": _level(found),
    }


def _classes(names: Sequence[str], training: np.ndarray, new: np.ndarray) -> dict[str, Any]:
    found = psi(training, new)
    shares = [np.round(c / max(1, c.sum()), _DIGITS).tolist() for c in (training, new)]
    return {
        "names": list(names), "training": shares[0], "new": shares[1], "psi": round(found, _DIGITS),
        "level": _level(found),
    }  # fmt: skip


def _level(found: float) -> str:
    return "little" if found < MODERATE else "moderate" if found <= LARGE else "large"


def _words(level: str, found: float) -> str:
    limit = {
        "little": f"below {MODERATE:g}", "moderate": f"between {MODERATE:g} and {LARGE:g}", "large": f"above {LARGE:g}"
    }  # fmt: skip
    return f"{level} shift, PSI {found:.2f} ({limit[level]})"


def _band_verdict(band: Mapping[str, Any]) -> str:
    beyond = f"; {100 * band['outside']:.1f} % of its values lie outside the training range"
    text = f"Band {band['band']}: {_words(band['level'], band['psi'])}, Kolmogorov-Smirnov distance {band['ks']:.2f}"
    return f"{text}{beyond if band['outside'] >= 0.001 else ''}."


def _class_verdict(classes: Mapping[str, Any]) -> str:
    moved = max(
        zip(classes["names"], classes["training"], classes["new"], strict=True),
        key=lambda c: abs(c[2] - c[1]),
    )
    return (
        f"Class balance: {_words(classes['level'], classes['psi'])}; {moved[0]} moved most, from "
        f"{100 * moved[1]:.1f} % to {100 * moved[2]:.1f} % of the pixels."
    )


def _champion_verdicts(champion: Mapping[str, Mapping[str, float | None]] | None) -> list[str]:
    lines = []
    for name, words in (("score", "score"), ("ece", "expected calibration error")):
        values = (champion or {}).get(name) or {}
        frozen, new = values.get("frozen"), values.get("new")
        if frozen is not None and new is not None:
            change = 100 * (new - frozen)
            side = "more" if change >= 0 else "less"
            lines.append(
                f"The champion's {words} is {100 * new:.1f} % on the new batch and {100 * frozen:.1f} % on the frozen "
                f"test set: {abs(change):.1f} points {side}."
            )
    return lines
