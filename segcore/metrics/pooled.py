"""Sums of objects and average precision of several runs, with a weight for each cluster of images."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from segcore.metrics.average_precision import average_precision, joined
from segcore.metrics.object_sums import NAMES, ObjectRun, by_cluster
from segcore.metrics.objects import THRESHOLDS


class Pooled(Mapping[str, np.ndarray]):
    """Sums over the clusters of several runs, by name, each (B, K) or (K,), computed when they are first read."""

    def __init__(
        self, runs: Sequence[ObjectRun], clusters: np.ndarray, number: int, weights: Sequence[np.ndarray]
    ) -> None:
        """Pool runs on the same images.

        Args:
            runs: one or several.
            clusters: (I,) index of each image's cluster.
            number: of clusters, C.
            weights: of each run's clusters, (B, C).
        """
        self.runs, self.clusters, self.number, self.weights = runs, clusters, number, weights
        self._sums: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._sums:
            self._sums |= self._ap(name) if name.startswith("ap_") else {name: self._sum(name)}
        return self._sums[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)

    def image_mean(
        self, function: Callable[[Mapping[str, np.ndarray]], np.ndarray], images: str = ""
    ) -> np.ndarray:
        """Weighted mean of a function's values of single images, (B, K); the pooled value where no image counts.

        Args:
            function: takes sums (..., K) and returns values (..., K).
            images: name of a sum; images of a class count where it is above 0. Empty: all count.
        """
        total: np.ndarray | float = 0.0
        number: np.ndarray | float = 0.0
        for run, weights in zip(self.runs, self.weights, strict=True):
            values = function(run)
            counted = run[images] > 0 if images else np.ones(values.shape, bool)
            total = total + weights @ self._by_cluster(np.where(counted, values, 0.0))
            number = number + weights @ self._by_cluster(counted)
        none = np.asarray(number == 0)
        means = total / np.where(none, 1.0, number)
        return np.where(none, function(self), means) if none.any() else means

    def _by_cluster(self, values: np.ndarray) -> np.ndarray:
        return by_cluster(values, self.clusters, self.number)

    def _sum(self, name: str) -> np.ndarray:
        total: np.ndarray | float = 0.0
        for run, weights in zip(self.runs, self.weights, strict=True):
            total = total + weights @ self._by_cluster(run[name])
        return np.asarray(total)

    def _ap(self, name: str) -> dict[str, np.ndarray]:
        """Average precision at all thresholds."""
        capped = name.startswith("ap_coco")
        if capped and not any(run.is_capped() for run in self.runs):
            return {f"ap_coco_{percent}": self[f"ap_{percent}"] for percent in THRESHOLDS}
        weights = np.concatenate(self.weights, axis=1)
        rankings = [run.rankings(capped, self.clusters, self.number) for run in self.runs]
        # (K, T, B)
        values = [average_precision(joined(each), weights) for each in zip(*rankings, strict=True)]
        prefix = "ap_coco" if capped else "ap"
        return {
            f"{prefix}_{percent}": np.stack([of_class[index] for of_class in values], axis=-1)
            for index, percent in enumerate(THRESHOLDS)
        }
