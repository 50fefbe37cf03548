"""The rules of the plan, on fingerprints written by hand."""

from typing import Any

import pytest

from segcore.params.data import Data
from segcore.params.planned import AUTO, PLANNED
from segcore.planning.rules import RULES, plan
from tests.support.plans import facts


def data(**over: Any) -> Data:
    values = {"name": "x", "source": "x", "classes": ["background", "square"], "label_values": {0: 0, 1: 1}}
    return Data.model_validate(values | over)


# settings that rules see beside those that they decide
OTHERS: dict[str, Any] = {
    "train.common.budget": "standard",
    "split.given": {},
    "evaluate.ensemble": False,
    "seeds": [0, 1],
    "defaults": (),
}


def values(
    measured: dict[str, Any], over: dict[str, Any] | None = None, budget: str = "standard", **of: Any
) -> Any:
    """Values of the plan by the last part of their key."""
    asked = dict.fromkeys(PLANNED, AUTO) | (over or {}) | OTHERS | {"train.common.budget": budget}
    return {d.key.rpartition(".")[2]: d.value for d in plan(measured, data(**of), asked)}


def structures(width: float, side: float) -> dict[str, dict[str, float]]:
    return {"square": {"width": width, "side": side, "count": 9}}


def test_every_setting_is_decided_with_measurement_source_and_sentence() -> None:
    decisions = plan(facts(), data(), dict.fromkeys(PLANNED, AUTO) | OTHERS)
    assert {d.key for d in decisions} == set(PLANNED)
    assert all(d.by == "plan" and d.source and d.sentence for d in decisions)


def test_a_value_fixed_by_hand_wins_and_others_follow_it() -> None:
    asked = dict.fromkeys(PLANNED, AUTO) | OTHERS | {"train.common.crop": 96}
    decisions = {d.key: d for d in plan(facts(), data(), asked)}
    assert (decisions["train.common.crop"].value, decisions["train.common.crop"].by) == (96, "hand")
    assert decisions["prepare.window"].value == 128
    assert decisions["train.common.batch"].value == 16


@pytest.mark.parametrize(
    ("width", "side", "size", "magnify", "crop", "batch"),
    [
        (40, 60, 512, 1, 192, 14),
        (18, 33, 256, 1, 128, 16),
        (76, 210, 5000, 1, 256, 8),
        (5, 475, 605, 2, 128, 8),
        (4, 18, 35, 2, 48, 16),
        (200, 900, 100, 1, 112, 16),
    ],
)
def test_crop_and_batch_follow_structures_and_images(
    width: float, side: float, size: int, magnify: int, crop: int, batch: int
) -> None:
    found = values(facts(structures=structures(width, side), height=[size] * 3, width=[size] * 3))
    assert (found["magnify"], found["crop"], found["batch"]) == (magnify, crop, batch)
    assert found["crop"] <= found["window"] and found["window"] % 16 == 0 and found["stride"] >= 16


def test_a_window_fixed_by_hand_limits_the_crop() -> None:
    found = values(facts(structures=structures(76, 210)), {"prepare.window": 100})
    assert found["crop"] <= 100


def test_without_foreground_there_is_a_plan_too() -> None:
    found = values(facts(structures={}, class_shares={"background": 1.0, "square": 0.0}))
    assert (found["magnify"], found["crop"]) == (1, 256)


@pytest.mark.parametrize(
    ("budget", "pixels", "steps"),
    [
        ("quick", 1e9, 60),
        ("standard", 8e6 / 0.6, 400),
        ("standard", 1e5, 300),
        ("standard", 1e12, 1200),
        ("thorough", 8e6 / 0.6, 1600),
    ],
)
def test_steps_follow_budget_and_pixels(budget: str, pixels: float, steps: int) -> None:
    found = values(facts(pixels=pixels), budget=budget)
    assert found["steps"] == steps
    assert 3 <= steps // found["validate_every"] <= 6


def test_large_scenes_of_few_groups_are_divided() -> None:
    size = {"height": [5000.0] * 3, "width": [5000.0] * 3}
    found = values(facts(groups=1, **size))
    assert (found["block"], found["buffer"]) == (625, 32)
    assert values(facts(groups=30, **size))["block"] is None
    small = values(facts(groups=1))
    assert (small["block"], small["buffer"]) == (None, 0)


def test_many_groups_leave_more_for_training() -> None:
    assert values(facts(groups=260))["fractions"] == {"train": 0.7, "validation": 0.1, "test": 0.2}
    assert values(facts(groups=12))["fractions"]["test"] == 0.25


