"""Weights that a training begins with: of a former champion of the same architecture, or of a model of other data.

What the retraining places in start/ must be of the same classes, and is taken over whole. What tasks/transfer.py places
there is of other data, and only what fits is taken over.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.files import atomic_folder
from segcore.models.base.bundle import load_bundle, load_description, verified
from segcore.params import Params, TrainSettings
from tasks.project import START

if TYPE_CHECKING:
    from segcore.models.base.model import SegmentationModel

BUDGET = "budget.json"
_BUNDLE = ("model.safetensors", "model.json")
# says that the model is of other data
TRANSFER = "transfer.json"
_SAME = ("architecture", "in_channels", "num_classes", "settings", "classes")


def begin_with(
    p: Params, architecture: str, model: "SegmentationModel", root: Path = Path()
) -> TrainSettings:
    """Load start/<architecture>/ into a fresh model, where it is there and fits; returns the settings to train with.

    The weights' own normalisation comes with them, and so does the budget of steps, if `place` was given one. The
    warm-up shrinks with the budget: else it would take most of a short one, which then ends before it has settled down.

    Raises:
        ModelError: the bundle is damaged.
    """
    settings, folder = p.for_architecture(architecture), root / START / architecture
    if not (folder / "model.json").is_file():
        return settings
    facts = load_description(folder)
    if (folder / TRANSFER).is_file():
        _transfer(p, model, folder, facts)
        return settings
    own = (architecture, model.in_channels, model.num_classes, model.settings, p.data.classes)
    if tuple(facts[name] for name in _SAME) != own:
        print(f"train: {folder} is of other classes, bands or settings, so it is not begun with", flush=True)
        return settings
    model.load_state_dict(load_bundle(folder).state_dict())
    print(f"train: begins with the weights in {folder}", flush=True)
    budget = json.loads((folder / BUDGET).read_text())["steps"] if (folder / BUDGET).is_file() else None
    steps = budget or settings.steps
    warm_up = round(settings.warmup_steps * min(steps / settings.steps, 1))
    return settings.model_copy(update={"steps": steps, "warmup_steps": warm_up})


def _transfer(p: Params, model: "SegmentationModel", folder: Path, facts: dict[str, Any]) -> None:
    from segcore.training.transfer import take_over

    state = load_bundle(folder).state_dict()
    taken, left = take_over(model, state, facts["classes"] == p.data.classes, str(folder))
    named = f"; left out: {', '.join(left[:4])}{' ...' * (len(left) > 4)}" if left else ""
    print(
        f"train: begins with {len(taken)} of {len(taken) + len(left)} tensors of {folder}, which learnt "
        f"{', '.join(facts['classes'])}{named}",
        flush=True,
    )


def place_transfer(bundle: Path, root: Path = Path()) -> Path:
    """Make start/<architecture> hold a model of other data; others in start/ stay.

    Raises:
        ModelError: the bundle is missing or damaged.
    """
    facts = verified(bundle)
    target = root / START / facts["architecture"]
    with atomic_folder(target) as part:
        for name in _BUNDLE:
            (part / name).write_bytes((bundle / name).read_bytes())
        (part / TRANSFER).write_text(json.dumps({"weights_sha256": facts["weights_sha256"]}) + "\n")
    return target


def clear(root: Path = Path()) -> None:
    """Take every model of other data out of start/."""
    for marker in (root / START).glob(f"*/{TRANSFER}"):
        shutil.rmtree(marker.parent)


def place(bundle: Path | None, steps: int | None = None, root: Path = Path()) -> None:
    """Make start/ hold this bundle alone, or none; what is the same stays untouched, and so do models of other data.

    Args:
        steps: of a training that begins with it; None: as many as any other.
    """
    start = root / START
    architecture = load_description(bundle)["architecture"] if bundle else None
    for folder in start.iterdir() if start.is_dir() else ():
        if folder.is_dir() and folder.name != architecture and not (folder / TRANSFER).is_file():
            shutil.rmtree(folder)
    if bundle is None or architecture is None:
        return
    target = start / architecture
    wanted = {name: (bundle / name).read_bytes() for name in _BUNDLE}
    wanted[BUDGET] = json.dumps({"steps": steps}).encode()
    if all((target / n).is_file() and (target / n).read_bytes() == content for n, content in wanted.items()):
        return
    with atomic_folder(target) as part:
        for name, content in wanted.items():
            (part / name).write_bytes(content)
