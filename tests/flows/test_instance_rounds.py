"""Three rounds of an instance network, judged by metrics of objects; the champion's prediction has objects."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio
from mlflow import MlflowClient

from tests.support import retraining, workspaces


def champion(folder: Path) -> str:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return str(client.get_model_version_by_alias("tiny", "champion").version)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_instance_networks_are_retrained_judged_by_objects_and_promoted(tmp_path: Path, server: str) -> None:
    folder = retraining.project(
        tmp_path / "project", data={"instances": "components"}, compare={"metric": "pq"}
    )
    common = {"steps": 80, "validate_every": 80, "batch": 4, "learning_rate": 0.005}
    train = {"common": common, "solo": {"model": {"width": 16}}}
    retraining.edit(folder, architectures=["solo"], train=train)
    retraining.use_constant_costs(folder)
    retraining.use_lenient_gate(folder)

    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 0 and "SOLOv2 becomes the first champion" in output, output
    assert champion(folder) == "1"

    retraining.arrive(folder, ["n1", "n2"], seed=300)
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 0 and "Promoted:" in output, output
    assert champion(folder) == "2"
    (second,) = retraining.batches(folder)
    decided = retraining.record(folder, second)
    assert decided["basis"]["metric"] == "pq" and decided["champion"]["title"] == "SOLOv2"
    assert decided["champion"]["scores"]["frozen"] > 0

    retraining.edit(folder, retrain={"warm_start": {"enabled": True, "steps": 10}})
    retraining.edit(
        folder, compare={"metric": "f1_50"}, gate={"cheaper": 0.1, "not_worse": 0.001, "margin": 0.5}
    )
    retraining.arrive(folder, ["n3"], seed=310)
    status, output = retraining.retrain(folder, PREFECT_API_URL=server)
    assert status == 0 and "Kept:" in output, output
    start = json.loads((folder / "models/solo-0/model.json").read_text())["initial_weights"]
    assert start.startswith("of the champion")
    assert champion(folder) == "2"
    # names of batches of one day are in no certain order
    (third,) = set(retraining.batches(folder)) - {second}
    assert retraining.record(folder, third)["basis"]["metric"] == "f1_50"

    scene = folder / "pictures/images/a0.png"
    command = [
        sys.executable,
        "-m",
        "flows.predict",
        str(scene.parent),
        "--model",
        "champion",
        "--output",
        "out",
    ]
    done = subprocess.run(
        [*command, "--outputs", "objects,counts"],
        cwd=folder,
        env=workspaces.environment(folder, PREFECT_API_URL=server),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for path in sorted((folder / "out").rglob("*_objects.tif")):
        with rasterio.open(path) as numbers:
            assert numbers.dtypes == ("uint32",)
            found.append(int(numbers.read(1).max()))
    assert len(found) == 12 and sum(found) > 0
