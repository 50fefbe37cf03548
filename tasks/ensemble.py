"""Average the predictions of trained networks, and score the means on the test regions.

`python -m tasks ensemble` reads models/<architecture>-<seed> and data/prepared/, and writes bundles and evaluations to
ensembles/models/ and ensembles/evaluations/: one ensemble per semantic architecture over its seeds, and one over all of
them. ensembles/members.json names the networks of each; without `evaluate.ensemble` it is all there is. Nothing is
trained.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from segcore import params
from segcore.data.prepared import PreparedData
from segcore.files import atomic_folder, atomic_write
from segcore.models.base.bundle import Bundle, save_bundle
from segcore.params import Params, TrainSettings
from tasks import console
from tasks.bundles import read_local
from tasks.costs import merge_cost, read_cost
from tasks.evaluate import run_evaluation
from tasks.project import ENSEMBLES, PARAMS, PREPARED, model_folder, run_name
from tasks.tracking import runs
from tasks.tracking.logged_models import log_model
from tasks.tracking.tracker import Run, Tracker
from tasks.train import choose_on_validation

if TYPE_CHECKING:
    # torch takes seconds to import
    from segcore.models.base.model import SegmentationModel

_REQUIRED = ("parameters.crop", "training.steps", "training.best_step", "tile")
# of a bundle, which are those of all networks that were trained on the same data
_SHARED = ("seed", "classes", "colors", "foreground", "input", "training_images", "versions")
# costs of a training that are the sums of those of its networks
_SUMMED = ("train_seconds",)


def make_ensembles(p: Params, prepared: Path = PREPARED, root: Path = Path()) -> list[Path]:
    """Write and evaluate the ensembles of params.yaml; returns the folders of their bundles.

    Raises:
        ModelError: a bundle is missing or damaged, or networks cannot be averaged.
        DataError: no prepared data.
        ParamsError: flips with a model that was trained without.
    """
    named = {name: [run_name(*member) for member in members] for name, members in p.ensembles.items()}
    # written in any case: DVC warns of empty outputs
    with atomic_write(root / ENSEMBLES / "members.json") as part:
        part.write_text(json.dumps(named, indent=2) + "\n")
    averaged = {name for members in p.ensembles.values() for name, _ in members}
    left_out = [name for name in p.architectures if name not in averaged]
    if p.ensembles and left_out:
        print(
            f"ensemble: {', '.join(left_out)} left out: objects of several networks have no mean", flush=True
        )
    folders = []
    for name, members in named.items():
        folders.append(make_ensemble(p, name, members, prepared, root))
        run_evaluation(p, name, p.seeds[0], prepared, root)
    return folders


def make_ensemble(
    p: Params, name: str, members: Sequence[str], prepared: Path = PREPARED, root: Path = Path()
) -> Path:
    """Write the bundle of an ensemble; its temperature, objects and post-processing are chosen on the validation split.

    Args:
        p: parameters.
        name: of the ensemble.
        members: names of its networks, whose bundles are there.
        prepared: folder of the prepared data.
        root: the project's folder.

    Returns:
        Folder of the bundle.

    Raises:
        ModelError: a bundle is missing or damaged, or the networks cannot be averaged.
    """
    # imported late: wrong parameters are reported at once
    from segcore.inference.device import choose_precision, default_device
    from segcore.training.validate import validate

    bundles = [read_local(model_folder(member, root)) for member in members]
    for bundle in bundles:
        bundle.require(*_REQUIRED)
    facts, settings = _facts(bundles), _settings(p, bundles)
    model = _model(name, members, bundles).to(default_device()).eval()
    data, target = PreparedData(prepared), model_folder(name, root)
    precision = choose_precision(facts["parameters"]["precision"], default_device())
    print(f"ensemble: {name} is the mean of {', '.join(members)}", flush=True)
    with runs.ensemble_run(Tracker.open(p), p, name, model.title, members) as run:
        facts |= choose_on_validation(run, model, precision, data, settings, name)
        loss, score = validate(model, data, settings, precision)
        run.log_step({"val/loss": loss, "val/iou": score})
        history = {"step": facts["training"]["steps"], "val_loss": loss, "val_iou": score}
        _save(run, model, name, facts, history, target)
        _log_costs(run, members, name, root)
    return target


def _model(name: str, members: Sequence[str], bundles: Sequence[Bundle]) -> "SegmentationModel":
    """The network of an ensemble."""
    from segcore.models.base.factory import ensemble

    facts = [
        {
            "architecture": bundle.description["architecture"],
            "settings": bundle.description["settings"],
            # fitted on the validation split; 1 where no pixel of it has a label
            "temperature": bundle.description.get("calibration", {}).get("temperature", 1.0),
            "run": member,
            "weights_sha256": bundle.weights_sha256,
        }
        for member, bundle in zip(members, bundles, strict=True)
    ]
    return ensemble(name, [bundle.model() for bundle in bundles], facts)


def _settings(p: Params, bundles: Sequence[Bundle]) -> TrainSettings:
    """Training settings that the validation needs: the largest crop; post-processing where a network has asked for it.

    Other settings do not matter, because nothing is trained.
    """
    of = [p.for_architecture(name) for name in {str(b.description["architecture"]): None for b in bundles}]
    crop = max(bundle.description["parameters"]["crop"] for bundle in bundles)
    # a CRF is part of each network that has one
    postprocess = "auto" if any(one.postprocess != "none" for one in of) else "none"
    return of[0].model_copy(update={"crop": crop, "postprocess": postprocess})


def _facts(bundles: Sequence[Bundle]) -> dict[str, Any]:
    """Entries of model.json that follow from those of the networks."""
    each = [bundle.description for bundle in bundles]
    parameters, training = [d["parameters"] for d in each], [d["training"] for d in each]
    precisions = {one["precision"] for one in parameters}
    return {
        **{key: each[0][key] for key in _SHARED if key in each[0]},
        "tile": max(d["tile"] for d in each),
        "training": {
            # of all networks together
            "steps": sum(one["steps"] for one in training),
            "best_step": sum(one["best_step"] for one in training),
            "nondeterministic": sorted(
                {name for one in training for name in one.get("nondeterministic", [])}
            ),
            "determinism": "; ".join(
                dict.fromkeys(str(one.get("determinism", "unknown")) for one in training)
            ),
        },
        "parameters": {
            **parameters[0],
            "crop": max(one["crop"] for one in parameters),
            "precision": precisions.pop() if len(precisions) == 1 else "fp32",
            "augment": {**parameters[0].get("augment", {}), "flip": _flipped(parameters)},
        },
    }


def _flipped(parameters: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all networks were trained with flips."""
    return all(one.get("augment", {}).get("flip", True) for one in parameters)