@pytest.mark.parametrize(
    ("measured", "view", "flip", "turns"),
    [
        ({"positioned": True}, None, True, True),
        ({"volumes": True}, None, False, False),
        ({}, None, "horizontal", False),
        ({}, "microscope", True, True),
        ({}, "nadir", True, True),
        ({"positioned": True}, "street", "horizontal", False),
        ({}, "volume", False, False),
    ],
)
def test_flips_and_turns_follow_the_view(
    measured: dict[str, Any], view: str | None, flip: Any, turns: bool
) -> None:
    found = values(facts(**measured), view=view)
    assert (found["flip"], found["rotate90"]) == (flip, turns)


def test_rare_foreground_gets_more_crops() -> None:
    rare = facts(class_shares={"background": 0.95, "square": 0.05})
    assert values(rare)["foreground_share"] > values(facts())["foreground_share"] == 0.5


def test_rules_are_in_the_order_in_which_they_depend_on_each_other() -> None:
    keys = list(RULES)
    for first, then in (("magnify", "crop"), ("crop", "batch"), ("steps", "validate_every")):
        assert keys.index(f"train.common.{first}") < keys.index(f"train.common.{then}")
    assert keys.index("train.common.crop") < keys.index("prepare.window") < keys.index("prepare.stride")


@pytest.mark.parametrize(
    ("rows", "columns", "spacing"),
    [([0.5, 0.8, 1.0], [0.5, 0.7, 1.0], [0.8, 0.7]), ([1.0, 1.0, 1.05], [1.0, 1.0, 1.0], None)],
)
def test_volumes_of_several_spacings_are_resampled_to_the_median(
    rows: list[float], columns: list[float], spacing: list[float] | None
) -> None:
    sizes = {"mm: planes": [1.0, 3.0, 5.0], "mm: rows": rows, "mm: columns": columns}
    assert values(facts(volumes=True, pixel_sizes=sizes))["spacing"] == spacing


@pytest.mark.parametrize(
    ("independent", "seeds", "folds", "text"),
    [
        (20, [0, 1], None, "at least 5 are tested"),
        (8, [0, 1], None, "proposed: split.folds: 5 and seeds: [0, 1, 2, 3, 4]"),
        (8, [0, 1, 2, 3, 4], 5, "in 5 folds each is tested once"),
        (3, [0, 1, 2], 3, "in 3 folds"),
        (4, [0, 1, 2], None, "proposed: split.folds: 4"),
        (2, [0, 1], None, "fewer than 3 groups"),
    ],
)
def test_folds_are_chosen_where_few_groups_are_tested_and_seeds_fit(
    independent: int, seeds: list[int], folds: int | None, text: str
) -> None:
    small = {"height": [512.0] * 3, "width": [512.0] * 3, "groups": independent}
    measured = facts(independent=independent, **small)
    for value, by in ((AUTO, "plan"), (None, "hand")):
        asked = dict.fromkeys(PLANNED, AUTO) | OTHERS | {"seeds": seeds}
        (found,) = (
            d for d in plan(measured, data(), asked | {"split.folds": value}) if d.key == "split.folds"
        )
        assert found.by == by
        if by == "plan":
            assert found.value == folds and text in found.sentence
        else:
            assert found.value is None and ("proposed" in found.sentence) == (3 <= independent < 20)


def test_folds_count_blocks_and_leave_given_splits_alone() -> None:
    large = facts(groups=2, independent=2, items=2, height=[4096.0] * 3, width=[4096.0] * 3)
    assert values(large)["block"] == 512 and values(large)["folds"] is None
    asked = OTHERS | {"seeds": [0, 1, 2]}
    for few, over, text in (
        (facts(independent=3), {**asked, "split.given": {"test": ["a"]}}, "splits are given"),
        (facts(independent=3, has_splits=True), asked, "splits are given"),
        (facts(independent=3), {**asked, "evaluate.ensemble": True}, "trained on one split"),
    ):
        (found,) = (
            d for d in plan(few, data(), dict.fromkeys(PLANNED, AUTO) | over) if d.key == "split.folds"
        )
        assert found.value is None and text in found.sentence


def test_the_default_of_a_section_set_by_hand_is_called_one() -> None:
    asked = dict.fromkeys(PLANNED, AUTO) | OTHERS | {"train.common.batch": 4, "train.common.loss": "dice"}
    found = {d.key: d.sentence for d in plan(facts(), data(), asked | {"defaults": ("train.common.loss",)})}
    assert found["train.common.batch"] == "set in params.yaml"
    assert found["train.common.loss"] == "default, in a section set by hand"
