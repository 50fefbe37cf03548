"""Runs of one data set in MLflow: the tracker is opened once and passed to all code that logs or reads runs."""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from segcore.names import key_of
from segcore.params import Params
from tasks.process_marks import is_alive, process_mark
from tasks.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset
    from mlflow.entities import Run as MlflowRun


# largest number of metrics per request to MLflow
_METRICS_AT_ONCE = 1000
# with this tag MLflow's UI opens an experiment in the view of model trainings, not that of traces
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class Tracker(NamedTuple):
    """An open store and the data set whose runs are read and logged.

    Attributes:
        client: MLflow client of the store.
        address: address of the store.
        dataset: name of the data set; its experiment and its registered model have the same name.
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
        """Id of the data set's experiment, which is created or restored where needed."""
        return _experiment(self.client, self.dataset)

    def experiment_if_any(self) -> str | None:
        """Id of the data set's experiment; None if there is none."""
        found = self.client.get_experiment_by_name(self.dataset)
        return None if found is None else str(found.experiment_id)

    def find(self, condition: str) -> list["MlflowRun"]:
        """Runs of the data set that meet an MLflow filter, latest first."""
        experiment = self.experiment_if_any()
        if experiment is None:
            return []
        runs = self.client.search_runs([experiment], condition, order_by=["start_time DESC"])
        return list(runs)

    def create(self, name: str, kind: str, tags: Mapping[str, str] | None = None) -> "Run":
        """Create a run; its tag `process` identifies this process for `close_abandoned`."""
        all_tags = {"kind": kind, "process": process_mark(), **(tags or {})}
        created = self.client.create_run(self.experiment(), run_name=name, tags=all_tags)
        return Run(self.client, created.info.run_id)

    def close_abandoned(self) -> list[str]:
        """Set RUNNING runs whose process is dead to FAILED; returns their ids."""
        running = self.find("attributes.status = 'RUNNING'")
        dead = [run for run in running if run.data.tags.get("process") and not is_running(run)]
        return self._fail(dead)

    def close_of_flow_run(self, flow_run: str) -> list[str]:
        """Set RUNNING runs of a dead flow run on another machine to FAILED; returns their ids.

        The next training with the same run_key then continues such a run and does not create a second one.
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
    """Whether the run is RUNNING and the process that logs to it is alive."""
    mark = run.data.tags.get("process")
    return run.info.status == "RUNNING" and mark is not None and is_alive(mark)


@lru_cache(maxsize=4)
def _client(address: str) -> "MlflowClient":
    return store.open_client(address)


def _experiment(client: "MlflowClient", name: str) -> str:
    """Id of the experiment `name`, which is created, or restored if it was deleted; a kind that it has is kept."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, tags=_KIND))
        except MlflowException:
            # another process may have created it meanwhile
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    # of an earlier version of segflow
    for tag in _KIND.keys() - experiment.tags:
        client.set_experiment_tag(experiment.experiment_id, tag, _KIND[tag])
    return str(experiment.experiment_id)


class Run(NamedTuple):
    """An MLflow run to log to.

    Attributes:
        client: MLflow client of the store.
        id: of the run.
        model_id: of the logged model whose metrics are those of the run as well; None: there is none.
        dataset: on which they are measured.
    """

    client: "MlflowClient"
    id: str
    model_id: str | None = None
    dataset: "Dataset | None" = None

    @classmethod
    def of_model(cls, client: "MlflowClient", training: "MlflowRun") -> "Run":
        """The run of a training, to log the scores and costs of its model; earlier versions logged no model."""
        models = training.outputs.model_outputs if training.outputs else []
        inputs = training.inputs.dataset_inputs if training.inputs else []
        model_id = models[0].model_id if models else None
        return cls(client, training.info.run_id, model_id, inputs[0].dataset if inputs else None)

    def log_step(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log values by name, such as `train/loss` and `val/iou`, at an optimiser step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        of_model: dict[str, str | None] = {"model_id": self.model_id}
        if self.model_id and self.dataset:
            of_model |= {"dataset_name": self.dataset.name, "dataset_digest": self.dataset.digest}
        logged = [Metric(key_of(k), float(v), now, step, **of_model) for k, v in metrics.items()]
        for first in range(0, len(logged), _METRICS_AT_ONCE):
            self.client.log_batch(self.id, logged[first : first + _METRICS_AT_ONCE])

    def log_params(self, values: Mapping[str, object]) -> None:
        """Log parameters; where a resumed run has another value, which MLflow cannot change, the new one is a tag."""
        from mlflow.entities import Param

        logged = self.client.get_run(self.id).data.params
        named = {key_of(name): str(value) for name, value in values.items()}
        new = [Param(name, value) for name, value in named.items() if name not in logged]
        self.client.log_batch(self.id, params=new)
        self.tag({name: value for name, value in named.items() if logged.get(name, value) != value})

    def log_files(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder, as artifacts of the run."""
        if path.is_dir():
            self.client.log_artifacts(self.id, str(path), folder)
        else:
            self.client.log_artifact(self.id, str(path), folder)

    def log_image(self, path: Path, key: str, step: int = 0) -> None:
        """Add a picture to the image series `key`, which the UI shows with a slider."""
        from PIL import Image

        with Image.open(path) as image:
            self.client.log_image(self.id, image.convert("RGB"), key=key, step=step)

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags, except those with the value None."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items() if v is not None])
