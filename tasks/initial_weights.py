"""Initial weights of a training, from start/<architecture>/.

Either the champion of the same architecture (placed by the retraining: same classes, all weights are loaded), or a
model of other data (placed by tasks/transfer.py: only the weights that fit are loaded).
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.data.prepared import PreparedData
from segcore.files import atomic_folder, read_json
from segcore.models.base.bundle import DESCRIPTION, WEIGHTS, Bundle, load_description, read_bundle
from segcore.names import is_ensemble
from segcore.params import Params, TrainSettings
from tasks.project import START

if TYPE_CHECKING:
    from segcore.models.base.model import SegmentationModel

BUDGET = "budget.json"
# its presence marks a model of other data
TRANSFER = "transfer.json"
_SAME = ("architecture", "in_channels", "num_classes", "settings", "classes")


def new_model(
    p: Params, architecture: str, data: PreparedData, seed: int, root: Path = Path()
) -> "SegmentationModel":
    """A new model; where start/<architecture>/ has the weights of a champion, with the anchors or grid of those.

    What is fitted to the objects of the training split (keywords "auto" of an instance network) would otherwise be
    fitted to the present ones, and the weights would not be of this network. A model of other data may have objects of
    other sizes: its weights are loaded as far as they fit.

    Raises:
        ModelError: unknown keywords, or weights that cannot be loaded; DataError: an instance network, and the data
            have no objects.
    """
    from segcore.models.base.factory import kind
    from segcore.training.build import new_model as build

    settings, folder = p.for_architecture(architecture), root / START / architecture
    if (
        kind(architecture) == "instance"
        and (folder / DESCRIPTION).is_file()
        and not (folder / TRANSFER).is_file()
    ):
        facts = load_description(folder)
        model = build(architecture, settings, data, seed, facts.get("settings"))
        if _fits(facts, p, architecture, model):
            return model
    return build(architecture, settings, data, seed)


def load_initial_weights(
    p: Params, architecture: str, model: "SegmentationModel", root: Path = Path()
) -> TrainSettings:
    """Load the weights of start/<architecture>/ into a new model, if there are any and they fit.

    Normalisation statistics are part of the weights. If `place` was given a number of steps, it replaces `steps`, and
    the warm-up is shortened in proportion: it would otherwise take most of a short training.

    Returns:
        The settings to train with.

    Raises:
        ModelError: the bundle is damaged.
    """
    settings, folder = p.for_architecture(architecture), root / START / architecture
    if not (folder / "model.json").is_file():
        return settings
    bundle = read_bundle(folder)
    bundle.require("classes")
    facts = bundle.description
    if (folder / TRANSFER).is_file():
        _transfer(p, model, bundle)
        return settings
    if not _fits(facts, p, architecture, model):
        print(f"train: {folder} has other classes, bands or settings: its weights are not used", flush=True)
        return settings
    model.load_state_dict(bundle.model().state_dict())
    print(f"train: starts from the weights in {folder}", flush=True)
    file = folder / BUDGET
    remedy = f"remove {folder}, and run the last command again"
    budget = read_json(file, remedy)["steps"] if file.is_file() else None
    steps = budget or settings.steps
    warm_up = round(settings.warmup_steps * min(steps / settings.steps, 1))
    return settings.model_copy(update={"steps": steps, "warmup_steps": warm_up})


def _fits(facts: Mapping[str, Any], p: Params, architecture: str, model: "SegmentationModel") -> bool:
    # as in JSON, which has no tuples
    settings = json.loads(json.dumps(model.settings))
    expected = (architecture, model.in_channels, model.num_classes, settings, p.data.classes)
    # a CRF is chosen anew after each training
    found = dict(facts.get("settings") or {})
    found.pop("crf", None)
    facts = {**facts, "settings": found}
    return tuple(facts.get(name) for name in _SAME) == expected


def initial_weights(
    p: Params, architecture: str, model: "SegmentationModel", root: Path = Path()
) -> str | None:
    """Which weights `load_initial_weights` loads, as text for a comparison; None where a training starts anew."""
    folder = root / START / architecture
    if not (folder / "model.json").is_file():
        return None
    facts = load_description(folder)
    if (folder / TRANSFER).is_file():
        return f"of other data ({facts['weights_sha256'][:8]})"
    fits = _fits(facts, p, architecture, model)
    return f"of the champion ({facts['weights_sha256'][:8]})" if fits else None


def _transfer(p: Params, model: "SegmentationModel", bundle: Bundle) -> None:
    from segcore.training.transfer import take_over

    classes, folder = bundle.description["classes"], bundle.folder
    loaded, left = take_over(model, bundle.model().state_dict(), classes == p.data.classes, str(folder))
    named = f"; left out: {', '.join(left[:4])}{' ...' * (len(left) > 4)}" if left else ""
    print(
        f"train: starts from {len(loaded)} of {len(loaded) + len(left)} tensors of {folder}, which was trained for "
        f"{', '.join(classes)}{named}",
        flush=True,
    )


def place_transfer(bundle: Bundle, root: Path = Path()) -> Path:
    """Copy a model of other data to start/<architecture>, which is returned; others in start/ are kept."""
    target = root / START / bundle.description["architecture"]
    with atomic_folder(target) as part:
        for name, content in _files(bundle).items():
            (part / name).write_bytes(content)
        (part / TRANSFER).write_text(json.dumps({"weights_sha256": bundle.weights_sha256}) + "\n")
    return target


def _files(bundle: Bundle) -> dict[str, bytes | bytearray]:
    return {WEIGHTS: bundle.weights_bytes, DESCRIPTION: bundle.description_bytes}


def clear(root: Path = Path()) -> None:
    """Remove all models of other data from start/."""
    for marker in (root / START).glob(f"*/{TRANSFER}"):
        shutil.rmtree(marker.parent)


def place(bundle: Path | None, steps: int | None = None, root: Path = Path()) -> None:
    """Make `bundle` the only champion in start/; an unchanged bundle and models of other data are left untouched.

    Args:
        bundle: folder of the champion's bundle; an ensemble counts as none, because no network
            continues it; None: remove the champion from start/.
        steps: of a training that starts from it; None: as in params.yaml.
        root: the project's folder.
    """
    start = root / START
    champion = read_bundle(bundle) if bundle else None
    if champion and is_ensemble(champion.description["architecture"]):
        print("retrain.warm_start: the champion is an ensemble, so all trainings start anew")
        champion = None
    architecture = champion.description["architecture"] if champion else None
    for folder in start.iterdir() if start.is_dir() else ():
        if folder.is_dir() and folder.name != architecture and not (folder / TRANSFER).is_file():
            shutil.rmtree(folder)
    if champion is None:
        return
    target = start / champion.description["architecture"]
    wanted = _files(champion) | {BUDGET: json.dumps({"steps": steps}).encode()}
    if all((target / n).is_file() and (target / n).read_bytes() == content for n, content in wanted.items()):
        return
    with atomic_folder(target) as part:
        for name, content in wanted.items():
            (part / name).write_bytes(content)
