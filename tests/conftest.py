"""Small real data, built in code."""

import os
from pathlib import Path

import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers on two cores; tiny networks gain nothing from threads
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from tests.support.tiny import make_pairs, make_scene, params_for


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder of twelve PNG pairs of 48 x 56 pixels."""
    return make_pairs(tmp_path / "source")


@pytest.fixture(scope="session")
def prepared_scene(tmp_path_factory: pytest.TempPathFactory):
    """Prepared data of one GeoTIFF of 256 x 256 pixels in blocks of 64: (params, PreparedData)."""
    from segcore.data.prepared import PreparedData
    from tasks.ingest import ingest
    from tasks.prepare import prepare

    root = tmp_path_factory.mktemp("scene")
    p = params_for(make_scene(root / "source"), scene=True)
    ingest(p.data, root / "ingested")
    return p, PreparedData(prepare(p, root / "ingested", root / "prepared"))


# The longest files, longest first: --dist loadfile hands files out in this order (make test tells it not to begin
# with those of most tests), so that no worker is alone with one of them at the end.
LONGEST = (
    "tasks/test_promote.py",
    "segcore/training/test_distributed.py",
    "tasks/test_steps.py",
    "segcore/models/test_architectures.py",
    "tasks/test_predict.py",
    "tasks/tracking/test_runs.py",
    "segcore/inference/test_predictor.py",
    "system/bad_inputs/test_bad_inputs.py",
    "tasks/test_receive.py",
    "segcore/promotion/test_gate.py",
    "tasks/versioning/test_remote.py",
    "system/bad_inputs/test_fuzz.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files first, and leave the order otherwise as it is."""
    places = {str(Path(__file__).parent / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONGEST)))
