"""The network that a description describes, checked against the weights before memory is allocated for it."""

from typing import Any

import torch

from segcore.errors import ModelError
from segcore.models.base.factory import rebuild_model
from segcore.models.base.model import SegmentationModel
from segcore.models.base.tensors import Header

# numbers in settings that are no length of a tensor, such as dilations
_LARGEST_SETTING = 4096
# as `magnify` of the training parameters
_MAGNIFY = (0.25, 4)


def check_network(description: dict[str, Any], header: Header, path: str) -> None:
    """Check that the weights are those of the network that a description describes.

    The network is built on torch's meta device, which allocates nothing. Only numbers that the header limits reach it,
    because networks are built in loops over them.

    Args:
        description: with the entries that `build_described` uses.
        header: of the weights.
        path: of model.json, for error messages.

    Raises:
        ModelError: it describes another network, or none.
    """
    bands = header.entries["mean"][1] if "mean" in header.entries else ()
    if bands != (description["in_channels"],):
        raise _mismatch(path, f"in_channels is {description['in_channels']}, the weights have {list(bands)}")
    settings = description["settings"]
    _check_sizes(settings, max(header.largest, _LARGEST_SETTING), len(header.entries), path)
    for magnify in _all_magnify(settings):
        if not isinstance(magnify, int | float) or not _MAGNIFY[0] <= magnify <= _MAGNIFY[1]:
            raise _mismatch(path, f"magnify is {str(magnify)[:40]}")
    with torch.device("meta"):
        model = build_described(description, path)
    if model.kind != description.get("kind", "semantic"):
        raise _mismatch(path, f"{description['architecture']} is of kind {model.kind}")
    if difference := header.difference(model.state_dict()):
        raise _mismatch(path, difference)


def _all_magnify(value: Any) -> list[Any]:
    """`magnify` of settings, and of the settings in them: those of an ensemble's networks."""
    if isinstance(value, list):
        return [found for inner in value for found in _all_magnify(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["magnify"]] if "magnify" in value else []
    return own + [found for inner in value.values() for found in _all_magnify(inner)]


def build_described(description: dict[str, Any], path: str) -> SegmentationModel:
    """The network of a description, with new weights.

    Args:
        description: with architecture, in_channels, num_classes and settings.
        path: of model.json, for error messages.

    Raises:
        ModelError: there is no such network.
    """
    architecture, settings = description["architecture"], description["settings"]
    try:
        return rebuild_model(architecture, description["in_channels"], description["num_classes"], settings)
    except ModelError as error:
        raise ModelError(f"{path}: {error.what}", error.remedy) from error
    # settings of any type and value reach the constructors of layers
    except Exception as error:
        raise _mismatch(path, f"{type(error).__name__}: {str(error)[:200]}") from error


def _mismatch(path: str, reason: str) -> ModelError:
    return ModelError(
        f"{path}: does not describe the network of its weights ({reason})",
        "restore the file, or take another version",
    )


def _check_sizes(value: Any, largest: int, longest: int, path: str) -> None:
    """Check that no number in settings is above `largest`, and that no list is longer than `longest`."""
    if isinstance(value, dict | list):
        if len(value) > longest:
            raise _mismatch(path, f"settings have {len(value)} values in one place")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_sizes(inner, largest, longest, path)
    elif isinstance(value, int | float) and abs(value) > largest:
        raise _mismatch(path, f"settings contain the number {str(value)[:40]}")
