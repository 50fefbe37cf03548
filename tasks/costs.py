"""Costs of training and prediction on this machine, in work/costs/: one JSON file per bundle and weights.

They are no DVC outputs: timings differ between machines and runs, and dvc.lock would differ with them. A file has the
figures of the training, those of the evaluation, which measures its model alone, and under SIDE_BY_SIDE those of all
architectures in turn (tasks/side_by_side.py).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segcore.errors import ModelError
from segcore.files import atomic_write, cached_json, read_json
from tasks.project import COSTS, model_folder, run_name, stage_name

SIDE_BY_SIDE = "side_by_side"
# latencies of exported models (tasks/runtime_speed.py)
RUNTIME_SPEED = "runtimes"
# what the latency of a measurement consists of
_LATENCY = (
    *("latency_ms", "latency_low_ms", "latency_high_ms", "latency_rounds", "latency_tile", "latency_batch"),
    *("latency_passes", "ms_per_megapixel", "precision", "device", "machine", "threads", "measured"),
)


def cost_file(root: Path, name: str) -> Path:
    """Path of the measurements of the bundle models/<name>.

    Raises:
        ModelError: there is no such bundle.
    """
    description, stage = model_folder(name, root) / "model.json", stage_name("train", name)
    try:
        facts = read_json(description, f"restore it with `dvc checkout`, or run `dvc repro --force {stage}`")
    except FileNotFoundError as error:
        raise ModelError(
            f"{description.parent}: contains no model bundle", f"run `dvc repro {stage}`"
        ) from error
    return root / COSTS / f"{name}-{str(facts.get('weights_sha256'))[:12]}.json"


def read_cost(root: Path, name: str) -> dict[str, Any] | None:
    """Measurements of a bundle; None if it was not measured on this machine, or does not exist here."""
    if not (model_folder(name, root) / "model.json").exists():
        return None
    content: dict[str, Any] | None = cached_json(cost_file(root, name))
    return content


def merge_cost(root: Path, name: str, facts: dict[str, Any]) -> None:
    """Add measurements to those of the bundle models/<name>."""
    path = cost_file(root, name)
    with atomic_write(path) as part:
        part.write_text(json.dumps({**(read_cost(root, name) or {}), **facts}, indent=2) + "\n")


def drop_cost(root: Path, name: str, entry: str) -> None:
    """Remove an entry from the measurements of the bundle models/<name>, if it is there."""
    cost = read_cost(root, name) or {}
    if entry in cost:
        with atomic_write(cost_file(root, name)) as part:
            left = {key: value for key, value in cost.items() if key != entry}
            part.write_text(json.dumps(left, indent=2) + "\n")


def mean_cost(costs: list[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Mean of the numbers over all measured runs; of texts the first value. None if no run was measured."""
    measured = [cost for cost in costs if cost]
    if not measured:
        return None
    merged: dict[str, Any] = {}
    for key in {key: None for cost in measured for key in cost}:
        values = [cost[key] for cost in measured if cost.get(key) is not None]
        numbers = bool(values) and all(isinstance(v, int | float) for v in values)
        merged[key] = sum(values) / len(values) if numbers else (values[0] if values else None)
    return merged


def combined(costs: Mapping[str, Sequence[dict[str, Any] | None]]) -> dict[str, dict[str, Any] | None]:
    """Costs of each architecture from those of its seeds; None if no seed was measured.

    Latency is that of all architectures in turn. Where one of them lacks it, or was measured with others, each latency
    is of another moment and has the entry `apart`: True. Other numbers are means over the measured seeds.
    """
    together = {
        name: next((cost[SIDE_BY_SIDE] for cost in seeds if cost and SIDE_BY_SIDE in cost), None)
        for name, seeds in costs.items()
    }
    goes = {(side["key"], side.get("measured")) if side else None for side in together.values()}
    result: dict[str, dict[str, Any] | None] = {}
    for name, seeds in costs.items():
        alone = [cost and {k: v for k, v in cost.items() if k != SIDE_BY_SIDE} for cost in seeds]
        mean, side = mean_cost(alone), together[name]
        if mean is not None and "machine" in mean:
            mean["memory_machine"] = mean["machine"]
        if mean is not None and side is not None and len(goes) == 1:
            mean = {k: v for k, v in mean.items() if k not in _LATENCY}
            mean |= {k: side[k] for k in _LATENCY if k in side}
        elif mean is not None and "latency_ms" in mean:
            mean = {k: v for k, v in mean.items() if k not in ("latency_low_ms", "latency_high_ms")}
            mean["apart"] = sum(any(seeds) for seeds in costs.values()) > 1
        result[name] = mean
    return result


def measured_costs(
    root: Path, architectures: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Cost of each architecture that was measured on this machine, as of `combined`."""
    runs = {name: dict.fromkeys(run_name(name, seed) for seed in seeds) for name in architectures}
    read = {name: [read_cost(root, run) for run in found] for name, found in runs.items()}
    # human annotators have no costs
    costs = combined({name: found for name, found in read.items() if any(found)})
    return {name: cost for name, cost in costs.items() if cost}
