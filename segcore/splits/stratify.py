"""Units of groups are spread over splits so that class pixels and numbers of groups come close to the fractions.

In the spirit of Sechidis et al. 2011 (ECML PKDD, iterative stratification) and of scikit-learn's
StratifiedGroupKFold: the most telling units first, each to where it lessens the deviation most; then single moves and
swaps as long as they help.
"""

from collections.abc import Sequence

import numpy as np

_SWAPS_UP_TO = 300  # units; beyond, single moves alone come close enough
_GAIN = 1e-12


def _weights(total: np.ndarray) -> np.ndarray:
    """Groups (last column) count as much as all classes together; what does not occur counts nothing."""
    weights = np.zeros(len(total))
    classes = np.flatnonzero(total[:-1] > 0)
    weights[classes] = 1 / max(len(classes), 1)
    weights[-1] = 1.0
    return weights


def stratify(units: np.ndarray, fractions: Sequence[float], present: np.ndarray) -> np.ndarray:
    """Choose a split for each unit.

    Args:
        units: (n, k) pixels of each class and, last, the number of groups of each unit; the order breaks ties.
        fractions: s target shares that sum to 1.
        present: (s, k) what the splits already hold, which stays where it is.

    Returns:
        (n,) indices of splits. A split with a share above 0 holds something as long as units suffice.
    """
    total = units.sum(axis=0) + present.sum(axis=0)
    scale = np.sqrt(_weights(total)) / np.maximum(total, 1)
    x, base = units * scale, present * scale
    share = np.asarray(fractions, float)[:, None]
    chosen = np.full(len(x), -1)
    open_ = np.asarray(fractions) > 0
    off = base - share * base.sum(axis=0)  # (s, k): what each split has too much of, of all placed so far
    for unit in np.argsort(-np.linalg.norm(x, axis=1).round(12), kind="stable"):
        off -= share * x[unit]
        cost = off @ x[unit]  # of the deviation's growth, the part that differs between splits
        chosen[unit] = int(np.argmin(np.where(open_, cost.round(15), np.inf)))
        off[chosen[unit]] += x[unit]
    held = present[:, -1] > 0
    _fill(x, chosen, off, open_ & ~held)
    _refine(x, chosen, off, open_, held)
    return chosen


def _move(x: np.ndarray, chosen: np.ndarray, off: np.ndarray, unit: int, to: int) -> None:
    off[chosen[unit]] -= x[unit]
    off[to] += x[unit]
    chosen[unit] = to


def _move_costs(x: np.ndarray, chosen: np.ndarray, off: np.ndarray) -> np.ndarray:
    """(n, s) change of the deviation if a unit moved to a split."""
    square = (x**2).sum(axis=1)
    along = x @ off.T
    leave = square - 2 * along[np.arange(len(x)), chosen]
    costs = square[:, None] + 2 * along + leave[:, None]
    costs[np.arange(len(x)), chosen] = 0
    return np.asarray(costs)


def _fill(x: np.ndarray, chosen: np.ndarray, off: np.ndarray, needy: np.ndarray) -> None:
    """Give every needy split that got nothing the unit whose move costs least, from splits that keep one."""
    for split in np.flatnonzero(needy):
        counts = np.bincount(chosen, minlength=len(off))
        spare = (counts[chosen] > 1) | (~needy)[chosen]
        if counts[split] == 0 and spare.any():
            costs = np.where(spare, _move_costs(x, chosen, off)[:, split].round(15), np.inf)
            _move(x, chosen, off, int(np.argmin(costs)), int(split))


def _refine(x: np.ndarray, chosen: np.ndarray, off: np.ndarray, open_: np.ndarray, held: np.ndarray) -> None:
    """Moves and swaps, the best first, until none lessens the deviation."""
    n = len(x)
    for _ in range(2 * n if n <= _SWAPS_UP_TO else 100):
        counts = np.bincount(chosen, minlength=len(off))
        costs = _move_costs(x, chosen, off)
        stuck = (counts[chosen] <= 1) & ~held[chosen] & open_[chosen]
        costs[:, ~open_] = np.inf
        costs[stuck] = np.inf
        best = int(np.argmin(costs.round(15)))
        gain = costs.ravel()[best]
        pair: tuple[int, int] | None = None
        if n <= _SWAPS_UP_TO:
            along = x @ off.T
            mine = along[np.arange(n), chosen]
            cross = along[:, chosen]  # (i, j): unit i against the split of unit j
            apart = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
            swaps = 2 * (apart + cross + cross.T - mine[:, None] - mine[None])
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
