"""Weights that a training begins with: those of a former champion of the same architecture, where there is one."""

import shutil
from pathlib import Path

from segcore.bundle import load_bundle, load_description
from segcore.files import atomic_folder
from segcore.models._base import SegmentationModel
from segcore.params import Params, TrainSettings

START = Path("start")
_SAME = ("architecture", "in_channels", "num_classes", "settings", "classes")


def begin_with(p: Params, architecture: str, model: SegmentationModel, root: Path = Path()) -> TrainSettings:
    """Load start/<architecture>/ into a fresh model, where it is there and fits; returns the settings to train with.

    The weights' own normalisation comes with them. Their training has the budget of retrain.warm_start.steps.

    Raises:
        ModelError: the bundle is damaged.
    """
    settings, folder = p.for_architecture(architecture), root / START / architecture
    if not (folder / "model.json").is_file():
        return settings
    facts = load_description(folder)
    own = (architecture, model.in_channels, model.num_classes, model.settings, p.data.classes)
    if tuple(facts[name] for name in _SAME) != own:
        print(f"train: {folder} is of other classes, bands or settings, so it is not begun with", flush=True)
        return settings
    model.load_state_dict(load_bundle(folder).state_dict())
    print(f"train: begins with the weights in {folder}", flush=True)
    return settings.model_copy(update={"steps": p.retrain.warm_start.steps or settings.steps})


def place(bundle: Path | None, root: Path = Path()) -> None:
    """Make start/ hold this bundle alone, or none; what is the same stays untouched."""
    start = root / START
    architecture = load_description(bundle)["architecture"] if bundle else None
    for folder in start.iterdir() if start.is_dir() else ():
        if folder.is_dir() and folder.name != architecture:
            shutil.rmtree(folder)
    if bundle is None or architecture is None:
        return
    target = start / architecture
    names = ("model.safetensors", "model.json")
    if all((target / n).is_file() and (target / n).read_bytes() == (bundle / n).read_bytes() for n in names):
        return
    with atomic_folder(target) as part:
        for name in names:
            shutil.copyfile(bundle / name, part / name)
