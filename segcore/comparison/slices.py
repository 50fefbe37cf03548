"""Scores of slices: the test images with one text for a word of the data patterns, such as those of one site.

Intervals come from the cluster bootstrap of the whole comparison, on the clusters of the slice alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from segcore.comparison.cluster_sums import ClusterSums, cluster_sums, informative, seed_scores
from segcore.comparison.results import Comparison, LeaderboardRow, Score, Slice
from segcore.comparison.statistics import bootstrap, interval
from segcore.comparison.text import interval_text, value_text
from segcore.comparison.verdict import FEW_CLUSTERS
from segcore.metrics import METRICS, Metric
from segcore.metrics.matching import LeastScore
from segcore.params import Params
from segcore.tables.objects import required_classes
from segcore.tables.slices import slices_of
from segcore.tables.surfaces import true_classes

# texts of a word that are slices of their own; the rarer ones are pooled
MOST = 10
# words that are shown; a listing may have any number of columns
MOST_WORDS = 8


@dataclass(frozen=True)
class ScoredModel:
    """A model whose slices are scored.

    Attributes:
        tables: evaluation tables, one per seed.
        estimates: score key -> one value per seed, on all images.
        objects: per seed, the object table, or None, and the least score of a predicted object.
        limits: areas that divide small, medium and large objects; None without objects.
        surfaces: per seed, the surface table, or None.
    """

    tables: Sequence[pd.DataFrame]
    estimates: Mapping[str, np.ndarray]
    objects: Sequence[tuple[pd.DataFrame | None, LeastScore]]
    limits: tuple[float, float] | None = None
    surfaces: Sequence[pd.DataFrame | None] = ()

    def runs(self, images: set[str], foreground: Sequence[int], p: Params) -> list[ClusterSums]:
        """Sums over the clusters of some images, one per seed; with objects and surfaces only if they rank."""
        runs, metric = [], METRICS[p.compare.metric]
        for table, (of_objects, score), of_surfaces in zip(
            self.tables, self.objects, self.surfaces or [None] * len(self.tables), strict=True
        ):
            tables = (of_objects if metric.of_objects else None, score, self.limits)
            rows = table[table["item"].isin(images)]
            runs.append(cluster_sums(rows, foreground, *tables, of_surfaces if metric.of_surfaces else None))
        return runs


def slices(models: Mapping[str, ScoredModel], scored: Sequence[str], p: Params) -> list[Slice]:
    """Scores of all models in every slice; words in the order of the table, slices in the order of their texts.

    A word is left out if all images have the same text, or each of more than MOST images another one, such as a number.
    Of the others, the first MOST_WORDS are shown.

    Args:
        models: by architecture, all of the same images.
        scored: images with a valid pixel.
        p: parameters; `compare` and `data` are used.
    """
    found: list[Slice] = []
    first = next(iter(models.values())).tables[0]
    for word, by_image in slices_of(first).items():
        texts = {image: by_image[image] for image in scored if image in by_image}
        different = len(set(texts.values()))
        shown = {one.word for one in found}
        if different < 2 or different == len(texts) > MOST or len(shown) == MOST_WORDS:
            continue
        frequent, rare = _frequent(list(texts.values()))
        parts: list[tuple[str | None, set[str]]] = [(text, {text}) for text in frequent]
        for text, pooled in [*parts, *([(None, rare)] if rare else [])]:
            images = {image for image, own in texts.items() if own in pooled}
            found.append(_slice((word, text, len(pooled)), images, models, p))
    return found


def _frequent(texts: Sequence[str]) -> tuple[list[str], set[str]]:
    """The texts of most images, sorted, and the rarer ones; a single text is never pooled."""
    ranked = sorted(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))
    most = MOST if len(ranked) > MOST + 1 else len(ranked)
    return sorted(text for text, _ in ranked[:most]), {text for text, _ in ranked[most:]}


def _slice(
    name: tuple[str, str | None, int], images: set[str], models: Mapping[str, ScoredModel], p: Params
) -> Slice:
    """One slice; `name` is its word, its text, and the number of texts that are pooled."""
    first = next(iter(models.values()))
    table = first.tables[0]
    one = table[table["item"].isin(images)]
    present = _present(one, first.objects[0][0], next(iter(first.surfaces), None), p)
    word, text, pooled = name
    overall = [f"{p.compare.metric}/dataset/{p.data.classes[index]}" for index in present]
    mean_of_classes = METRICS[p.compare.metric].mean
    return Slice(
        word=word,
        text=text,
        pooled=pooled,
        images=len(images),
        clusters=one.loc[one["pixels"] > 0, "cluster"].nunique(),
        absent=[p.data.classes[index] for index in p.data.foreground if index not in present],
        scores={key: _score(each, images, present, p) for key, each in models.items() if present},
        overall={
            key: float(mean_of_classes(np.stack([model.estimates[k] for k in overall], axis=-1)).mean())
            for key, model in models.items()
            if present
        },
    )


def _present(
    counts: pd.DataFrame, of_objects: pd.DataFrame | None, of_surfaces: pd.DataFrame | None, p: Params
) -> list[int]:
    """Foreground classes with a true pixel; with a true object that must be found, or a true surface, if these rank."""
    if METRICS[p.compare.metric].of_surfaces and of_surfaces is not None:
        return [index for index in p.data.foreground if index in true_classes(of_surfaces, counts["item"])]
    if METRICS[p.compare.metric].of_objects and of_objects is not None:
        return [index for index in p.data.foreground if index in required_classes(of_objects, counts["item"])]
    truth = counts.groupby("class_index")[["tp", "fn"]].sum().sum(axis=1)
    return [index for index in p.data.foreground if truth[index] > 0]


def _score(model: ScoredModel, images: set[str], foreground: Sequence[int], p: Params) -> Score:
    runs, key = model.runs(images, foreground, p), f"{p.compare.metric}/dataset/foreground_mean"
    values = seed_scores(runs, [key])[key]
    low = high = None
    if max(informative(run, key) for run in runs) > 1:
        draws = bootstrap(runs, p.compare.bootstrap, p.compare.seed, [key])[key]
        low, high = interval(draws, p.compare.confidence)
    return Score(float(values.mean()), low, high, float(values.std(ddof=1)) if len(values) > 1 else None)


def worst_slice(comparison: Comparison) -> str:
    """Sentence on the slice where the best model is worst; "" unless its whole interval is worse than on all images."""
    best, metric = comparison.models[0], METRICS[comparison.metric]
    named = [one for one in comparison.slices if one.text is not None and best.architecture in one.scores]

    def gap(one: Slice) -> float:
        here, everywhere = one.scores[best.architecture].estimate, one.overall[best.architecture]
        return float(metric.sign * (metric.compared(here) - metric.compared(everywhere)))

    worse = [one for one in named if _is_worse(one, best, metric)]
    if not worse:
        return ""
    worst, unit = min(worse, key=gap), metric.unit
    score = worst.scores[best.architecture]
    reach = f"{100 * comparison.confidence:g} % interval {interval_text(score.low, score.high, unit)}"
    few = worst.clusters < FEW_CLUSTERS
    narrow = f", likely too narrow with {worst.clusters} {comparison.cluster_kind}s" if few else ""
    most = "one," if len(worse) == 1 else f"{len(worse)}, most"
    classes = " for the same classes" if worst.absent else ""
    return (
        f"Of {len(named)} slices of the test images, {best.title} is shown to be worse in {most} where {worst.word} is "
        f"{worst.text}: {metric.title} {value_text(score.estimate, unit)} {unit} ({reach}{narrow}), against "
        f"{value_text(worst.overall[best.architecture], unit)} {unit}{classes} on all test images."
    )


def _is_worse(one: Slice, model: LeaderboardRow, metric: Metric) -> bool:
    """Whether the whole interval of a slice is worse than the model's score on all images."""
    score, overall = one.scores[model.architecture], one.overall[model.architecture]
    if score.low is None or score.high is None:
        return False
    if metric.is_signed:
        nearest = 0.0 if score.low <= 0 <= score.high else min(abs(score.low), abs(score.high))
        return nearest > abs(overall)
    return score.high < overall if metric.higher_is_better else score.low > overall
