"""Architectures by name: each module of segcore/models defines one, with a function `build`."""

import inspect
from collections.abc import Mapping
from typing import Any

from segcore import models, plugins
from segcore.errors import ModelError
from segcore.models.base.model import SegmentationModel

__all__ = ["SegmentationModel", "build_model", "defaults", "names", "rebuild_model"]


def names() -> list[str]:
    """Names of all architectures, sorted."""
    return list(plugins.names(models.__name__))


def defaults(name: str) -> dict[str, Any]:
    """The keywords of an architecture with their default values.

    Raises:
        ModelError: unknown architecture.
    """
    if name not in names():
        raise ModelError(f"architecture {name!r} is unknown", f"choose one of {', '.join(names())}")
    parameters = inspect.signature(plugins.load(models.__name__, name).build).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_model(
    name: str,
    in_channels: int,
    num_classes: int,
    magnify: float = 1,
    touching: bool = False,
    **keywords: Any,
) -> SegmentationModel:
    """Build an architecture.

    Args:
        name: one of `names()`.
        in_channels: bands of the image.
        num_classes: classes, background included.
        magnify: see `SegmentationModel`.
        touching: see `SegmentationModel`.
        keywords: of the architecture's `build`; `defaults(name)` lists them.

    Raises:
        ModelError: unknown architecture, keyword or value; the message lists the valid ones.
    """
    default_keywords = defaults(name)
    for unknown in sorted(keywords.keys() - default_keywords.keys()):
        raise ModelError(
            f"architecture {name} has no keyword {unknown!r}", f"choose among {', '.join(default_keywords)}"
        )
    build = plugins.load(models.__name__, name).build
    model: SegmentationModel = build(in_channels, num_classes + bool(touching), **keywords)
    model.settings = default_keywords | keywords
    # left out at their defaults, as in the bundles of older versions
    if magnify != 1:
        model.magnify = model.settings["magnify"] = magnify
    if touching:
        model.touching = model.settings["touching"] = True
    return model


def rebuild_model(
    name: str, in_channels: int, num_classes: int, settings: Mapping[str, Any]
) -> SegmentationModel:
    """Build the model of saved `settings`, to load its saved state_dict into; pretrained weights are not fetched."""
    keywords: dict[str, Any] = {key: "none" if key == "weights" else value for key, value in settings.items()}
    model = build_model(name, in_channels, num_classes, **keywords)
    model.settings = dict(settings)
    return model
