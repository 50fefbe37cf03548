"""Notes printed when a training starts: settings without effect, automatic settings, objects that are left out."""

from typing import TYPE_CHECKING

from segcore.data.prepared import PreparedData
from segcore.params import Params, TrainSettings
from segcore.params.architectures import semantic_networks
from tasks import console

if TYPE_CHECKING:
    # torch takes seconds to import; --help and errors in the arguments must not wait for it
    from segcore.models.base.instance import InstanceModel
    from segcore.models.base.model import SegmentationModel

# settings of a training that change only semantic networks
_SEMANTIC = ("loss", "class_weights")


def print_notes(
    p: Params,
    architecture: str,
    model: "SegmentationModel",
    data: PreparedData,
    settings: TrainSettings,
    seed: int,
    *,
    continued: bool,
) -> None:
    """Print what the user may want to change before the training has run.

    Args:
        p: parameters.
        architecture: name.
        model: untrained, on the CPU.
        data: prepared data.
        settings: of the training.
        seed: of the training.
        continued: the network starts from the champion, and has its keywords.
    """
    from segcore.models.base.instance import InstanceModel

    _warn_of_warmup(settings)
    if isinstance(model, InstanceModel):
        _warn_of_unused(p, architecture, model)
        _print_targets(model, architecture, data, settings, p.prepare.window, seed, continued=continued)


def _warn_of_warmup(settings: TrainSettings) -> None:
    if settings.warmup_steps >= settings.steps:
        console.note(
            f"train: the warm-up takes {settings.warmup_steps} of {settings.steps} steps, so the full learning rate "
            "is never reached: lower warmup_steps in params.yaml"
        )


def _warn_of_unused(p: Params, architecture: str, model: "InstanceModel") -> None:
    """Name settings that have no effect on an instance network."""
    sections = [architecture]
    if not set(p.architectures) & set(semantic_networks()):
        sections.append("common")
    defaults = {key: TrainSettings.model_fields[key].default for key in _SEMANTIC}
    unused = [
        f"train.{section}.{key}"
        for section in sections
        for key, default in defaults.items()
        if p.train.get(section, {}).get(key) not in (None, default)
    ]
    unused += ["data.touching"] if p.data.touching else []
    if unused:
        console.note(
            f"train: {model.title}: no effect of {', '.join(unused)} in params.yaml, for semantic networks only"
        )


def _print_targets(
    model: "InstanceModel",
    architecture: str,
    data: PreparedData,
    settings: TrainSettings,
    window: int,
    seed: int,
    *,
    continued: bool,
) -> None:
    """Print the keywords that are automatic by default, and how many objects of the first crops are left out."""
    from segcore.models.base.factory import defaults
    from segcore.training.placement import unplaced
    from segcore.training.sampler import Sampler

    usual = defaults(architecture)
    chosen = [key for key, value in {**usual, **settings.model}.items() if value == "auto"]
    given = [key for key, value in usual.items() if value == "auto" and key not in chosen]
    if chosen:
        source = "as the champion" if continued else "fitted to the training objects"
        set_by_hand = f"; set in params.yaml: {_described(model, given)}" if given else ""
        console.note(f"train: {model.title}, {source}: {_described(model, chosen)}{set_by_hand}")
    left = unplaced(model, Sampler(data, settings, window, seed, instances=True))
    if left and left.objects:
        console.note(
            f"train: {model.title}: {left.objects:,} of {left.total:,} objects in the first {left.crops} crops "
            f"{model.why_unplaced} (train.{architecture} in params.yaml)",
        )


def _described(model: "InstanceModel", keywords: list[str]) -> str:
    return ", ".join(f"{key} {model.settings[key]}" for key in keywords)
