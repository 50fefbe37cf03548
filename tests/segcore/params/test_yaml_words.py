"""Words and numbers in params.yaml mean what DVC reads there, and names that would collide are refused."""

import math
from pathlib import Path

import pytest
import yaml
from ruamel.yaml import YAML

from segcore import params
from segcore.errors import ParamsError
from segcore.params import yaml_file
from segcore.params.yaml_file import Unquoted
from tests.support.tiny import values_for

ROOT = Path(__file__).parents[3]
WORDS = """yes no on off y n Yes NO Off true True FALSE null ~ 1 0 -3 +4 1_000 1e-3 1E5 1.5e3 .5 1. -1.5 .inf -.inf .nan
1.2.3 1e 0.10 01.5 nan inf building 0-127 "010" 'yes' 010 008 0x1F 0o17 0b11 1:30"""


def text(**data: str) -> str:
    """params.yaml of a tiny project, with these texts of `data` as they are."""
    values = values_for("somewhere")
    for key in data:
        values["data"].pop(key, None)
    lines = yaml.safe_dump(values, sort_keys=False).replace("data:\n", "data:\n  @\n", 1)
    return lines.replace("@", "\n  ".join(f"{key}: {value}" for key, value in data.items()))


def load(tmp_path: Path, content: str) -> params.Params:
    path = tmp_path / "params.yaml"
    path.write_text(content, encoding="utf-8")
    return params.load(path)


@pytest.mark.parametrize("word", WORDS.split())
def test_a_scalar_is_what_dvc_reads_or_is_marked_as_ambiguous(tmp_path: Path, word: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(word)
    ours, dvcs = yaml_file.read(path), YAML(typ="safe").load(word)
    if isinstance(ours, Unquoted):
        assert ours == word and word[:1].isdigit()
    elif isinstance(dvcs, float) and math.isnan(dvcs):
        assert math.isnan(ours)
    else:
        assert (ours, type(ours)) == (dvcs, type(dvcs))


@pytest.mark.parametrize(
    ("keys", "table"),
    [
        ("{yes: thing}", {"yes": 1}),
        ("{yes: thing, house: thing, no: background}", {"yes": 1, "house": 1, "no": 0}),
        ("{on: 1, off: 0, y: 1, n: 0}", {"on": 1, "off": 0, "y": 1, "n": 0}),
        ("{true: thing, false: background}", {"true": 1, "false": 0}),
        ("{0: 0, 255: 1}", {0: 0, 255: 1}),
    ],
)
def test_yes_no_on_and_off_are_words_in_label_values(
    tmp_path: Path, keys: str, table: dict[str, int]
) -> None:
    p = load(tmp_path, text(classes="[background, thing]", label_values=keys, colors="[]"))
    assert p.data.label_table == table and len(p.data.colors) == 2


def test_yes_and_no_are_words_as_classes_and_switches_where_a_setting_is_one(tmp_path: Path) -> None:
    content = text(classes="[no, yes]", background="no", label_values="{0: no, 1: yes}").replace(
        "split:\n", "split:\n  stratify: no\n", 1
    )
    content = content.replace("  common:\n", "  common:\n    deterministic: off\n    model: {x: yes}\n", 1)
    p = load(tmp_path, content)
    assert p.data.classes == ["no", "yes"] and p.data.label_table == {0: 0, 1: 1}
    assert p.split.stratify is False
    settings = p.for_architecture("unet")
    assert settings.deterministic is False and settings.model["x"] is True


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"label_values": "{010: 1}"}, r'label_values: 010 without quotes[\s\S]*"010"'),
        ({"label_values": "{1:30: 1}"}, r'label_values: 1:30 without quotes[\s\S]*"1:30"'),
        ({"label_values": "{0x1F: 1}"}, r"label_values: 0x1F without quotes"),
        ({"label_values": "{null: 1}"}, r'null without quotes is no value.*"null"'),
        ({"label_values": "{0: backgroud}"}, r"names 'backgroud', did you mean background\?"),
        ({"classes": "[1, 2]"}, r"data\.classes\.0: a word is needed: put 1 in quotes"),
        ({"classes": "[true, x]"}, r"data\.classes\.0: a word is needed: put true in quotes"),
        ({"name": "010"}, r"data\.name: 010 without quotes"),
        (
            {"classes": "[background, tree (dead), 'tree [dead]']"},
            r"'tree \(dead\)' and 'tree \[dead\]' would share",
        ),
        ({"classes": '[background, "caf\\xe9", "cafe\\u0301"]'}, r"would share one key"),
        ({"classes": "[background, all_mean]"}, r"classes: 'all_mean' cannot be a name"),
        ({"baselines": "{unet: x}"}, r"'unet' and 'unet' would share"),
    ],
)
def test_what_is_ambiguous_or_collides_is_refused_with_the_remedy(
    tmp_path: Path, data: dict[str, str], expected: str
) -> None:
    with pytest.raises(ParamsError, match=expected):
        load(tmp_path, text(**data))


