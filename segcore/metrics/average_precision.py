"""Average precision of weighted images, exact: no binning of scores.

A prediction has the weight of its image's cluster: 0 where the cluster is not drawn, 2 where it is drawn twice.
Weighted cumulative sums along the falling scores then equal those of the resampled images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# recall at which precision is read, as in pycocotools
RECALLS = np.linspace(0.0, 1.0, 101)
# draws times predictions in memory at a time
_CHUNK = 250_000


@dataclass(frozen=True)
class Ranking:
    """Predictions of one class from the highest score.

    Attributes:
        score: (N,) falling; item, number: (N,) by which predictions of equal score are ordered.
        column: (N,) column of each prediction's cluster.
        states: threshold index -> (N,) int8: 1 right, 0 wrong, 2 neither.
        true: (C,) true objects of each column.
    """

    score: np.ndarray
    item: np.ndarray
    number: np.ndarray
    column: np.ndarray
    states: Sequence[np.ndarray]
    true: np.ndarray

    def of_column(self, places: np.ndarray, column: int) -> "Ranking":
        """The ranking of one column alone, from the places of its predictions."""
        score, item, number = self.score[places], self.item[places], self.number[places]
        states = [state[places] for state in self.states]
        return Ranking(score, item, number, np.zeros(len(places), int), states, self.true[column, None])


def joined(rankings: Sequence[Ranking]) -> Ranking:
    """The rankings of several runs as one; columns of the second follow those of the first, and so on."""
    if len(rankings) == 1:
        return rankings[0]
    starts = np.cumsum([0, *(len(one.true) for one in rankings)])
    score, item, number = (
        np.concatenate([getattr(one, name) for one in rankings]) for name in ("score", "item", "number")
    )
    by = np.lexsort((number, item, -score))
    columns = [one.column + start for one, start in zip(rankings, starts, strict=False)]
    states = [np.concatenate(each)[by] for each in zip(*(one.states for one in rankings), strict=True)]
    true = np.concatenate([one.true for one in rankings])
    return Ranking(score[by], item[by], number[by], np.concatenate(columns)[by], states, true)


def average_precision(ranking: Ranking, weights: np.ndarray) -> np.ndarray:
    """Average precision at each threshold, (T, B).

    Without true objects it is 1 if nothing is predicted, and 0 otherwise.

    Args:
        ranking: predictions of one class.
        weights: (B, C) weight of each column's images, not negative.
    """
    result = np.empty((len(ranking.states), len(weights)))
    true = weights @ ranking.true
    for start, stop in _chunks(len(weights), len(ranking.score)):
        # (B, N)
        each = weights[start:stop][:, ranking.column]
        total = np.cumsum(each, axis=1)
        for index, state in enumerate(ranking.states):
            result[index, start:stop] = _areas(each, total, state, true[start:stop])
    return result


def _chunks(draws: int, predictions: int) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK // max(predictions, 1))
    for start in range(0, draws, step):
        yield start, min(start + step, draws)


def _areas(each: np.ndarray, total: np.ndarray, state: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Average precision of each row (B,) from weights and their sums up to each prediction, both (B, N)."""
    neither = np.flatnonzero(state == 2)
    right = np.flatnonzero(state == 1)
    # precision is highest at predictions that are right, so the envelope needs no others
    hits, counted = np.cumsum(each[:, right], axis=1), total[:, right]
    predicted = total[:, -1] if total.shape[1] else np.zeros(len(true))
    if len(neither):
        left_out = np.concatenate([np.zeros((len(each), 1)), np.cumsum(each[:, neither], axis=1)], axis=1)
        counted = counted - left_out[:, np.searchsorted(neither, right)]
        predicted = predicted - left_out[:, -1]
    precision = hits / np.where(counted > 0, counted, 1.0)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    recall = hits / np.where(true > 0, true, 1.0)[:, None]
    values = np.where(true > 0, 0.0, predicted == 0)
    for row in np.flatnonzero(true > 0) if len(right) else ():
        first = np.searchsorted(recall[row], RECALLS)
        values[row] = envelope[row, first[first < len(right)]].sum() / len(RECALLS)
    return values
