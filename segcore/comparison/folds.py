"""Cross-validation in a comparison: the evaluations of a round of folds are one evaluation of all test images."""

from collections.abc import Sequence

import pandas as pd

from segcore.comparison.text import listed


def rounds(seeds: Sequence[int], folds: int | None) -> list[list[int]]:
    """Seeds by round: a round has one seed of each fold, in the order of the folds; without folds each seed is one.

    Args:
        seeds: as many of each fold; seed s is of fold s mod K.
        folds: K; None: no cross-validation.
    """
    if folds is None:
        return [[seed] for seed in seeds]
    of_fold = [[seed for seed in seeds if seed % folds == fold] for fold in range(folds)]
    return [list(each) for each in zip(*of_fold, strict=True)]


def pooled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of the images of all folds of a round, sorted by image; that of a single evaluation stays as it is.

    Args:
        tables: evaluation, object or surface tables, with the column `item`.
    """
    if len(tables) == 1:
        return tables[0]
    return pd.concat(tables).sort_values("item", kind="stable", ignore_index=True)


def words(folds: int, rounds_of_folds: int) -> str:
    """Such as "5 folds" or "5 folds, 2 rounds"."""
    return f"{folds} folds" + (f", {rounds_of_folds} rounds" if rounds_of_folds > 1 else "")


def note(folds: int, rounds_of_folds: int, cluster_kind: str, is_compared: bool) -> str:
    """What cross-validated scores, their intervals and their tests cover.

    Args:
        folds: K.
        rounds_of_folds: number of trainings per fold.
        cluster_kind: "block" or "group".
        is_compared: whether there are several architectures.
    """
    several = rounds_of_folds > 1
    covered = [f"the choice of test {cluster_kind}s", *(["of seeds"] if several else [])]
    how = "and tests " if is_compared else ""
    once = "once per round" if several else "once"
    means = f"; they are means over {rounds_of_folds} rounds" if several else ""
    return (
        f"Cross-validation with {folds} folds: each image is tested {once}, by a network that was trained without its "
        f"{cluster_kind}, and the scores pool all folds{means}. The networks of different folds share training "
        f"data: intervals {how}treat those of a round as one procedure and cover {listed(covered)}, but not "
        "of training data, whose variance cannot be estimated from folds without bias (Bengio and Grandvalet 2004)."
    )
