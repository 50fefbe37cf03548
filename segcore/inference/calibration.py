"""Calibration: is a prediction of confidence 0.9 right nine times in ten (Guo et al. 2017, arXiv 1706.04599)."""

from typing import Any

import numpy as np
from torch import Tensor

from segcore.constants import IGNORE, SMALLEST_PROBABILITY


def confidence(probabilities: Tensor, temperature: float) -> Tensor:
    """Probability of the most probable class after temperature scaling; the class stays the same.

    Of the logits of one window, it is that of softmax(logits / temperature). Where windows or flips are averaged, it
    is that of the mean probabilities: softmax(log(probabilities) / temperature). Of logits that differ by more than 87,
    the lower one counts as 87 below, because its probability is below every float32.

    Args:
        probabilities: (K, ...) float32 with a sum of 1 over the first axis.
        temperature: of a bundle's model.json; above 1 for a network that is too confident.

    Returns:
        (...) float32 in [0, 1].
    """
    return (log_probabilities(probabilities) / temperature).softmax(dim=0).amax(dim=0)


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Logarithms of probabilities, finite also for 0."""
    return probabilities.clamp_min(SMALLEST_PROBABILITY).log()


class Calibration:
    """Confidence and accuracy of the predicted class, accumulated by region in bins `(a, b]` of equal width."""

    def __init__(self, bins: int = 15) -> None:
        self.count = np.zeros(bins, dtype=np.int64)
        self.correct = np.zeros(bins, dtype=np.int64)
        self.confidence = np.zeros(bins)

    def update(self, probabilities: np.ndarray, label: np.ndarray) -> None:
        """Add the valid pixels of a region: probabilities `(K, H, W)` in [0, 1], label `(H, W)` with IGNORE."""
        self.add(probabilities.max(0), probabilities.argmax(0), label)

    def add(self, confidence: np.ndarray, prediction: np.ndarray, label: np.ndarray) -> None:
        """Add the valid pixels of a region: (H, W) confidence in [0, 1], predicted class, and label with IGNORE."""
        valid = label != IGNORE
        confidence = confidence[valid].astype(np.float64)
        correct = prediction[valid] == label[valid]
        bins = len(self.count)
        index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        self.count += np.bincount(index, minlength=bins)
        self.correct += np.bincount(index[correct], minlength=bins)
        self.confidence += np.bincount(index, weights=confidence, minlength=bins)

    def result(self) -> dict[str, Any]:
        """Lists "confidence", "accuracy", "count" (pixels), 0 in empty bins, and "ece" in [0, 1]."""
        pixels = np.maximum(self.count, 1)
        confidence, accuracy = self.confidence / pixels, self.correct / pixels
        gaps = self.count * np.abs(accuracy - confidence)
        return {
            "confidence": confidence.tolist(),
            "accuracy": accuracy.tolist(),
            "count": self.count.tolist(),
            "ece": float(gaps.sum() / max(self.count.sum(), 1)),
        }
