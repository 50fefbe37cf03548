"""Folds of a cross-validation and seeds: seed s trains fold s mod K.

The fold follows from the seed alone, so that adding seeds trains nothing anew.
"""

from collections.abc import Sequence


def fill(seeds: Sequence[int], folds: int) -> bool:
    """Whether the seeds train each fold equally often."""
    numbers = {sum(seed % folds == fold for seed in seeds) for fold in range(folds)}
    return len(numbers) == 1 and numbers != {0}
