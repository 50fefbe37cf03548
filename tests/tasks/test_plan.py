"""The stage `plan` on data that were really ingested, and params.yaml made complete."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from segcore import params
from segcore.errors import DataError
from segcore.params.planned import AUTO, PLANNED
from tasks.complete import complete, write_plan
from tasks.ingest import ingest
from tasks.plan import plan
from tasks.reporting.plan import plan_rows, plan_text
from tests.support.tiny import make_pairs, values_for


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of which only the data are known, after its ingest."""
    folder = tmp_path_factory.mktemp("project")
    make_pairs(folder / "pictures", count=6)
    write(folder, data=values_for(folder / "pictures")["data"])
    ingest(params.load(folder / "params.yaml").data, folder / "data/ingested", folder / "work")
    return folder


@pytest.fixture
def project(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(ingested, folder)
    monkeypatch.chdir(folder)
    return folder


def write(folder: Path, **values: Any) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def read(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "params.yaml").read_text()))


def planned(folder: Path) -> dict[str, Any]:
    plan(params.load("params.yaml"))
    return dict(json.loads((folder / "plan/plan.json").read_text()))


def test_data_alone_get_a_plan_that_is_the_same_every_time(project: Path) -> None:
    first = planned(project)
    text = (project / "plan/plan.json").read_bytes()
    assert planned(project) == first and (project / "plan/plan.json").read_bytes() == text
    # images of 48 x 56 pixels with squares of up to 13 pixels
    assert first["values"]["train.common.crop"] == 48
    assert first["fingerprint"]["items"] == 6
    p = params.load("params.yaml")
    p.require_plan()
    assert p.for_architecture("unet").crop == 48


def test_values_by_hand_are_named_as_such(project: Path) -> None:
    write(project, data=read(project)["data"], train={"common": {"crop": 32, "steps": 7, "budget": "quick"}})
    content = planned(project)
    by = {d["key"]: d["by"] for d in content["decisions"]}
    assert by["train.common.crop"] == by["train.common.steps"] == "hand"
    assert by["prepare.window"] == "plan" and content["values"]["prepare.window"] == 48
    rows = {row["key"]: row for row in plan_rows(project)}
    assert rows["train.common.crop"]["measured"] == "by hand" and rows["train.common.crop"]["value"] == "32"
    assert "crop 32" in plan_text(plan_rows(project))


def test_a_batch_changes_the_plan_only_with_replan(project: Path) -> None:
    before = planned(project)
    make_pairs(project / "data/batches/tiny/20260101-aaaa", count=20, size=(80, 90))
    data = read(project)["data"]
    p = params.load("params.yaml")
    ingest(p.data, project / "data/ingested", project / "work")
    assert planned(project) == before
    write(project, data=data, retrain={"replan": True})
    after = planned(project)
    assert after["fingerprint"]["items"] == 26
    assert after["values"]["train.common.crop"] != before["values"]["train.common.crop"]


def test_params_yaml_is_completed_for_dvc_and_keeps_its_comments(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(f"# mine\n{path.read_text()}")
    before = params.load(path)
    assert complete(path)
    assert path.read_text().startswith("# mine\n")
    values = read(project)
    assert values["train"]["common"]["crop"] == values["split"]["block"] == AUTO
    assert set(values["train"]) == {"common", "fcn", "unet", "deeplab"}
    after = params.load(path)
    assert set(after.auto) == set(PLANNED)
    assert after.for_architecture("unet") == before.for_architecture("unet")
    assert not complete(path)


def test_completing_changes_no_setting_that_is_there(project: Path) -> None:
    values = values_for(project / "pictures")
    del values["retrain"], values["evaluate"]
    write(project, **values)
    before = params.load("params.yaml")
    assert complete(project / "params.yaml")
    assert read(project)["train"] == values["train"] | {"fcn": {"model": {}}}
    assert read(project)["split"] == values["split"]
    after = params.load("params.yaml")
    assert after.model_dump(exclude={"train"}) == before.model_dump(exclude={"train"})


def test_write_puts_the_values_in_the_place_of_auto(project: Path) -> None:
    complete(project / "params.yaml")
    content = planned(project)
    write_plan(project / "params.yaml")
    p = params.load("params.yaml")
    assert p.auto == () and p.for_architecture("unet").crop == content["values"]["train.common.crop"]
    assert p.split.fractions == content["values"]["split.fractions"]
    assert list((project / "work").glob("params-*.yaml"))


def test_without_a_catalogue_or_an_accepted_item_there_is_no_plan(project: Path) -> None:
    p = params.load("params.yaml")
    with pytest.raises(DataError, match="no catalogue"):
        plan(p, project / "nowhere")
    assert not (project / "plan").exists()
