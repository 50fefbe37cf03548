"""Complete params.yaml: sections that lack are added with their defaults, `auto` where the plan decides.

DVC reads architectures, seeds and the parameters of its stages in params.yaml itself. Comments are kept. Comparisons
and `make repro` begin with it; `python -m tasks complete` does it alone, and checks that all networks can be built.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcore import params
from segcore.files import atomic_write
from segcore.params.planned import AUTO, PLANNED, get, put
from tasks import console
from tasks.configure import keep, round_trip
from tasks.networks import require_networks
from tasks.project import PARAMS

# sections and keys that dvc.yaml names
_OF_STAGES = ("split", "prepare", "evaluate", "compare", "report")


def complete(path: Path) -> bool:
    """Add what stages need and params.yaml lacks; returns whether it was changed.

    Raises:
        ParamsError: params.yaml is missing or invalid.
    """
    p = params.load(path)
    yaml = round_trip()
    document: Any = yaml.load(path.read_text(encoding="utf-8"))
    if not _add(document, _wanted(p)):
        return False
    kept = keep(path, p.data.name)
    with atomic_write(path) as part:
        yaml.dump(document, part)
        params.load(part)
    print(
        f"params.yaml: sections that stages need were added; the previous version is in work/{kept.name}",
        flush=True,
    )
    return True


def _wanted(p: params.Params) -> dict[str, Any]:
    """Values of all keys that stages depend on."""
    values = p.model_dump(mode="json", include={"architectures", "seeds", *_OF_STAGES})
    values["train"] = {
        "common": params.TrainSettings.model_validate(p.train["common"]).model_dump(mode="json")
    }
    del values["train"]["common"]["model"]
    for key in p.auto:
        put(values, key, AUTO)
    for name in p.architectures:
        values["train"][name] = {"model": {}}
    return values | {"retrain": {"replan": p.retrain.replan}}


def _add(document: Any, wanted: Mapping[str, Any], prefix: str = "") -> bool:
    """Add what `document` lacks; a section of an architecture that is there stays as it is."""
    added = False
    for key, value in wanted.items():
        if key not in document:
            document[key] = value
            added = True
        elif isinstance(value, Mapping) and isinstance(document[key], dict) and _is_open(f"{prefix}{key}"):
            added |= _add(document[key], value, f"{prefix}{key}.")
    return added


def _is_open(section: str) -> bool:
    """Whether keys are added to a section that is there: only those without which a stage cannot run."""
    return section in ("train", "retrain", "prepare")


def write_plan(path: Path) -> None:
    """Replace `auto` in params.yaml by the values of the plan; the previous version is kept in work/."""
    p = params.load(path)
    values = {**p.model_dump(mode="json", include={"split", "prepare", "evaluate"}), "train": p.train}
    yaml = round_trip()
    document: Any = yaml.load(path.read_text(encoding="utf-8"))
    written = [key for key in PLANNED if get(document, key) == AUTO]
    for key in written:
        put(document, key, get(values, key))
    if not written:
        print("params.yaml: no setting is auto", flush=True)
        return
    kept = keep(path, p.data.name)
    with atomic_write(path) as part:
        yaml.dump(document, part)
        params.load(part)
    print(
        f"params.yaml: {len(written)} values written; the previous version is in work/{kept.name}", flush=True
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks complete", description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS, help="parameters file (default: %(default)s)")

    def run(arguments: argparse.Namespace) -> None:
        complete(arguments.params)
        require_networks(params.load(arguments.params))

    console.run(run, parser)


console.refuse_as_script(__name__)
