"""Costs of training and prediction on this machine, in work/costs/: one JSON file per bundle and weights.

They are no DVC outputs: timings differ between machines and runs, and dvc.lock would differ with them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segcore.errors import ModelError
from segcore.files import atomic_write, cached_json, read_json
from tasks.project import COSTS, MODELS, run_name


def cost_file(root: Path, name: str) -> Path:
    """Path of the measurements of the bundle models/<name>.

    Raises:
        ModelError: there is no such bundle.
    """
    description = root / MODELS / name / "model.json"
    try:
        facts = read_json(
            description, f"restore it with `dvc checkout`, or run `dvc repro --force train@{name}`"
        )
    except FileNotFoundError as error:
        raise ModelError(
            f"{description.parent}: contains no model bundle", f"run `dvc repro train@{name}`"
        ) from error
    return root / COSTS / f"{name}-{str(facts.get('weights_sha256'))[:12]}.json"


def read_cost(root: Path, name: str) -> dict[str, Any] | None:
    """Measurements of a bundle; None if it was not measured on this machine, or does not exist here."""
    if not (root / MODELS / name / "model.json").exists():
        return None
    content: dict[str, Any] | None = cached_json(cost_file(root, name))
    return content


def merge_cost(root: Path, name: str, facts: dict[str, Any]) -> None:
    """Add measurements to those of the bundle models/<name>."""
    path = cost_file(root, name)
    with atomic_write(path) as part:
        part.write_text(json.dumps({**(read_cost(root, name) or {}), **facts}, indent=2) + "\n")


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


def measured_costs(
    root: Path, architectures: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Mean cost over seeds of each architecture that was measured on this machine."""
    means = {
        name: mean_cost([read_cost(root, run_name(name, seed)) for seed in seeds]) for name in architectures
    }
    return {name: cost for name, cost in means.items() if cost}
