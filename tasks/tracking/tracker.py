"""Runs of one data set in MLflow: the tracker is opened once, and handed to everything that logs or reads runs."""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segcore.params import Params
from tasks.process_marks import is_alive, process_mark
from tasks.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun


class Tracker(NamedTuple):
    """The opened store, seen from one data set.

    Attributes:
        client: of the store.
        address: of the store.
        dataset: name of the data set, of its experiment and of its registered model.
    """

    client: "MlflowClient"
    address: str
    dataset: str

    @classmethod
    def open(cls, p: Params) -> "Tracker":
        """The tracker of `data.name`; the same store is opened once per process.

        Raises:
            StageError: the store cannot be reached or used.
        """
        address = store.uri(p)
        return cls(_client(address), address, p.data.name)

    def experiment(self) -> str:
        """Id of the data set's experiment, created or restored where needed."""
        return _experiment(self.client, self.dataset)

    def find(self, condition: str) -> list["MlflowRun"]:
        """Runs of the data set that meet an MLflow filter, latest first."""
        found = self.client.get_experiment_by_name(self.dataset)
        if found is None:
            return []
        return list(self.client.search_runs([found.experiment_id], condition, order_by=["start_time DESC"]))

    def create(self, name: str, kind: str, tags: Mapping[str, str] | None = None) -> "Run":
        """A new run with the mark of this process, by which `close_abandoned` finds it."""
        whole = {"kind": kind, "process": process_mark(), **(tags or {})}
        created = self.client.create_run(self.experiment(), run_name=name, tags=whole)
        return Run(self.client, created.info.run_id)

    def close_abandoned(self) -> list[str]:
        """Mark as FAILED the RUNNING runs whose process is dead; returns their ids."""
        running = self.find("attributes.status = 'RUNNING'")
        dead = [run for run in running if run.data.tags.get("process") and not is_running(run)]
        return self._fail(dead)

    def close_of_flow_run(self, flow_run: str) -> list[str]:
        """Mark as FAILED the RUNNING runs that a dead flow run on another machine left behind; returns their ids.

        The next training with the same run_key then continues such a run instead of making a second one.
        """
        return self._fail(
            self.find(f"attributes.status = 'RUNNING' and tags.prefect_flow_run_id = '{flow_run}'")
        )

    def _fail(self, runs: list["MlflowRun"]) -> list[str]:
        ids = [run.info.run_id for run in runs]
        for run_id in ids:
            self.client.set_terminated(run_id, "FAILED")
        return ids


def is_running(run: "MlflowRun") -> bool:
    """Whether `run` is RUNNING and the process that logs to it is alive."""
    mark = run.data.tags.get("process")
    return run.info.status == "RUNNING" and mark is not None and is_alive(mark)


@lru_cache(maxsize=4)
def _client(address: str) -> "MlflowClient":
    return store.open_client(address)


def _experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment `name`, created, or brought back from the bin, where needed."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


class Run(NamedTuple):
    """An MLflow run to log to."""

    client: "MlflowClient"
    id: str

    def log_step(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log values by name, such as `train/loss` and `val/iou`, as of an optimiser step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(
            self.id, [Metric(metric_key(k), float(v), now, step) for k, v in metrics.items()]
        )

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters; one that has another value already (in a resumed run) becomes a tag, as it cannot change."""
        from mlflow.entities import Param

        there = self.client.get_run(self.id).data.params
        named = {metric_key(name): str(value) for name, value in values.items()}
        new = [Param(name, value) for name, value in named.items() if name not in there]
        self.client.log_batch(self.id, params=new)
        self.tag({name: value for name, value in named.items() if there.get(name, value) != value})

    def log_files(self, path: Path, folder: str | None = None) -> None:
        """Store a file, or all of a folder, among the run's artifacts."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def log_image(self, path: Path, key: str, step: int = 0) -> None:
        """Add a picture to the slider `key`."""
        from PIL import Image

        with Image.open(path) as image:
            self.client.log_image(self.id, image.convert("RGB"), key=key, step=step)

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags; a value of None is left out."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items() if v is not None])


def metric_key(name: str) -> str:
    """`name` with every character that MLflow refuses (such as an accent or a bracket) replaced by `_`."""
    return re.sub(r"[^0-9A-Za-z_\-. :/]", "_", name)
