"""Architectures by name: each module of segcore/models defines one.

Its function `build(in_channels, num_classes, *, ...)` makes a `SemanticModel`; the optional `resolved(keywords)` first
replaces keywords that are None by values that follow from others. A module with `KIND = "instance"` makes an
`InstanceModel` by `build(in_channels, num_classes, foreground, *, ...)`, and its function `fit(keywords, sizes)`
replaces each keyword "auto" by the value that fits the objects of the training data.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

from segcore import models, plugins
from segcore.errors import ModelError
from segcore.models.base.crf import Crf
from segcore.models.base.ensemble import Ensemble, require_alike
from segcore.models.base.model import SegmentationModel
from segcore.models.base.object_sizes import ObjectSizes
from segcore.models.base.semantic import SemanticModel
from segcore.names import ENSEMBLE, is_ensemble

__all__ = [
    "SegmentationModel",
    "architectures_of",
    "build_model",
    "check_keywords",
    "defaults",
    "ensemble",
    "fitted",
    "kind",
    "names",
    "rebuild_model",
]


def names() -> list[str]:
    """Names of all architectures, sorted."""
    return list(plugins.names(models.__name__))


def defaults(name: str) -> dict[str, Any]:
    """The keywords of an architecture with their default values.

    Raises:
        ModelError: unknown architecture.
    """
    parameters = inspect.signature(_module(name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_keywords(name: str, keywords: Iterable[str]) -> None:
    """Check that an architecture has these keywords.

    Raises:
        ModelError: unknown architecture, or it lacks one; the message lists those that it has.
    """
    known = defaults(name)
    for unknown in sorted(set(keywords) - known.keys()):
        raise ModelError(
            f"architecture {name} has no keyword {unknown!r}", f"choose among {', '.join(known)}", unknown
        )


def kind(name: str) -> Literal["semantic", "instance"]:
    """Whether an architecture classifies pixels or finds objects.

    Raises:
        ModelError: unknown architecture.
    """
    return "instance" if getattr(_module(name), "KIND", "semantic") == "instance" else "semantic"


def fitted(name: str, keywords: Mapping[str, Any], sizes: ObjectSizes) -> dict[str, Any]:
    """Keywords of an instance network, defaults included, without any "auto".

    Args:
        name: of the architecture.
        keywords: of its `build`; unknown ones are left to `build_model` to report.
        sizes: of the objects that it is to find.

    Raises:
        ModelError: unknown architecture, or a keyword has an impossible value.
    """
    try:
        found: dict[str, Any] = _module(name).fit({**defaults(name), **keywords}, sizes)
    except ModelError as error:
        raise ModelError(f"{name}: {error.what}", error.remedy, error.key) from error
    return found


def _module(name: str) -> ModuleType:
    if name not in names():
        raise ModelError(f"architecture {name!r} is unknown", f"choose one of {', '.join(names())}")
    return plugins.load(models.__name__, name)


def build_model(
    name: str,
    in_channels: int,
    num_classes: int,
    magnify: float = 1,
    touching: bool = False,
    foreground: Sequence[int] | None = None,
    crf: Mapping[str, float] | None = None,
    **keywords: Any,
) -> SegmentationModel:
    """Build an architecture.

    Args:
        name: one of `names()`.
        in_channels: bands of the image.
        num_classes: classes, background included.
        magnify: see `SegmentationModel`.
        touching: see `SegmentationModel`; False for instance networks.
        foreground: of instance networks: indices of the classes that have objects; None: all but the first.
        crf: of semantic networks: see `segcore.models.base.crf.Crf`; None: there is none.
        keywords: of the architecture's `build`; `defaults(name)` lists them.

    Raises:
        ModelError: unknown architecture, keyword or value; the message lists the valid ones.
    """
    check_keywords(name, keywords)
    default_keywords = defaults(name)
    model: SegmentationModel
    if kind(name) == "instance":
        chosen = list(range(1, num_classes)) if foreground is None else sorted(foreground)
        keywords = fitted(name, keywords, ObjectSizes())
        model = _module(name).build(in_channels, num_classes, chosen, **keywords)
        model.settings = {**keywords, "foreground": chosen}
    else:
        settings, module = default_keywords | keywords, _module(name)
        if hasattr(module, "resolved"):
            settings = module.resolved(settings)
        model = module.build(in_channels, num_classes + bool(touching), **settings)
        model.settings = settings
    # left out at their defaults, as in the bundles of older versions
    if magnify != 1:
        model.magnify = model.settings["magnify"] = magnify
    if crf is not None and isinstance(model, SemanticModel):
        model.crf, model.settings["crf"] = Crf.of(crf), crf
    if touching:
        model.touching = model.settings["touching"] = True
    return model


def rebuild_model(
    name: str, in_channels: int, num_classes: int, settings: Mapping[str, Any]
) -> SegmentationModel:
    """Build the model of saved `settings`, to load its saved state_dict into; pretrained weights are not fetched.

    Args:
        name: of an architecture, or of an ensemble (`segcore.names.is_ensemble`), whose settings have `members`: a list
            of architecture, settings and temperature of each.
        in_channels: bands of the image.
        num_classes: classes, background included.
        settings: as of `SegmentationModel.settings`.

    Raises:
        ModelError: as of `build_model`, or the members of an ensemble cannot be averaged.
    """
    if is_ensemble(name):
        return _rebuild_ensemble(name, in_channels, num_classes, settings)
    keywords: dict[str, Any] = {key: "none" if key == "weights" else value for key, value in settings.items()}
    model = build_model(name, in_channels, num_classes, **keywords)
    model.settings = dict(settings)
    return model


def architectures_of(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Names of the architectures that a network consists of: several for an ensemble, else its own."""
    if not is_ensemble(name):
        return [name]
    return sorted({str(member["architecture"]) for member in settings.get("members", [])})


def ensemble(name: str, members: Sequence[SegmentationModel], facts: Sequence[Mapping[str, Any]]) -> Ensemble:
    """The mean of networks that are there.

    Args:
        name: of the ensemble: of the seeds of one architecture, or of several architectures.
        members: the networks.
        facts: architecture, settings and temperature of each, and more; JSON-able.

    Raises:
        ModelError: they cannot be averaged.
    """
    names = [str(one.get("run", one["architecture"])) for one in facts]
    if not members:
        raise ModelError(f"{name} has no members", "name at least one network")
    require_alike(members, names)
    title = "Ensemble" if name == ENSEMBLE else f"{members[0].title} ensemble"
    model = Ensemble(members, [float(one["temperature"]) for one in facts], title)
    model.settings = {"members": [dict(one) for one in facts]}
    if model.touching:
        model.settings["touching"] = True
    return model


def _rebuild_ensemble(
    name: str, in_channels: int, num_classes: int, settings: Mapping[str, Any]
) -> SegmentationModel:
    facts = settings["members"]
    for one in facts:
        # no ensembles of ensembles, which could be nested without end
        _module(one["architecture"])
    members = [rebuild_model(one["architecture"], in_channels, num_classes, one["settings"]) for one in facts]
    model = ensemble(name, members, facts)
    model.settings = dict(settings)
    return model
