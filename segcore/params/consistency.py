"""Checks of settings in different sections that have to agree."""

from typing import TYPE_CHECKING

from segcore.params._data_checks import OBJECTS_REMEDY, did_you_mean
from segcore.params.architectures import instance_networks, semantic_networks
from segcore.params.folds import fill

if TYPE_CHECKING:
    from segcore.params.root import Params

# settings of semantic networks alone, and the values with which they do nothing
_SEMANTIC = ("loss", "class_weights", "postprocess")
_UNUSED = {"class_weights": "none", "postprocess": "none"}


def check(p: "Params") -> None:
    """Check that settings of different sections agree.

    Raises:
        ValueError: they do not; the text names the key and the remedy.
    """
    for one in _CHECKS:
        one(p)


def _spacing_is_of_whole_classes(p: "Params") -> None:
    if p.prepare.spacing and (p.data.has_objects or p.split.block):
        what = "data with objects" if p.data.has_objects else "split.block"
        raise ValueError(f"prepare.spacing is not possible with {what}: set it to null")


def _seeds_fill_the_folds(p: "Params") -> None:
    folds = p.split.folds
    if folds and not fill(p.seeds, folds):
        raise ValueError(
            f"seeds: {p.seeds} do not train each of the {folds} folds of split.folds equally often (seed s "
            f"trains fold s mod {folds}): set seeds: {list(range(folds))}, or split.folds: null"
        )


def _instance_networks_have_objects(p: "Params") -> None:
    found = [name for name in p.architectures if name in instance_networks()]
    if found and not p.data.has_objects:
        others = [name for name in p.architectures if name not in found]
        only = f"architectures: [{', '.join(others or semantic_networks())}]"
        raise ValueError(
            f"architectures: {found[0]} is an instance network, but the data have no objects: {OBJECTS_REMEDY}, or "
            f"compare semantic networks alone: {only}"
        )
    if found and p.evaluate.flips:
        raise ValueError(
            f"evaluate.flips: true is not possible with {found[0]}, because objects of mirror images cannot be "
            "averaged: set it to false"
        )


def _semantic_settings_have_semantic_networks(p: "Params") -> None:
    instance = [name for name in p.architectures if name in instance_networks()]
    for name in instance:
        for key in _SEMANTIC:
            value = p.train.get(name, {}).get(key)
            if value not in (None, _UNUSED.get(key)):
                raise ValueError(
                    f"train.{name}.{key}: {value} is for semantic networks, and {name} is an instance network: "
                    "remove it, or set it to null"
                )
    if len(instance) < len(p.architectures):
        return
    for key, unused in _UNUSED.items():
        value = p.train.get("common", {}).get(key, unused)
        if value != unused:
            raise ValueError(
                f"train.common.{key}: {value} is for semantic networks, and architectures has none: "
                f"set it to {unused}, or add one of {', '.join(semantic_networks())}"
            )


def _ensembles_have_several_networks(p: "Params") -> None:
    if not p.evaluate.ensemble:
        return
    # its seeds are of different training parts, so that an ensemble over them has seen every item
    if p.split.folds:
        raise ValueError(
            "evaluate.ensemble: true is not possible with split.folds: each seed is trained on the test items of "
            "others: set one of the two to false or null"
        )
    if not set(p.architectures) & set(semantic_networks()):
        raise ValueError(
            "evaluate.ensemble: true averages semantic networks, and architectures has none: objects of several "
            "networks have no mean: set it to false"
        )
    if not p.ensembles:
        raise ValueError(
            "evaluate.ensemble: true averages several networks, and there is one semantic architecture with one "
            "seed: name more seeds or architectures, or set it to false"
        )


def _metric_has_objects(p: "Params") -> None:
    if problem := p.compare.lacks_objects(p.data.has_objects, p.evaluate):
        raise ValueError(problem)


def _floors_are_of_classes_or_slices(p: "Params") -> None:
    for key in p.gate.floors:
        # The texts of slices are known once the data are prepared.
        if key not in p.data.classes and "=" not in key:
            raise ValueError(
                f"gate.floors: {key!r} is neither a class nor a slice (word=text)"
                f"{did_you_mean(key, p.data.classes) or ';'} "
                f"classes: {', '.join(p.data.classes)}"
            )


def _limits_of_differences_fit_the_metric(p: "Params") -> None:
    for key in ("margin", "not_worse"):
        value = getattr(p.gate, key)
        if p.compare.is_bounded and value >= 1:
            raise ValueError(
                f"gate.{key}: {value:g} is not below 1: scores of {p.compare.metric} are between 0 and 1, so "
                "give 1 % as 0.01"
            )


def _floors_of_the_background_have_scores(p: "Params") -> None:
    background = p.data.background
    if background is None or not p.compare.is_of_foreground:
        return
    lacks = "no objects and no score" if p.compare.is_of_objects else "no score"
    for key in p.gate.floors:
        if key == background or (key not in p.data.classes and key.startswith(f"{background} ")):
            raise ValueError(
                f"gate.floors: {key!r} is of the background, which has {lacks} of "
                f"compare.metric {p.compare.metric}: remove it, or choose a metric of pixels"
            )


_CHECKS = (
    _spacing_is_of_whole_classes,
    _seeds_fill_the_folds,
    _instance_networks_have_objects,
    _semantic_settings_have_semantic_networks,
    _ensembles_have_several_networks,
    _metric_has_objects,
    _floors_are_of_classes_or_slices,
    _limits_of_differences_fit_the_metric,
    _floors_of_the_background_have_scores,
)
