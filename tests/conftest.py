"""Fixtures that are shared because they take long to make, and the order of test files."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# two workers on two cores; tiny networks run no faster with threads
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

from tests.support.tiny import ANNOTATED, make_annotated, make_pairs, make_scene, params_for

TESTS = Path(__file__).parent
# Folders whose files take longest. `--dist loadfile` assigns files to workers in order, so short ones come last and no
# worker is idle at the end.
LONGEST_FIRST = ("system", "flows", "tasks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the folders of long tests first, and leave the order otherwise as it is."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(TESTS).parts[0], len(places)))


@pytest.fixture(scope="module", autouse=True)
def freeze_imported_objects() -> Iterator[None]:
    """Exclude the million objects of torch and others from collection, with which each training starts."""
    gc.freeze()
    yield
    gc.unfreeze()


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


@pytest.fixture(scope="session")
def prepared_annotated(tmp_path_factory: pytest.TempPathFactory):
    """Prepared data of twelve images of 48 x 56 pixels with masks of three annotators: (params, PreparedData)."""
    from segcore.data.prepared import PreparedData
    from tasks.ingest import ingest
    from tasks.prepare import prepare

    root = tmp_path_factory.mktemp("annotated")
    p = params_for(make_annotated(root / "source"), data=ANNOTATED)
    ingest(p.data, root / "ingested")
    return p, PreparedData(prepare(p, root / "ingested", root / "prepared"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """Address of the API of a running Prefect server; one that does not answer is restarted, at most twice."""
    from tests.support import prefect_server

    logs = []
    for _ in range(3):
        with prefect_server.started() as (api, answers, log):
            if answers:
                yield api
                return
        logs.append(log)
    pytest.fail(f"no Prefect server after three tries; the log of the last one:\n{logs[-1]}")


@pytest.fixture(scope="session")
def after_first_round(tmp_path_factory: pytest.TempPathFactory, server: str) -> Path:
    """A project after its first round of retraining, to be copied by `retraining.copy`; shared by xdist's workers."""
    from tests.support import retraining

    base = tmp_path_factory.getbasetemp()
    return retraining.first_round(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base, server)
