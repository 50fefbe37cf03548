"""Latency of all architectures of a comparison, measured in turn in one go, for the report.

Each evaluation measures its model alone, at its own moment; on a machine that others use as well, figures of different
moments differ by more than the networks do.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segcore.cache import CODE, code_digest
from segcore.errors import StageError
from segcore.files import digest, read_json
from segcore.inference.device import default_device, machine_name
from segcore.params import Params
from tasks.costs import SIDE_BY_SIDE, merge_cost, read_cost
from tasks.measure import measure
from tasks.project import model_folder, run_name


def measure_side_by_side(p: Params, root: Path = Path(), again: bool = False) -> dict[str, dict[str, Any]]:
    """Measure the first seed of all architectures in turn, if one of them was not measured with the others before.

    They are measured again if a model, the settings, the code that predicts or the machine has changed. Written to
    work/costs/.

    Args:
        p: architectures, seeds and the tile.
        root: the project's folder.
        again: measure also if nothing has changed.

    Returns:
        The measured figures by name of the bundle; empty if nothing had to be measured, or a bundle is missing.

    Raises:
        StageError: a bundle could not be loaded or run.
    """
    names = [run_name(architecture, p.seeds[0]) for architecture in [*p.architectures, *p.ensembles]]
    folders = [model_folder(name, root) for name in names]
    if not all((folder / "model.json").exists() for folder in folders):
        return {}
    key = _key(p, folders)
    before = [(read_cost(root, name) or {}).get(SIDE_BY_SIDE, {}) for name in names]
    if not again and all(side.get("key") == key for side in before):
        return {}
    print("report: measuring latency, the architectures in turn", flush=True)
    try:
        figures = measure(folders, p.evaluate.tile, p.evaluate.overlap, p.evaluate.flips, fresh=False)
    except (RuntimeError, MemoryError) as error:
        raise StageError(
            f"{', '.join(names)}: their latency could not be measured together ({str(error).splitlines()[0]})",
            "if memory is short, end other programs or lower evaluate.tile, then run again",
        ) from error
    costs = dict(zip(names, figures, strict=True))
    for name, cost in costs.items():
        # memory is that of all of them together
        cost.pop("peak_memory_mb", None)
        merge_cost(root, name, {SIDE_BY_SIDE: {"key": key, **cost}})
    return costs


def _key(p: Params, folders: Sequence[Path]) -> str:
    """Digest of what the latencies depend on, except the load of the machine."""
    weights = [read_json(folder / "model.json", "train it again").get("weights_sha256") for folder in folders]
    code = code_digest(*CODE["speed"], *(f"models/{name}.py" for name in p.architectures))
    settings = f"{p.evaluate.tile} {p.evaluate.overlap} {p.evaluate.flips}"
    return digest(settings, code, machine_name(default_device()), *map(str, weights))[:16]
