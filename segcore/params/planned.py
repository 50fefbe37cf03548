"""Settings that may be `auto` in params.yaml: their values are those of the plan, plan/plan.json.

Before the first plan they have the provisional values of PLANNED, with which no training may start.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from segcore.errors import ParamsError
from segcore.params.folds import fill

AUTO = "auto"
# relative to the folder of params.yaml
PLAN = Path("plan/plan.json")
# of plan.json
FORMAT = 1
# value before the first plan, by key
PLANNED: dict[str, Any] = {
    "split.fractions": {"train": 0.6, "validation": 0.15, "test": 0.25},
    "split.block": None,
    "split.buffer": 0,
    "split.folds": None,
    "prepare.window": 320,
    "prepare.stride": 64,
    "prepare.spacing": None,
    "train.common.normalization": "imagenet",
    "train.common.loss": "dice_cross_entropy",
    "train.common.magnify": 1,
    "train.common.crop": 256,
    "train.common.batch": 8,
    "train.common.foreground_share": 0.5,
    "train.common.steps": 400,
    "train.common.validate_every": 60,
    "train.common.learning_rate": 0.002,
    "train.common.augment.flip": True,
    "train.common.augment.rotate90": True,
    "evaluate.tile": 704,
    "evaluate.overlap": 64,
}
# compared where the data have objects and params.yaml names no architectures
OBJECT_NETWORKS = ("unet", "mask_rcnn", "yolact", "solo")
# a section with values for all these keys is set by hand: what it lacks then has its default. Any other section is the
# plan's: what it lacks is `auto`
OF_HAND = {
    "split": ("split.fractions",),
    "prepare": ("prepare.window", "prepare.stride"),
    "train": tuple(f"train.common.{key}" for key in ("steps", "batch", "crop", "validate_every")),
    "evaluate": ("evaluate.tile",),
}


def read_plan(path: Path, name: Any) -> dict[str, Any] | None:
    """The plan of a dataset; None without one, or if it is of another dataset.

    Args:
        path: plan.json.
        name: `data.name`.

    Raises:
        ParamsError: it is damaged.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan["format"] != FORMAT or set(plan["values"]) != set(PLANNED):
            return None
        return plan if plan["name"] == name else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ParamsError(
            f"{path}: the plan cannot be read ({type(error).__name__}: {error})",
            "delete it, and run the command plan",
        ) from error


def filled(values: dict[str, Any], plan: Mapping[str, Any] | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Values of params.yaml with those of the plan in the place of `auto`, and the keys that are `auto`.

    A section that lacks is `auto`, and so is a key that lacks in a section which is not set by hand.

    Args:
        values: as read from params.yaml.
        plan: of `read_plan`.
    """
    values, auto = deepcopy(values), []
    if get(values, "data.instances") or get(values, "data.objects"):
        values.setdefault("architectures", list(OBJECT_NETWORKS))
        values.setdefault("compare", {"metric": "f1_50"})
    planned = PLANNED if plan is None else plan["values"]
    by_hand = {name for name, keys in OF_HAND.items() if all(get(values, key, AUTO) != AUTO for key in keys)}
    train = values.get("train")
    train = train if isinstance(train, dict) else {}
    for name, own in train.items():
        if name != "common" and isinstance(own, dict):
            train[name] = {
                key: None if value == AUTO and f"train.common.{key}" in PLANNED else value
                for key, value in own.items()
            }
    for key, value in planned.items():
        lacking = None if key.partition(".")[0] in by_hand else AUTO
        if get(values, key, lacking) == AUTO and _has_sections(values, key):
            put(values, key, value)
            auto.append(key)
    _fit(values, auto)
    return values, tuple(auto)


def _has_sections(values: Any, key: str) -> bool:
    """Whether all sections of a key are mappings, or lack; others are errors that the models report."""
    for part in key.split(".")[:-1]:
        if not isinstance(values, dict):
            return False
        values = values.get(part, {})
    return isinstance(values, dict)


def _fit(values: dict[str, Any], auto: list[str]) -> None:
    """Let window and crop, and folds and seeds, fit where one is fixed by hand and the plan does not know it yet."""
    window, crop = get(values, "prepare.window"), get(values, "train.common.crop")
    if isinstance(window, int) and isinstance(crop, int) and crop > window:
        if "prepare.window" in auto:
            put(values, "prepare.window", crop)
        elif "train.common.crop" in auto:
            put(values, "train.common.crop", window)
    folds, seeds = get(values, "split.folds"), get(values, "seeds")
    # as the next plan will decide
    if "split.folds" in auto and folds and not _is_filled(seeds, folds):
        put(values, "split.folds", None)


def _is_filled(seeds: Any, folds: int) -> bool:
    """Whether seeds, as read from params.yaml, train each fold equally often."""
    is_list = isinstance(seeds, list) and all(type(seed) is int for seed in seeds)
    return is_list and fill(seeds, folds)


def get(values: Any, key: str, default: Any = None) -> Any:
    """The value of a dotted key in nested settings; `default` without one."""
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return default
        values = values[part]
    return values


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a dotted key; sections that lack are added."""
    *sections, last = key.split(".")
    for part in sections:
        values = values.setdefault(part, {})
    values[last] = value
