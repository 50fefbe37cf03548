"""What DVC runs again when instance networks are added to a comparison, by its own account."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from segcore.params import load
from tasks import plan
from tests.support import plans, workspaces
from tests.support.tiny import make_pairs, values_for


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A project whose stages DVC has records of, with one file as the content of each output."""
    folder = workspaces.copy_code(tmp_path / "project")
    shutil.copy(workspaces.ROOT / "dvc.yaml", folder)
    make_pairs(folder / "pictures", count=2)
    values = values_for("pictures", architectures=["unet", "fcn"], data={"instances": "components"})
    values["train"]["fcn"] = {}
    values["evaluate"]["boundary_tolerance"] = 1
    values["report"] = {"title": "Tiny"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    outputs = [
        "data/ingested",
        "data/packed",
        "data/prepared",
        "ensembles",
        "comparison",
        "reports/tiny/plots",
    ]
    outputs += [f"{kind}/{name}-0" for kind in ("models", "evaluations") for name in ("unet", "fcn")]
    for name in outputs:
        (folder / name).mkdir(parents=True)
        (folder / name / "content").write_text(name)
    plan.write(load(folder / "params.yaml"), plans.facts(), folder / "plan")
    for name in ("splits/tiny.csv", "reports/tiny/scores.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    workspaces.dvc(folder, "commit", "--force")
    assert workspaces.dvc(folder, "status") == "Data and pipelines are up to date.\n"
    return folder


def test_instance_networks_retrain_no_semantic_one(recorded: Path) -> None:
    code, path = recorded / "segcore/models/mask_rcnn.py", recorded / "params.yaml"
    code.write_text(code.read_text() + "\n")
    values = yaml.safe_load(path.read_text())
    added = ["mask_rcnn", "yolact", "solo"]
    values["architectures"] += added
    values["train"] |= {name: {"model": {"width": 8}} for name in added}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    changed = set(json.loads(workspaces.dvc(recorded, "status", "--json")))
    new = {f"{stage}@{name}-0" for stage in ("train", "evaluate") for name in added}
    # the stage ensemble trains nothing
    assert changed == {*new, "ensemble", "compare", "report"}
