"""Settings that are `auto`: where their values come from, and what a params.yaml may leave out."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segcore import params
from segcore.errors import ParamsError
from segcore.params import merge
from segcore.params.planned import AUTO, FORMAT, PLANNED, get

DATA = {"name": "x", "source": "x", "classes": ["background", "square"], "label_values": {0: 0, 1: 1}}
FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def load(folder: Path, **values: Any) -> params.Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"data": DATA, **values}))
    return params.load(path)


def plan(folder: Path, name: str = "x", **over: Any) -> Path:
    path = folder / "plan/plan.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, "name": name, "values": PLANNED | over}))
    return path


def test_the_section_data_alone_is_enough(tmp_path: Path) -> None:
    p = load(tmp_path)
    assert p.architectures == ["fcn", "unet", "deeplab"] and set(p.auto) == set(PLANNED)
    with pytest.raises(ParamsError, match="no plan"):
        p.require_plan()
    plan(tmp_path, **{"train.common.crop": 96, "prepare.window": 128, "split.block": 300})
    p = load(tmp_path)
    p.require_plan()
    assert (p.prepare.window, p.for_architecture("unet").crop, p.split.block) == (128, 96, 300)


def test_data_with_objects_compares_instance_networks_by_objects(tmp_path: Path) -> None:
    p = load(tmp_path, data=DATA | {"instances": "components"})
    assert "mask_rcnn" in p.architectures and p.compare.metric == "f1_50"


def test_a_value_by_hand_is_kept(tmp_path: Path) -> None:
    plan(tmp_path, **{"train.common.crop": 96})
    p = load(
        tmp_path, train={"common": {"crop": 64, "steps": "auto"}}, split={"fractions": AUTO, "block": None}
    )
    assert p.for_architecture("fcn").crop == 64
    assert "train.common.crop" not in p.auto and "train.common.steps" in p.auto
    # null is a value
    assert "split.block" not in p.auto and p.defaults == ()


@pytest.mark.parametrize(
    ("section", "by_hand", "key", "default"),
    [
        ({"split": {"seed": 1}}, {"fractions": FRACTIONS}, "split.block", None),
        ({"prepare": {"window": 64}}, {"stride": 16}, "prepare.spacing", None),
        (
            {"train": {"common": {"budget": "standard", "steps": 9}}},
            {"common": {"batch": 2, "crop": 32, "validate_every": 3}},
            "train.common.augment.flip",
            True,
        ),
        ({"evaluate": {"flips": True}}, {"tile": 704}, "evaluate.overlap", 64),
    ],
)
def test_what_a_section_lacks_is_auto_unless_it_is_set_by_hand(
    tmp_path: Path, section: dict[str, Any], by_hand: dict[str, Any], key: str, default: Any
) -> None:
    plan(tmp_path)
    p = load(tmp_path, **section)
    assert key in p.auto and p.defaults == ()
    (name,) = section
    p = load(tmp_path, **merge(section, {name: by_hand}))
    assert key not in p.auto and key in p.defaults
    values = p.model_dump() | {"train": {"common": p.for_architecture("unet").model_dump()}}
    assert get(values, key) == default


def test_auto_of_an_architecture_means_as_in_common(tmp_path: Path) -> None:
    plan(tmp_path, **{"train.common.batch": 5})
    p = load(tmp_path, train={"common": {"batch": AUTO}, "unet": {"batch": AUTO}, "fcn": {"batch": 3}})
    assert [p.for_architecture(name).batch for name in ("unet", "fcn")] == [5, 3]


@pytest.mark.parametrize(
    ("values", "window", "crop"),
    [
        ({"train": {"common": {"crop": 512}}}, 512, 512),
        ({"prepare": {"window": 64, "stride": 16}}, 64, 64),
    ],
)
def test_a_crop_or_window_by_hand_can_be_read_before_the_plan_knows_it(
    tmp_path: Path, values: dict[str, Any], window: int, crop: int
) -> None:
    p = load(tmp_path, **values)
    assert (p.prepare.window, p.for_architecture("unet").crop) == (window, crop)


@pytest.mark.parametrize(
    ("seeds", "folds"), [([0, 1, 2], 3), ([0, 1, 2, 3, 4, 5], 3), ([0, 1], None), (["x"], None)]
)
def test_folds_of_the_plan_count_only_with_seeds_that_train_each(
    tmp_path: Path, seeds: list[Any], folds: int | None
) -> None:
    plan(tmp_path, **{"split.folds": 3})
    if seeds == ["x"]:
        with pytest.raises(ParamsError, match="seeds"):
            load(tmp_path, seeds=seeds)
        return
    assert load(tmp_path, seeds=seeds).split.folds == folds
    # a section that is set by hand and leaves folds out has none
    assert load(tmp_path, seeds=seeds, split={"fractions": FRACTIONS}).split.folds is None


def test_the_plan_of_another_dataset_or_version_does_not_count(tmp_path: Path) -> None:
    plan(tmp_path, name="other")
    assert not load(tmp_path).is_planned
    path = plan(tmp_path)
    assert load(tmp_path).is_planned
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": FORMAT + 1}))
    assert not load(tmp_path).is_planned
    del content["values"]["train.common.crop"]
    path.write_text(json.dumps(content))
    assert not load(tmp_path).is_planned


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 1}', "\x00"])
def test_a_damaged_plan_is_named(tmp_path: Path, text: str) -> None:
    plan(tmp_path).write_text(text)
    with pytest.raises(ParamsError, match=r"plan\.json") as error:
        load(tmp_path)
    assert "delete it" in error.value.remedy


def test_a_wrong_value_of_the_plan_is_an_error(tmp_path: Path) -> None:
    plan(tmp_path, **{"train.common.crop": -3})
    with pytest.raises(ParamsError, match="crop"):
        load(tmp_path).for_architecture("unet")


@pytest.mark.parametrize("section", ["split", "prepare", "train"])
@pytest.mark.parametrize("value", [3, [1], "auto", None])
def test_a_section_of_another_type_is_an_error_and_no_crash(tmp_path: Path, section: str, value: Any) -> None:
    with pytest.raises(ParamsError):
        load(tmp_path, **{section: value})


def test_nested_keys() -> None:
    assert get({"a": {"b": None}}, "a.b", 3) is None and get({"a": 1}, "a.b", 3) == 3
