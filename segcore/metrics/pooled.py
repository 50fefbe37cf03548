"""Sums of objects and average precision of several runs, with a weight for each cluster of images."""

from collections.abc import Iterator, Mapping, Sequence

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

    def _sum(self, name: str) -> np.ndarray:
        total: np.ndarray | float = 0.0
        for run, weights in zip(self.runs, self.weights, strict=True):
            total = total + weights @ by_cluster(run[name], self.clusters, self.number)
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