def _save(
    run: Run,
    model: "SegmentationModel",
    name: str,
    facts: dict[str, Any],
    history: dict[str, Any],
    target: Path,
) -> None:
    with atomic_folder(target) as part:
        # one row, by which the gate compares it with other candidates; before model.json, which has its hash
        pd.DataFrame([history]).to_csv(part / "history.csv", index=False)
        save_bundle(part, model, name, facts)
    log_model(run, target)


def _log_costs(run: Run, members: Sequence[str], name: str, root: Path) -> None:
    """Training costs of an ensemble are those of all its networks; unknown where that of one is not known here."""
    costs = [read_cost(root, member) or {} for member in members]
    sums = {key: sum(cost[key] for cost in costs) for key in _SUMMED if all(key in cost for cost in costs)}
    machines = ", ".join(
        dict.fromkeys(str(cost["train_machine"]) for cost in costs if "train_machine" in cost)
    )
    merge_cost(root, name, sums | ({"train_machine": machines} if sums else {}))
    run.log_step({f"cost/{key}": value for key, value in sums.items()})


def _make_here(_: argparse.Namespace) -> None:
    make_ensembles(params.load(PARAMS))


def main() -> None:
    """Command line."""
    console.run(_make_here, argparse.ArgumentParser(prog="python -m tasks ensemble", description=__doc__))


console.refuse_as_script(__name__)
