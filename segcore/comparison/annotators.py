"""What several annotators of the same images say of a comparison: how far they agree, and each network against each."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from segcore.comparison.cluster_sums import cluster_sums, seed_scores
from segcore.comparison.text import listed, value_text

# printed name -> score
_SCORES = {"IoU": "iou/dataset/foreground_mean", "Dice": "dice/dataset/foreground_mean"}


def pooled(table: pd.DataFrame, foreground: list[int]) -> dict[str, float]:
    """Foreground means of IoU and Dice over pooled pixels, in [0, 1], of an evaluation table, by printed name."""
    found = seed_scores([cluster_sums(table, foreground)], list(_SCORES.values()))
    return {name: float(found[key][0]) for name, key in _SCORES.items()}


def agreement(pairs: Mapping[tuple[str, str], pd.DataFrame], foreground: list[int]) -> str:
    """Sentence on the agreement of annotators, the mean over all pairs: the ceiling of any score against one of them.

    Args:
        pairs: evaluation table of each annotator against each other, once per pair.
        foreground: indices of the foreground classes.
    """
    each = [pooled(table, foreground) for table in pairs.values()]
    means = [f"{name} {value_text(float(np.mean([one[name] for one in each])))} %" for name in _SCORES]
    annotators = list(dict.fromkeys(name for pair in pairs for name in pair))
    return (
        f"Agreement of the annotators ({listed(annotators)}), the mean over {len(pairs)} "
        f"pair{'s' * (len(pairs) > 1)}: {' and '.join(means)} of the foreground. A network is not expected to "
        "reach more against one of them. Their rows are scores against the majority of the others."
    )


def against_each(title: str, runs: Sequence[Mapping[str, pd.DataFrame]], foreground: list[int]) -> str:
    """Sentence on the scores of a network against each annotator, means of the seeds.

    Args:
        title: of the network.
        runs: per seed, an evaluation table by annotator.
        foreground: indices of the foreground classes.
    """
    texts, values = [], []
    for annotator in runs[0]:
        scores = [pooled(run[annotator], foreground)["IoU"] for run in runs]
        values.append(float(np.mean(scores)))
        texts.append(f"{annotator} {value_text(values[-1])}")
    return f"{title} against each annotator, IoU: {listed(texts)} %, mean {value_text(float(np.mean(values)))} %."


def pair_names(annotators: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of annotators."""
    return list(combinations(annotators, 2))
