"""Stratified assignment of units to splits, so that class pixels and numbers of groups are close to the fractions.

Similar to Sechidis et al. 2011 (ECML PKDD, iterative stratification) and scikit-learn's StratifiedGroupKFold: the
largest units first, each to the split where it reduces the deviation most; then single moves and swaps as long as they
reduce it. The deviation is the squared difference from the fractions, summed over classes and number of groups.
"""

from collections.abc import Sequence

import numpy as np

# number of units up to which swaps are tried; with more units, single moves are sufficient
_SWAPS_UP_TO = 300
_GAIN = 1e-12


def _weights(total: np.ndarray) -> np.ndarray:
    """Weights: groups (last column) count as much as all classes together; absent classes have weight 0."""
    weights = np.zeros(len(total))
    classes = np.flatnonzero(total[:-1] > 0)
    weights[classes] = 1 / max(len(classes), 1)
    weights[-1] = 1.0
    return weights


def stratify(units: np.ndarray, fractions: Sequence[float], present: np.ndarray) -> np.ndarray:
    """Choose a split for each unit.

    Args:
        units: (n, k) pixels of each class and, last, the number of groups of each unit; ties are broken by order.
        fractions: s target fractions that sum to 1.
        present: (s, k) pixels and groups that are already in each split.

    Returns:
        (n,) indices of splits. A split with a fraction above 0 is not empty if there are enough units.
    """
    total = units.sum(axis=0) + present.sum(axis=0)
    scale = np.sqrt(_weights(total)) / np.maximum(total, 1)
    x, base = units * scale, present * scale
    target = np.asarray(fractions, float)[:, None]
    chosen = np.full(len(x), -1)
    open_ = np.asarray(fractions) > 0
    # (s, k) excess of each split over its fraction of everything assigned so far
    off = base - target * base.sum(axis=0)
    for unit in np.argsort(-np.linalg.norm(x, axis=1).round(12), kind="stable"):
        off -= target * x[unit]
        # the part of the increase in deviation that differs between splits
        cost = off @ x[unit]
        chosen[unit] = int(np.argmin(np.where(open_, cost.round(15), np.inf)))
        off[chosen[unit]] += x[unit]
    has_groups = present[:, -1] > 0
    _fill(x, chosen, off, open_ & ~has_groups)
    _refine(x, chosen, off, open_, has_groups)
    return chosen


def _move(x: np.ndarray, chosen: np.ndarray, off: np.ndarray, unit: int, to: int) -> None:
    off[chosen[unit]] -= x[unit]
    off[to] += x[unit]
    chosen[unit] = to


def _move_costs(x: np.ndarray, chosen: np.ndarray, off: np.ndarray) -> np.ndarray:
    """(n, s) change of the deviation if a unit is moved to a split."""
    square = (x**2).sum(axis=1)
    along = x @ off.T
    leave = square - 2 * along[np.arange(len(x)), chosen]
    costs = square[:, None] + 2 * along + leave[:, None]
    costs[np.arange(len(x)), chosen] = 0
    return np.asarray(costs)


def _fill(x: np.ndarray, chosen: np.ndarray, off: np.ndarray, needy: np.ndarray) -> None:
    """Move to each empty `needy` split the unit with the lowest cost, from a split that keeps at least one unit."""
    for split in np.flatnonzero(needy):
        counts = np.bincount(chosen, minlength=len(off))
        spare = (counts[chosen] > 1) | (~needy)[chosen]
        if counts[split] == 0 and spare.any():
            costs = np.where(spare, _move_costs(x, chosen, off)[:, split].round(15), np.inf)
            _move(x, chosen, off, int(np.argmin(costs)), int(split))


def _refine(
    x: np.ndarray, chosen: np.ndarray, off: np.ndarray, open_: np.ndarray, has_groups: np.ndarray
) -> None:
    """Apply moves and swaps, the best first, until none reduces the deviation."""
    n = len(x)
    for _ in range(2 * n if n <= _SWAPS_UP_TO else 100):
        counts = np.bincount(chosen, minlength=len(off))
        costs = _move_costs(x, chosen, off)
        stuck = (counts[chosen] <= 1) & ~has_groups[chosen] & open_[chosen]
        costs[:, ~open_] = np.inf
        costs[stuck] = np.inf
        best = int(np.argmin(costs.round(15)))
        gain = costs.ravel()[best]
        pair: tuple[int, int] | None = None
        if n <= _SWAPS_UP_TO:
            along = x @ off.T
            own = along[np.arange(n), chosen]
            # (i, j): unit i with the split of unit j
            cross = along[:, chosen]
            apart = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
            swaps = 2 * (apart + cross + cross.T - own[:, None] - own[None])
            swaps[chosen[:, None] == chosen[None]] = np.inf
            at = int(np.argmin(swaps.round(15)))
            if swaps.ravel()[at] < gain:
                gain, pair = swaps.ravel()[at], (at // n, at % n)
        if not gain < -_GAIN:
            return
        if pair is None:
            _move(x, chosen, off, best // len(off), best % len(off))
        else:
            first, second = chosen[pair[0]], chosen[pair[1]]
            _move(x, chosen, off, pair[0], int(second))
            _move(x, chosen, off, pair[1], int(first))
