"""The real pipeline on six tiny images: which stages run, which are cached, and what MLflow and DVC record."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from ruamel.yaml import YAML

from segcore.files import locked
from tasks.complete import complete
from tasks.project import COMPARE_LOCK
from tests.support import workspaces

PARAMS = """\
architectures: [fcn, unet]
seeds: [0]
data:
  {name: tiny, source: pictures, images: images/*.png, masks: "masks/{stem}.png", valid: null, group: "{stem}",
   baselines: {}, classes: [background, square], background: background, colors: [[0, 0, 0], [255, 179, 0]],
   label_values: {0: 0, 255: 1}}
split:
  seed: 0
  fractions: {train: 0.5, validation: 0.2, test: 0.3}
  block: null
  buffer: 0
  given: {train: [a, b, c], validation: [d], test: [e, f]}
prepare: {window: 64, stride: 32}
train:
  common: {encoder: mobilenet_v2, weights: none, steps: 2, batch: 2, crop: 32, validate_every: 2, warmup_steps: 0}
  fcn: {}
  unet: {learning_rate: 0.001}
evaluate: {tile: 64, overlap: 16, boundary_tolerance: 1, kept_predictions: 2}
compare: {metric: iou, confidence: 0.95, bootstrap: 20, permutations: 20, seed: 0}
report: {title: Tiny, cases: 1}
tracking: {uri: null, system_metrics: false}
retrain: {replan: false}
machine: {slots: 2}
"""
STAGES = {
    "ingest",
    "plan",
    "prepare",
    "train@fcn-0",
    "train@unet-0",
    "evaluate@fcn-0",
    "evaluate@unet-0",
    "compare",
    "report",
}


def draw(folder: Path) -> None:
    """Six images of 64 x 64 pixels with different bright rectangles on noise, and masks of 0 and 255."""
    generator = np.random.default_rng(0)
    for number, name in enumerate("abcdef"):
        pixels = generator.integers(0, 90, (64, 64, 3), dtype=np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        mask[2 + 5 * number : 20 + 7 * number, 40 - 7 * number : 60 - 4 * number] = 255
        pixels[mask > 0] += 120
        for kind, array in (("images", pixels), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{name}.png")


def project(folder: Path) -> Path:
    workspaces.copy_code(folder)
    shutil.copy(workspaces.ROOT / "dvc.yaml", folder)
    (folder / "params.yaml").write_text(PARAMS)
    draw(folder / "pictures")
    return folder


def run_flow(folder: Path, server: str, *arguments: str) -> set[str]:
    """Names of the stages that ran."""
    status, output = workspaces.flow(folder, *arguments, PREFECT_API_URL=server)
    assert status == 0, output
    return {stage for stage in STAGES if f"{stage} ran" in output}


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=workspaces.environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lock(folder: Path) -> object:
    return YAML(typ="safe").load(folder / "dvc.lock")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A workspace in which the flow has run once."""
    folder = project(tmp_path_factory.mktemp("flow") / "project")
    assert run_flow(folder, server) == STAGES
    return folder


def test_the_flow_writes_the_report_and_one_flat_run_per_training(compared: Path) -> None:
    assert (compared / "reports/tiny/index.html").stat().st_size > 1000
    trainings = workspaces.runs(compared, "training")
    assert sorted(run.data.tags["stage"] for run in trainings) == ["train@fcn-0", "train@unet-0"]
    (comparison,) = workspaces.runs(compared, "comparison")
    for run in trainings:
        assert run.info.status == "FINISHED"
        assert "mlflow.parentRunId" not in run.data.tags
        assert run.data.tags["comparison"] == comparison.data.tags["comparison"]
        assert run.data.tags["prefect_flow_run_id"] and run.inputs.dataset_inputs
        assert "test/iou.dataset.foreground_mean" in run.data.metrics
    assert trainings[0].data.metrics.keys() == trainings[1].data.metrics.keys()


def test_the_page_of_the_flow_run_has_two_pictures_and_links_to_mlflow(compared: Path, server: str) -> None:
    (comparison,) = workspaces.runs(compared, "comparison")
    training, *_ = workspaces.runs(compared, "training")
    this = FlowRunFilterId(any_=[UUID(training.data.tags["prefect_flow_run_id"])])
    with SyncPrefectClient(server) as client:
        found = client.read_artifacts(flow_run_filter=FlowRunFilter(id=this))
    shown = {str(artifact.key): str(artifact.data) for artifact in found}
    pictures = [text for key, text in shown.items() if key.startswith("gallery-tiny-")]
    assert len(shown) == 5 and len(pictures) == 2, shown.keys()
    for text in pictures:
        head, _, row = text.splitlines()[-3:]
        assert re.fullmatch(r"\| Image \| Truth \| \S+ [\d.]+ \| \S+ [\d.]+ \|", head), head
        uris = re.findall(r"\((data:image/jpeg;base64,[^)]+)\)", row)
        assert len(uris) == 4
        for uri in uris:
            with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as picture:
                assert picture.size == (64, 64)
    page = f"/#/experiments/{comparison.info.experiment_id}/runs/{comparison.info.run_id}"
    assert f"http://127.0.0.1:5000{page}?workflowType=machine_learning" in shown["mlflow-tiny"]


def test_of_two_comparisons_in_one_folder_the_second_stops_with_a_sentence(
    compared: Path, server: str
) -> None:
    with locked(compared / COMPARE_LOCK):
        status, output = workspaces.flow(compared, PREFECT_API_URL=server)
    assert status == 1 and "Traceback" not in output
    assert "a comparison or a retraining is running in this folder" in output


def test_a_second_flow_runs_no_stage_and_creates_no_run(compared: Path, server: str) -> None:
    before = {
        run.info.run_id for kind in ("training", "comparison") for run in workspaces.runs(compared, kind)
    }
    assert run_flow(compared, server) == set()
    after = {
        run.info.run_id for kind in ("training", "comparison") for run in workspaces.runs(compared, kind)
    }
    assert after == before


@pytest.mark.slow
def test_dvc_repro_writes_the_same_lock_as_the_flow(compared: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "project")
    # as `make repro` does
    complete(folder / "params.yaml")
    dvc(folder, "repro")
    assert lock(folder) == lock(compared)


def test_a_new_metric_reruns_no_evaluation(compared: Path) -> None:
    file = compared / "segcore/metrics/pixel.py"
    text = file.read_text()
    file.write_text(text + "\n\ndef accuracy_of_nothing() -> float:\n    return 1.0\n")
    changed = json.loads(dvc(compared, "status", "--json"))
    file.write_text(text)
    assert set(changed) == {"compare", "report"}


def test_a_changed_setting_of_unet_reruns_only_what_depends_on_it(compared: Path, server: str) -> None:
    old = (compared / "params.yaml").read_text()
    (compared / "params.yaml").write_text(old.replace("learning_rate: 0.001", "learning_rate: 0.01"))
    ran = run_flow(compared, server)
    assert ran >= {"train@unet-0", "evaluate@unet-0", "compare"}
    assert ran <= {"train@unet-0", "evaluate@unet-0", "compare", "report"}
    stages = [run.data.tags["stage"] for run in workspaces.runs(compared, "training")]
    assert sorted(stages) == ["train@fcn-0", "train@unet-0", "train@unet-0"], (
        "the cached training keeps its run"
    )
    assert len(workspaces.runs(compared, "comparison")) == 2


def test_a_network_that_cannot_be_built_stops_the_flow_before_its_first_stage(
    tmp_path: Path, server: str
) -> None:
    folder = project(tmp_path / "project")
    (folder / "params.yaml").write_text(PARAMS.replace("encoder: ", "encoder: timm-", 1))
    status, output = workspaces.flow(folder, PREFECT_API_URL=server)
    assert status == 1 and "Traceback" not in output
    assert re.search(r"Error: params\.yaml: train\.common\.encoder: encoder 'timm-\w+' is unknown", output)
    assert "choose one of mobilenet_v2" in output
    assert not (folder / "data/ingested").exists()
