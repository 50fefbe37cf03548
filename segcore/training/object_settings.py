"""How objects are found in predictions, chosen on the validation split at the end of a training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.inference.device import Precision
from segcore.inference.objects import predict_objects
from segcore.inference.tiling import predict_with_touching
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.find import FindSettings, classes_and_scores, number_maps
from segcore.training.object_matches import SCORES, matched, true_objects, usual_side, window_overlap

# Of equal ones the first is chosen: components first, then the watersheds that divide them least.
_DEPTHS = {"distance": (4.0, 2.0, 1.0, 0.5), "probability": (0.2, 0.1, 0.05)}
_CANDIDATES = [
    FindSettings(),
    *(FindSettings("watershed", seeds=s, depth=d) for s, depths in _DEPTHS.items() for d in depths),  # type: ignore[arg-type]
]
# where the validation split gives nothing to choose by
_DEFAULTS = {"components": FindSettings(score=0.5), "watershed": FindSettings("watershed", 0.5)}
_OF_NETWORK = {"network": FindSettings("network", 0.5)}
# model.json is limited in size: with more clusters and classes, some clusters share a pair of counts
_MOST_COUNTS = 2000


def choose_objects(
    model: SegmentationModel, data: PreparedData, tile: int, precision: Precision
) -> dict[str, Any] | None:
    """The entry `objects` of model.json: the settings with the highest F1 on the validation split.

    Those of both methods for a semantic network; the score of "network" for an instance network, which finds objects
    itself.

    F1 is of all foreground classes together, at an IoU above 0.5. A predicted object with more than half of its pixels
    ignored does not count, nor does a true one with at most half of its area in the region, or what matches it.

    Args:
        model: trained, on its device.
        data: prepared data.
        tile: side of the windows in pixels.
        precision: of the predictions.

    Returns:
        truth, touching, classes and side (95 % quantile of the longer box side of training objects in pixels); per
        method score, f1, precision, recall, count_bias (predicted / true - 1) and counts (true and predicted objects
        per class and cluster), for "watershed" also seeds and depth. None: the data have no objects.
    """
    if data.truth_of_objects == "none":
        return None
    if isinstance(model, InstanceModel):
        defaults, candidates = _OF_NETWORK, [FindSettings("network")]
        found = _of_network(model, data, tile, precision)
    else:
        assert isinstance(model, SemanticModel)
        defaults, candidates = _DEFAULTS, _CANDIDATES
        found = _compared(model, data, tile, precision)
    names = {index: data.classes[index] for index in data.foreground}
    entry: dict[str, Any] = {
        "truth": data.truth_of_objects,
        "touching": model.touching,
        "classes": data.foreground,
        "side": usual_side(data),
    }
    for method, default in defaults.items():
        chosen = found.best([s for s in candidates if s.method == method]) or default
        if method == "watershed":
            entry[method] = {"seeds": chosen.seeds, "depth": chosen.depth, **found.facts(chosen, names)}
        else:
            entry[method] = found.facts(chosen, names)
    return entry


def text(entry: dict[str, Any]) -> str:
    """What was chosen and its scores on the validation split, as one line."""
    methods = [method for method in (*_DEFAULTS, *_OF_NETWORK) if method in entry]
    if not any(true for of_class in entry[methods[0]]["counts"].values() for true, _ in of_class):
        return (
            "objects: the validation split has no object, so that nothing is chosen on it: the score is 0.5"
        )
    parts = []
    for method in methods:
        facts = entry[method]
        if not facts["f1"]:
            parts.append(f"no true object is found by {method}, so that nothing is chosen: the score is 0.5")
            continue
        name = f"{method} ({facts['seeds']}, depth {facts['depth']:g})" if "seeds" in facts else method
        parts.append(
            f"{name} at score {facts['score']:g}: F1 {facts['f1']:.3f}, precision {facts['precision']:.3f}, "
            f"recall {facts['recall']:.3f}, count bias {facts['count_bias']:+.1%}"
        )
    cause = "; usually it was trained for too few steps" * any(not entry[method]["f1"] for method in methods)
    return f"objects: {'; '.join(parts)}{cause}"


@dataclass
class _Found:
    """Objects of the validation split.

    Attributes:
        truths: a row per true object that is required: cluster, class_index.
        predictions: per candidate a row per predicted object that counts: cluster, class_index, score, hit.
        clusters: all of the split, sorted.
    """

    truths: pd.DataFrame
    predictions: dict[FindSettings, pd.DataFrame]
    clusters: list[str]

    def best(self, candidates: Sequence[FindSettings]) -> FindSettings | None:
        """The candidate and score of the highest F1, of equal ones the first; None if nothing true is found."""
        best, highest = None, 0.0
        for candidate in candidates:
            for score in SCORES:
                f1 = self._scores(candidate, score)["f1"]
                if f1 > highest:
                    best, highest = replace(candidate, score=score), f1
        return best

    def _kept(self, candidate: FindSettings, score: float) -> pd.DataFrame:
        of_candidate = self.predictions[replace(candidate, score=0.0)]
        # of the dtype of scores, as `find` compares them
        return of_candidate[of_candidate["score"] >= np.float32(score)]

    def _scores(self, candidate: FindSettings, score: float) -> dict[str, float]:
        kept, true = self._kept(candidate, score), len(self.truths)
        hits, predicted = int(kept["hit"].sum()), len(kept)
        return {
            "f1": 2 * hits / max(true + predicted, 1),
            "precision": hits / max(predicted, 1),
            "recall": hits / max(true, 1),
            "count_bias": predicted / true - 1 if true else 0.0,
        }

    def facts(self, chosen: FindSettings, names: dict[int, str]) -> dict[str, Any]:
        """The entry of a method in model.json."""
        kept = self._kept(chosen, chosen.score)
        scores = {key: round(value, 6) for key, value in self._scores(chosen, chosen.score).items()}
        groups = min(len(self.clusters), max(_MOST_COUNTS // max(len(names), 1), 1))
        group_of = {cluster: place % groups for place, cluster in enumerate(self.clusters)}
        counts = {}
        for index, name in names.items():
            of_class = [table.loc[table["class_index"] == index, "cluster"] for table in (self.truths, kept)]
            pairs = [
                np.bincount(clusters.map(group_of).astype(int), minlength=groups) for clusters in of_class
            ]
            counts[name] = np.stack(pairs, axis=1).tolist()
        return {"score": round(chosen.score, 6), **scores, "counts": counts}


def _of_network(model: InstanceModel, data: PreparedData, tile: int, precision: Precision) -> _Found:
    """Objects of every validation region by an instance network."""
    regions = data.regions[data.regions["split"] == "validation"].sort_values("id")
    overlap, truths, predictions = window_overlap(data, tile), [], []
    for region in regions.itertuples():
        patch = data.read_input(region.id, instances=True)
        truth = true_objects(patch, data, region.item)
        truths.append(truth.rows().assign(cluster=region.cluster))
        found = predict_objects(model, patch, tile, overlap, precision)
        kept, hit, _ = matched(truth, found.numbers(), found.classes, patch.label != IGNORE)
        rows = pd.DataFrame({"class_index": found.classes, "score": found.scores, "hit": hit})
        predictions.append(rows[kept].assign(cluster=region.cluster))
    tables = {FindSettings("network"): pd.concat(predictions, ignore_index=True)}
    return _Found(pd.concat(truths, ignore_index=True), tables, sorted(set(regions["cluster"])))


def _compared(model: SemanticModel, data: PreparedData, tile: int, precision: Precision) -> _Found:
    """Objects of every validation region by every candidate; a region is predicted once."""
    regions = data.regions[data.regions["split"] == "validation"].sort_values("id")
    truths, predictions = [], {candidate: list[pd.DataFrame]() for candidate in _CANDIDATES}
    for region in regions.itertuples():
        patch = data.read_input(region.id, instances=True)
        probabilities, touching = predict_with_touching(model, patch, tile, min(64, tile // 4), precision)
        classes = probabilities.argmax(0).astype(np.uint8)
        classes[~patch.valid] = IGNORE
        scored = patch.label != IGNORE
        truth = true_objects(patch, data, region.item)
        truths.append(truth.rows().assign(cluster=region.cluster))
        maps = number_maps(probabilities, classes, data.foreground, _CANDIDATES, touching)
        for candidate, numbers in zip(_CANDIDATES, maps, strict=True):
            of_object, scores = classes_and_scores(numbers, probabilities, classes)
            kept, hit, _ = matched(truth, numbers, of_object, scored)
            found = {"class_index": of_object, "score": scores.astype(np.float32), "hit": hit}
            predictions[candidate].append(pd.DataFrame(found)[kept].assign(cluster=region.cluster))
    tables = {candidate: pd.concat(parts, ignore_index=True) for candidate, parts in predictions.items()}
    return _Found(pd.concat(truths, ignore_index=True), tables, sorted(set(regions["cluster"])))