@pytest.mark.parametrize(
    ("over", "meant"),
    [
        ({"steps": 3}, "train.common.steps"),
        ({"train": {"epochs": 3}}, "train.common.steps"),
        ({"data": {"window": 3}}, "prepare.window"),
        ({"train": {"unet": {"num_workers": 3}}}, "train.common.speed.workers"),
    ],
)
def test_a_setting_of_another_section_is_named_with_its_section(
    tmp_path: Path, over: dict[str, object], meant: str
) -> None:
    with pytest.raises(ParamsError, match=rf"did you mean {meant}\?"):
        load(tmp_path, yaml.safe_dump(values_for("somewhere", **over)))


@pytest.mark.parametrize("word", ["2024-01-31", "2026-13-45", "2024-1-31T10:00:00"])
def test_a_date_without_quotes_is_refused_because_dvc_cannot_hash_it(tmp_path: Path, word: str) -> None:
    content = text().replace("split:\n", f"split:\n  given: {{test: [{word}]}}\n", 1)
    with pytest.raises(ParamsError, match=f'{word} without quotes is a date; write "{word}"'):
        load(tmp_path, content)
    quoted = load(tmp_path, content.replace(f"[{word}]", f'["{word}"]'))
    assert quoted.split.given == {"test": [word]}


@pytest.mark.parametrize("architecture", ["fcn", "unet", "deeplab"])
def test_dvc_can_set_each_setting_of_one_architecture(tmp_path: Path, architecture: str) -> None:
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text())
    before = params.load(path)
    apply_overrides(
        path,
        [f"train.{architecture}.{x}" for x in ("steps=90", "learning_rate=0.5", "batch=3", "loss=focal")],
    )
    after = params.load(path)
    changed = after.for_architecture(architecture)
    assert (changed.steps, changed.learning_rate, changed.batch, changed.loss) == (90, 0.5, 3, "focal")
    for other in {"fcn", "unet", "deeplab"} - {architecture}:
        assert after.for_architecture(other) == before.for_architecture(other)


def test_without_the_keys_of_an_architecture_the_common_settings_hold(tmp_path: Path) -> None:
    with_keys = params.load(ROOT / "params.yaml")
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["train"]["unet"] = {"model": values["train"]["unet"]["model"]}
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    assert params.load(path).for_architecture("unet") == with_keys.for_architecture("unet")
    values["train"]["common"]["patience"] = 3
    values["train"]["unet"]["patience"] = None
    path.write_text(yaml.safe_dump(values))
    assert params.load(path).for_architecture("unet").patience is None


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        ("0 - 127", '"0-127"'),
        ("0–127", '"0-127"'),
        ("0..127", '"0-127"'),
        ("0 to 127", '"0-127"'),
        (" 0-127", '"0-127"'),
        ("−5-127", '"-5-127"'),
        ("0-0.5", "whole numbers at both ends"),
        ("0, 1, 2", '{"0": CLASS, "1": CLASS}'),
        (">127", "a range with both ends"),
        ("128+", "a range with both ends"),
        ("1.0", '"1"'),
        ("0.5", "whole numbers"),
        (" 1", '"1"'),
    ],
)
def test_a_key_of_masks_that_looks_like_numbers_is_refused_with_the_way_to_write_it(
    tmp_path: Path, key: str, remedy: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, text(label_values=f'{{"{key}": square, others: background}}'))
    assert f"{key!r} is no value and no range" in str(caught.value) and remedy in str(caught.value)


@pytest.mark.parametrize("key", ["0-127", "-5--1", "7", "010", "tree 2", "B-12"])
def test_ranges_numbers_and_words_are_keys(tmp_path: Path, key: str) -> None:
    assert key in load(tmp_path, text(label_values=f'{{"{key}": square}}')).data.label_values


def test_keys_of_annotations_of_objects_are_words(tmp_path: Path) -> None:
    content = text(label_values='{"0-0.5": square}', masks='"{stem}.json"')
    assert load(tmp_path, content).data.label_values == {"0-0.5": "square"}


@pytest.mark.parametrize(
    "values",
    [
        "{#000000: background, #FF0000: square}",
        '{"#000000": background, #FF0000: square}',
        "{\n    #000000: background,\n    #FF0000: square\n  }",
    ],
)
def test_colours_without_quotes_in_braces_are_refused_with_the_remedy(tmp_path: Path, values: str) -> None:
    with pytest.raises(ParamsError, match="without quotes is a comment") as caught:
        load(tmp_path, text(label_values=values))
    assert "put colours in quotes" in caught.value.remedy


@pytest.mark.parametrize(
    "values", ["{0:background, 255: square}", "{0: background, 255:thing}", "\n    0:background"]
)
def test_a_missing_blank_after_the_colon_is_named(tmp_path: Path, values: str) -> None:
    with pytest.raises(ParamsError, match="has no blank after the colon: write"):
        load(tmp_path, text(label_values=values))


def test_bands_are_counted_from_1(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="bands are counted from 1"):
        load(tmp_path, text(bands="[0, 1, 2]"))


def test_label_values_beside_a_mapping_of_masks_are_refused_unless_baselines_use_them(tmp_path: Path) -> None:
    keys = {"masks": '{square: "masks/{stem}.png"}', "label_values": "{0: square, 255: background}"}
    with pytest.raises(ParamsError, match="label_values has no effect where masks is a mapping"):
        load(tmp_path, text(**keys))
    assert load(tmp_path, text(**keys, baselines='{b: "b/{stem}.png"}')).data.label_values
    assert not load(tmp_path, text(**keys | {"label_values": "{}"})).data.label_values
