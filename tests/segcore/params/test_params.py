"""params.yaml: values are checked, and unknown keys are errors."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from segcore import params
from segcore.class_colors import default_colors
from segcore.errors import ParamsError
from tests.support.tiny import params_for, values_for

ROOT = Path(__file__).parents[3]


def load(tmp_path, **over):
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values_for("somewhere", **over)))
    return params.load(path)


def test_the_projects_own_file_is_valid():
    p = params.load(ROOT / "params.yaml")
    assert set(p.architectures) == {"fcn", "unet", "deeplab"} and len(p.data.classes) == 2


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"sedes": [1]}, r"unknown key 'sedes', did you mean seeds\? known keys there: architectures"),
        (
            {"split": {"bufer": 3}},
            r"'split.bufer', did you mean buffer\? known keys there: block, buffer, folds",
        ),
        ({"train": {"common": {"magnify": 0.7}}}, r"magnify: must be a whole number or one divided by one"),
        (
            {"train": {"common": {"weights": "sample"}}},
            r"train.common: weights: 'sample' is now called 'imagenet'",
        ),
        ({"train": {"common": {"epochs": 3}}}, r"unknown key 'train.common.epochs', did you mean steps\?"),
        ({"train": {"unet": {"lr": 0.1}}}, r"train.unet: unknown key 'lr', did you mean learning_rate\?"),
        ({"train": {"common": {"batch_size": 3}}}, r"'train.common.batch_size', did you mean batch\?"),
        ({"predict": {"zzz": 3}}, r"unknown key 'predict.zzz'; known keys there: accept, blend"),
        (
            {"train": {"common": {"stepz": 3}}},
            r"'train.common.stepz', did you mean steps\? known keys there: .*steps",
        ),
        (
            {"train": {"unet": {"augment": {"flipp": 1}}}},
            r"train.unet: unknown key 'augment.flipp', did you mean flip\? .*flip",
        ),
        (
            {"train": {"unnet": {}}},
            r"train.unnet is unknown; known: common, deeplab, fcn, mask_rcnn, solo, unet, yolact",
        ),
        (
            {"architectures": ["unet", "mask_rcnn"]},
            r"architectures: mask_rcnn is an instance network, but the data have no objects: set data.instances to "
            r"true .* or compare semantic networks alone: architectures: \[unet\]",
        ),
        (
            {"architectures": ["solo"], "data": {"instances": True}, "evaluate": {"flips": True}},
            r"evaluate.flips: true is not possible with solo, .*: set it to false",
        ),
        (
            {"architectures": ["segnet"]},
            r"'segnet' is unknown; known: deeplab, fcn, mask_rcnn, solo, unet, yolact",
        ),
        ({"data": {"colors": [[0, 0, 0]]}}, r"colors has 1 entries for 2 classes"),
        ({"data": {"label_values": {0: 0, 9: 5}}}, r"label_values names 5; known: ignore, background"),
        ({"data": {"unlabelled": "sqare"}}, r"unlabelled 'sqare' is neither `ignore` nor one of the classes"),
        ({"data": {"crowds": "keep"}}, r"crowds.*'ignore' or 'objects'"),
        ({"split": {"fractions": {"train": 0.9}}}, r"sum to 1"),
        ({"train": {"common": {"crop": 64}}}, r"crop 64 is larger than prepare.window 40"),
        ({"evaluate": {"overlap": 60}}, r"overlap 60 is more than half of tile 64"),
    ],
)
def test_mistakes_are_named_with_what_is_known(tmp_path, over, expected):
    with pytest.raises(ParamsError, match=expected) as caught:
        load(tmp_path, **over)
    assert "Remedy: correct params.yaml" in str(caught.value)
    assert "Value error" not in str(caught.value) and "file:" not in str(caught.value)


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({"data": {"colors": [[0, 0, 300], [1, 2, 3]]}}, "data.colors.0.2: must be at most 255, not 300"),
        ({"data": {"colors": [[0, 0], [1, 2, 3]]}}, "data.colors.0.2: is missing"),
        (
            {"data": {"colors": ["red", "#00ff00"]}},
            "data.colors: 'red' is no colour: write \"#RRGGBB\" in quotes",
        ),
        ({"data": {"classes": ["a"]}}, "data.classes: needs 2 or more entries, not 1"),
        (
            {"data": {"name": "My Data"}},
            'data.name: "My Data" does not fit: lower-case letters a to z, digits',
        ),
        ({"data": {"scale": 3}}, "data.scale: .*'item' or a list in brackets is needed, not 3"),
        ({"data": {"scale": [1]}}, r"params.yaml: data.scale.1: is missing\n"),
        (
            {"data": {"instances": "maybe"}},
            "data.instances: true, false or 'components' is needed, not \"maybe\"",
        ),
        (
            {"data": {"instances": "components", "objects": "{stem}_id.tif"}},
            "data: instances: components numbers the objects, and so does the raster that objects names: remove one",
        ),
        (
            {"data": {"touching": True}},
            "data: touching: true needs objects, which are used only where data.instances or data.objects is set: set",
        ),
        (
            {"data": {"touching": True, "masks": "shapes/{stem}.geojson"}},
            "data: touching: true needs objects, which are used only where data.instances or data.objects is set: set",
        ),
        ({"data": {"trust_shape": "maybe"}}, 'data.trust_shape: true or false is needed, not "maybe"'),
        (
            {"data": {"splits": {"a": "val"}}},
            "data.splits.a: 'train', 'validation' or 'test' is needed, not \"val\"",
        ),
        ({"data": None}, "data: a section of keys and values is needed, not null"),
        ({"evaluate": {"tile": "512 px"}}, 'evaluate.tile: a whole number is needed, not "512 px"'),
        ({"seeds": 3}, "seeds: a list in brackets is needed, not 3"),
        (
            {"train": {"common": {"speed": {"threads": 0}}}},
            "train.common: speed.threads: must be at least 1, not 0",
        ),
        (
            {"train": {"common": {"steps": 0}, "unet": {"steps": None}}},
            "train.common: steps: must be at least 1",
        ),
        ({"train": {"unet": {"steps": 0}}}, "train.unet: steps: must be at least 1, not 0"),
        (
            {"train": {"common": {"steps": 0}, "fcn": {"batch": 0}}, "architectures": ["fcn"]},
            "train.common: steps: must be at least 1, not 0; train.fcn: batch: must be at least 1, not 0",
        ),
        ({"data": {"classes": ["ignore", "square"]}}, "'ignore' cannot be the name of a class"),
        ({"data": {"classes": ["background", "a\nb"]}}, "'a.nb' has a line break or control character"),
        ({"data": {"classes": ["background", "a\ufffe"]}}, "'a.ufffe' has a line break or control character"),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(tmp_path, over, expected):
    with pytest.raises(ParamsError, match=expected) as caught:
        load(tmp_path, **over)
    assert not re.search(r"Input should|\bvalid\b|instance of|tuple|dict|String|literal", caught.value.what)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "params.yaml").write_text("# nothing\n")
    with pytest.raises(ParamsError, match=r"params\.yaml: is empty"):
        params.load(tmp_path / "params.yaml")


def test_colours_are_lists_or_hexadecimal_and_null_is_the_default(tmp_path):
    assert load(tmp_path, data={"colors": ["#000000", "#0aFf10"]}).data.colors == [(0, 0, 0), (10, 255, 16)]
    assert load(tmp_path, data={"colors": [[0, 0, 0], [10, 255, 16]]}).data.colors == [
        (0, 0, 0),
        (10, 255, 16),
    ]
    assert load(tmp_path, data={"colors": None}).data.colors == default_colors(2, 0)


def test_missing_or_broken_files_are_named(tmp_path):
    with pytest.raises(ParamsError, match="no such file"):
        params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1")
    with pytest.raises(ParamsError, match="not valid YAML"):
        params.load(tmp_path / "params.yaml")


def test_an_architecture_overrides_the_common_section_key_by_key():
    train = {
        "common": {"augment": {"flip": False}},
        "unet": {"learning_rate": 0.5, "augment": {"scale": 2.0}},
    }
    p = params_for("x", train=train)
    unet, fcn = p.for_architecture("unet"), p.for_architecture("fcn")
    assert (unet.learning_rate, fcn.learning_rate) == (0.5, 1e-3)
    assert (unet.augment.flip, unet.augment.scale, fcn.augment.scale) == (False, 2.0, 1.25)


def test_numbers_and_words_as_label_values_are_quoted_because_dvc_sorts_them(tmp_path):
    values = values_for("s", data={"label_values": {0: 0, "others": 1}})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(ParamsError, match=r"both numbers and words as keys") as caught:
        params.load(tmp_path / "params.yaml")
    line = caught.value.remedy.partition("put the numbers in quotes: ")[2]
    values["data"] |= yaml.safe_load(line)
    assert values["data"]["label_values"] == {"0": 0, "255": 1, "others": 1}
    values["data"]["label_values"] = {"0": 0, "others": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    assert params.load(tmp_path / "params.yaml").data.label_table == {0: 0, "others": 1}


@pytest.mark.parametrize(
    "over",
    [
        {"retrain": {"settle_seconds": float("inf")}},
        {"retrain": {"at_least": {"hours": 1e300}}},
        {"retrain": {"inbox": ""}},
        {"gate": {"approval_hours": float("inf")}},
        {"gate": {"bootstrap": 10**20}},
        {"schedule": {"interval_minutes": 1e-9}},
        {"schedule": {"watch_seconds": 1e300}},
        {"seeds": [-1]},
        {"seeds": [10**30]},
        {"seeds": [0, 0]},
        {"architectures": ["unet", "unet"]},
    ],
)
def test_values_that_would_fail_in_the_middle_of_a_round_are_refused(tmp_path, over):
    (key,) = over
    with pytest.raises(ParamsError, match=key):
        load(tmp_path, **over)


def test_limits_of_differences_may_be_1_or_more_only_for_metrics_without_an_upper_limit(tmp_path):
    for key in ("margin", "not_worse"):
        with pytest.raises(
            ParamsError, match=rf"gate\.{key}: 2 is not below 1: scores of iou are between 0 and 1"
        ):
            load(tmp_path, gate={key: 2})
        for metric in ("count_error_area", "false_objects", "count_error"):
            over = {"compare": {"metric": metric}, "data": {"instances": "components"}, "gate": {key: 2}}
            assert getattr(load(tmp_path, **over).gate, key) == 2
            with pytest.raises(ParamsError, match=key):
                load(tmp_path, **over | {"gate": {key: -1}})


@pytest.mark.parametrize("text", ["seeds: 2026-13-45", "seeds: " + "9" * 5000, "seeds: " + "[" * 5000])
def test_yaml_that_the_parser_itself_cannot_convert_is_named(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match=r"params\.yaml: is not valid YAML"):
        params.load(path)


def test_a_duplicate_key_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seeds: [0]\ngate: {margin: 0.1}\ngate: {margin: 0.2}\n")
    with pytest.raises(ParamsError, match=r"duplicate key 'gate'[\s\S]*line"):
        params.load(path)


def test_a_floor_of_neither_a_class_nor_a_slice_is_found_when_the_file_is_read():
    assert params_for("x", gate={"floors": {"square": 0.5, "site=oslo": 0.5}}).gate.floors["square"] == 0.5
    with pytest.raises(
        ValueError, match=r"gate.floors: 'sqare' is neither a class .* classes: background, square"
    ):
        params_for("x", gate={"floors": {"sqare": 0.5}})


@pytest.mark.parametrize("key", ["background", "background site=oslo"])
def test_a_floor_of_objects_of_the_background_is_found_when_the_file_is_read(key):
    of_objects = {"data": {"instances": "components"}, "compare": {"metric": "pq"}}
    assert params_for("x", gate={"floors": {key: 0.5}}).gate.floors[key] == 0.5
    params_for("x", gate={"floors": {"square": 0.5, "site=oslo": 0.5}}, **of_objects)
    with pytest.raises(ValueError, match=f"gate.floors: '{key}' is of the background, which has no objects"):
        params_for("x", gate={"floors": {key: 0.5}}, **of_objects)
    with pytest.raises(ValueError, match=f"gate.floors: '{key}' is of the background, which has no score of"):
        params_for("x", gate={"floors": {key: 5}}, compare={"metric": "hd95"})


def test_a_file_without_a_tolerance_of_surfaces_has_the_default_and_a_wrong_one_is_refused():
    assert params_for("x").evaluate.surface_tolerance == 2.0
    for wrong in (0, -1, float("nan"), float("inf"), "2 mm"):
        with pytest.raises(ValueError, match=r"evaluate.surface_tolerance"):
            params_for("x", evaluate={"surface_tolerance": wrong})


@pytest.mark.parametrize(
    "data",
    [
        {"instances": True},
        {"instances": "components"},
        {"objects": "ids/{stem}.tif"},
        {"masks": "houses.geojson", "instances": True},
    ],
)
def test_touching_may_be_set_where_objects_are_used(data):
    assert params_for(".", data={**data, "touching": True}).data.touching


@pytest.mark.parametrize(
    ("architectures", "train", "text"),
    [
        (
            ["mask_rcnn"],
            {"common": {"postprocess": "crf"}},
            r"train\.common\.postprocess: crf is for semantic",
        ),
        (["yolact", "solo"], {"common": {"postprocess": "auto"}}, r"train\.common\.postprocess: auto .*unet"),
        (["solo"], {"common": {"class_weights": "balanced"}}, r"train\.common\.class_weights: balanced"),
        (
            ["unet", "solo"],
            {"solo": {"postprocess": "crf"}},
            r"train\.solo\.postprocess: crf .*set it to null",
        ),
        (["unet", "yolact"], {"yolact": {"loss": "focal"}}, r"train\.yolact\.loss: focal is for semantic"),
    ],
)
def test_settings_of_semantic_networks_need_one(
    architectures: list[str], train: dict[str, Any], text: str
) -> None:
    of_objects = {"data": {"instances": "components"}, "compare": {"metric": "f1_50"}}
    with pytest.raises(ValueError, match=text):
        params_for("source", architectures=architectures, train=train, **of_objects)


def test_settings_of_semantic_networks_in_common_do_not_concern_instance_networks_beside_them() -> None:
    of_objects = {"data": {"instances": "components"}, "compare": {"metric": "f1_50"}}
    common = {"postprocess": "crf", "class_weights": "balanced", "loss": "focal"}
    own = {"postprocess": "none", "loss": None}
    params_for("source", architectures=["unet", "solo"], train={"common": common, "solo": own}, **of_objects)
