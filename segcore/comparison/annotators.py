"""What several annotators of the same images say of a comparison: how far they agree, and each network against each."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from segcore.comparison.cluster_sums import cluster_sums, seed_scores
from segcore.comparison.results import AnnotatorsSummary, Comparison, Score
from segcore.comparison.statistics import bootstrap, interval
from segcore.comparison.text import interval_text, listed, value_text
from segcore.metrics import METRICS
from segcore.params import Params

# in place of an architecture: the majority of all annotators, as a perfect network would predict it
MAJORITY = "majority"
# metrics of pixels that are the same from one annotator to another and back; others are replaced by the first
_SYMMETRIC = ("iou", "dice", "boundary_f1")


def pair_names(annotators: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of annotators."""
    return list(combinations(annotators, 2))


def summary(
    pairs: Mapping[tuple[str, str], pd.DataFrame],
    models: Mapping[str, Sequence[Mapping[str, pd.DataFrame]]],
    p: Params,
) -> AnnotatorsSummary:
    """Agreement of all pairs, and scores of each network against each annotator, with intervals.

    Args:
        pairs: evaluation table of each annotator against each other, once per pair.
        models: architecture, or MAJORITY -> per seed, an evaluation table by annotator.
        p: parameters; `compare` and `data` are used.
    """
    metric = p.compare.metric if p.compare.metric in _SYMMETRIC else _SYMMETRIC[0]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))

    def scored(*tables: Sequence[pd.DataFrame]) -> Score:
        return _mean_score(tables, f"{metric}/dataset/foreground_mean", p)

    return AnnotatorsSummary(
        metric=metric,
        scores={
            name: {model: scored([run[name] for run in runs]) for model, runs in models.items()}
            for name in names
        },
        mean={
            model: scored(*([run[name] for run in runs] for name in names)) for model, runs in models.items()
        },
        others={name: scored(*([table] for pair, table in pairs.items() if name in pair)) for name in names},
        agreement=scored(*([table] for table in pairs.values())),
    )


def _mean_score(tables: Sequence[Sequence[pd.DataFrame]], key: str, p: Params) -> Score:
    """The mean of scores, whose draws with the same index resample the same clusters.

    Args:
        tables: of each score, the evaluation tables of its seeds.
        key: a score key.
        p: parameters; `compare` and `data` are used.
    """
    runs = [[cluster_sums(table, p.data.foreground) for table in seeds] for seeds in tables]
    values = np.mean([seed_scores(seeds, [key])[key] for seeds in runs], axis=0)
    options = p.compare.bootstrap, p.compare.seed, [key]
    draws = np.mean([bootstrap(seeds, *options)[key] for seeds in runs], axis=0)
    # one cluster tells nothing of others
    ends = interval(draws, p.compare.confidence) if len(runs[0][0].clusters) > 1 else (0.0, 1.0)
    return Score(float(values.mean()), *ends, float(values.std(ddof=1)) if len(values) > 1 else None)


def agreement_text(comparison: Comparison) -> str:
    """Sentence on the agreement of annotators, and on the most to expect of a network; empty without several."""
    found = comparison.annotators
    if found is None:
        return ""
    mean, names = found.agreement, list(found.others)
    number = len(pair_names(names))
    reach = f"{comparison.confidence * 100:g} % interval {interval_text(mean.low, mean.high)}"
    return (
        f"Agreement of the annotators ({listed(names)}), the mean {METRICS[found.metric].title} of "
        f"{'all ' * (number > 1)}{number} pair{'s' * (number > 1)}: {value_text(mean.estimate)} % ({reach}). "
        f"Their majority reaches {value_text(found.mean[MAJORITY].estimate)} % against each, on average: about the "
        "most that a network can reach."
    )


def lines(comparison: Comparison) -> list[str]:
    """The agreement, and a sentence on each network against each annotator; empty without several."""
    found = comparison.annotators
    if found is None:
        return []
    title, text = METRICS[found.metric].title, [agreement_text(comparison)]
    for row in comparison.models:
        each = [f"{name} {value_text(of[row.architecture].estimate)}" for name, of in found.scores.items()]
        mean = value_text(found.mean[row.architecture].estimate)
        text.append(f"{row.title} against each annotator, {title}: {listed(each)} %, mean {mean} %.")
    return text
