"""Merging an example into params.yaml: omitted keys are defaults or clear errors; params.yaml is never partial."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from segcore.errors import ParamsError
from segcore.params import Data, Params, Report, Split, load
from tasks.configure import configure

ROOT = Path(__file__).parents[2]
EXAMPLE = {
    "seeds": [0, 1],
    "data": {
        "name": "meadows",
        "source": "/meadows",
        "classes": ["ground", "grass"],
        "background": "ground",
        "colors": [[0, 0, 0], [0, 255, 0]],
        "label_values": {0: "ground", 1: "grass"},
    },
    "split": {"fractions": {"train": 0.5, "validation": 0.2, "test": 0.3}},
    "prepare": {"window": 320, "stride": 64},
    "train": {"common": {"steps": 7}},
    "evaluate": {"tile": 256},
    "compare": {"metric": "dice"},
    "report": {"title": "Meadows"},
}
REQUIRED = [
    (section, key)
    for section, model in (("data", Data), ("split", Split))
    for key, field in model.model_fields.items()
    if field.is_required()
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A params.yaml about another dataset, with settings of its own in every section."""
    values = YAML(typ="safe").load(ROOT / "params.yaml")
    values["split"] |= {"seed": 5, "given": {"test": ["a"]}, "links": []}
    values["report"] |= {"title": "Another", "cases": 4}
    values["evaluate"]["overlap"] = 32
    YAML().dump(values, tmp_path / "params.yaml")
    return tmp_path


def merged(project: Path, values: Any) -> Params:
    (project / "examples").mkdir()
    path = project / "examples" / "meadows.yaml"
    if isinstance(values, str):
        path.write_text(values)
    else:
        YAML().dump(values, path)
    assert configure("meadows", project / "params.yaml", project / "examples")
    return load(project / "params.yaml")


def without(section: str, key: str | None = None) -> dict[str, Any]:
    kept = {name: dict(v) if isinstance(v, dict) else v for name, v in EXAMPLE.items()}
    if key is None:
        del kept[section]
    else:
        kept[section].pop(key, None)
    return kept


def refused(project: Path, values: Any) -> ParamsError:
    """The error of an example; params.yaml stays as it was."""
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ParamsError) as caught:
        merged(project, values)
    assert (project / "params.yaml").read_bytes() == before
    assert not list(project.glob(".params.yaml*"))
    assert "meadows.yaml" in caught.value.what and caught.value.remedy
    return caught.value


def test_an_example_sets_its_keys_and_keeps_other_settings(project: Path) -> None:
    p = merged(project, EXAMPLE)
    assert (p.data.name, p.seeds, p.report.title) == ("meadows", [0, 1], "Meadows")
    assert p.for_architecture("unet").steps == 7
    # overlap belongs to the method, not to the dataset
    assert (p.evaluate.tile, p.evaluate.overlap) == (256, 32)


@pytest.mark.parametrize(("section", "key"), REQUIRED)
def test_a_missing_required_key_is_named(section: str, key: str, project: Path) -> None:
    error = refused(project, without(section, key))
    assert f"{section}.{key} is missing" in error.what and key in error.remedy


def test_split_fractions_are_required() -> None:
    assert ("split", "fractions") in REQUIRED


@pytest.mark.parametrize(("section", "model"), [("data", Data), ("split", Split), ("report", Report)])
def test_keys_missing_in_a_section_about_the_dataset_get_their_defaults(
    section: str, model: Any, project: Path
) -> None:
    values = getattr(merged(project, EXAMPLE), section)
    for key, field in model.model_fields.items():
        if key not in EXAMPLE[section]:
            assert getattr(values, key) == field.get_default(call_default_factory=True), key


@pytest.mark.parametrize("section", Params.model_fields)
def test_a_missing_section_is_a_default_or_named_in_an_error(section: str, project: Path) -> None:
    if section not in EXAMPLE:
        merged(project, EXAMPLE)
    elif section in ("data", "split"):
        assert f"{section}." in refused(project, without(section)).what
    else:
        p = merged(project, without(section))
        assert section != "report" or p.report.title is None


def test_a_file_without_the_sections_of_newer_architectures_gets_them(project: Path) -> None:
    """The stages of an architecture depend on its section of params.yaml."""
    path = project / "params.yaml"
    values = YAML(typ="safe").load(path)
    del values["train"]["unet"]
    YAML().dump(values, path)
    p = merged(project, {**EXAMPLE, "architectures": ["unet", "fcn"]})
    assert p.train["unet"] == {"model": {}} and p.train["fcn"]["model"] == {"variant": "8s"}


@pytest.mark.parametrize("section", Params.model_fields)
def test_an_empty_section_is_a_clear_error(section: str, project: Path) -> None:
    assert section in refused(project, {**EXAMPLE, section: None}).what


@pytest.mark.parametrize(
    "section", ["prepare", "evaluate", "compare", "report", "tracking", "gate", "predict"]
)
def test_an_unknown_key_is_named_with_the_known_ones(section: str, project: Path) -> None:
    over = {**EXAMPLE, section: {**EXAMPLE.get(section, {}), "colour": 1}}
    error = refused(project, over)
    assert f"{section}.colour" in error.what and "known keys" in error.what


def test_an_unknown_section_is_named_with_the_known_ones(project: Path) -> None:
    error = refused(project, {**EXAMPLE, "training": {}})
    assert "'training'" in error.what and "train" in error.remedy


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [\n", "just words\n"])
def test_an_example_that_is_not_yaml_with_sections_is_a_clear_error(text: str, project: Path) -> None:
    refused(project, text)


def test_a_section_that_params_yaml_lacks_is_added(project: Path) -> None:
    yaml = YAML(typ="rt")
    values = yaml.load(project / "params.yaml")
    del values["report"], values["gate"]
    yaml.dump(values, project / "params.yaml")
    p = merged(project, {**EXAMPLE, "gate": {"margin": 0.1}})
    assert (p.report.title, p.gate.margin) == ("Meadows", 0.1)


def test_every_example_of_the_project_applies(tmp_path: Path) -> None:
    for example in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
        configure(example.stem, tmp_path / "params.yaml", ROOT / "examples", source="elsewhere")
        assert load(tmp_path / "params.yaml").data.source == "elsewhere"


def test_every_example_of_the_project_applies_after_one_with_instance_networks(tmp_path: Path) -> None:
    """Which no data without objects can have."""
    path = tmp_path / "params.yaml"
    for example in (ROOT / "examples").glob("*.yaml"):
        shutil.copy(ROOT / "params.yaml", path)
        configure("houses", path, ROOT / "examples")
        assert "mask_rcnn" in load(path).architectures
        configure(example.stem, path, ROOT / "examples", source="elsewhere")
        assert (example.stem == "houses") == ("mask_rcnn" in load(path).architectures)
