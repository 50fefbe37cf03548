"""Old runs of a data set in MLflow: which may be deleted, and deleting them with their artifacts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlparse
from urllib.request import url2pathname

from tasks.tracking.logged_models import models_of
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker, is_running

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

# tag of a run that is being deleted: after a kill, the next call completes it
_CLEANED = "segflow.cleaned"


class OldRuns(NamedTuple):
    """Runs that may be deleted.

    Attributes:
        ids: their ids.
        size: bytes of their artifacts.
        before: ms since 1970; runs that began earlier are old; None: there are not that many comparisons.
    """

    ids: list[str]
    size: int
    before: int | None


def old_runs(tracker: Tracker, keep: int, used: Collection[str]) -> OldRuns:
    """Runs older than the last comparisons, except those that are still needed.

    Kept are the last comparisons with their trainings, runs with a run key in use, runs of versions that are or were
    champion, previous or challenger, runs registered under another name, and runs that a process logs to.

    Args:
        tracker: tracker of the data set.
        keep: number of comparisons whose runs are kept.
        used: run keys of the stages in dvc.lock.

    Raises:
        StageError: the store does not answer.
    """
    # runs without `kind` are not segflow's
    runs = [run for run in _runs(tracker, deleted=False) if "kind" in run.data.tags]
    comparisons = [run for run in runs if run.data.tags["kind"] == "comparison"]
    before = comparisons[keep - 1].info.start_time if len(comparisons) >= keep else None
    marks = {run.data.tags.get("comparison") for run in comparisons[:keep]} - {None}
    registered, sources = _registered(tracker)
    old = [
        run
        for run in runs
        if before is not None
        and run.info.start_time < before
        and run.info.run_id not in registered
        and run.data.tags.get("comparison") not in marks
        and run.data.tags.get("run_key") not in used
        and not is_running(run)
        and not _is_source(tracker, run, sources)
    ]
    if _hard_delete(tracker) is not None:
        old += [run for run in _runs(tracker, deleted=True) if _CLEANED in run.data.tags]
    return OldRuns([run.info.run_id for run in old], sum(_size(tracker, run) for run in old), before)


def delete_runs(tracker: Tracker, ids: Sequence[str]) -> None:
    """Delete runs and their logged models: artifacts, then rows.

    A server keeps the rows, marked as deleted, until `mlflow gc` runs there.

    Raises:
        StageError: the store does not answer.
    """
    hard_delete = _hard_delete(tracker)
    for run_id in ids:
        run = tracker.client.get_run(run_id)
        if run.info.lifecycle_stage != "deleted":
            tracker.client.set_tag(run_id, _CLEANED, "true")
            tracker.client.delete_run(run_id)
        for model in models_of(tracker.client, run_id):
            _delete_artifacts(tracker, model.artifact_location)
            if hard_delete is not None:
                tracker.client._tracking_client.store._hard_delete_logged_model(model.model_id)
            else:
                tracker.client.delete_logged_model(model.model_id)
        _delete_artifacts(tracker, run.info.artifact_uri)
        if hard_delete is not None:
            hard_delete(run_id)


def _delete_artifacts(tracker: Tracker, address: str) -> None:
    """Delete the files at an artifact address, and the folder around it if it is then empty."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # removed by an earlier call that was killed
    with suppress(FileNotFoundError):
        get_artifact_repository(address, tracker.address).delete_artifacts()
    folder = _local_folder(address)
    if folder is not None:
        # MLflow leaves the folder of a run or model; one with other files is kept
        with suppress(OSError):
            folder.parent.rmdir()


def _runs(tracker: Tracker, deleted: bool) -> Iterator["MlflowRun"]:
    """All runs of the data set's experiment, latest first."""
    from mlflow.entities import ViewType

    experiment = tracker.client.get_experiment_by_name(tracker.dataset)
    token: str | None = "" if experiment is not None else None
    while experiment is not None and token is not None:
        page = tracker.client.search_runs(
            [experiment.experiment_id],
            run_view_type=ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY,
            order_by=["start_time DESC"],
            page_token=token or None,
        )
        yield from page
        token = page.token or None


def _registered(tracker: Tracker) -> tuple[set[str | None], set[str]]:
    """Versions that are or were used, and models that others registered: their runs, and addresses and model ids."""
    own = {row.version for row in Registry(tracker).history() if row.aliases or row.promoted or row.restored}
    used = [
        version
        for version in tracker.client.search_model_versions()
        if version.name != tracker.dataset or int(version.version) in own
    ]
    # a version that was created by the address of its files alone has no run
    sources = {place for one in used for place in (one.source, one.model_id) if place}
    sources |= {tracker.client.get_model_version_download_uri(one.name, one.version) for one in used}
    return {version.run_id for version in used}, sources


def _is_source(tracker: Tracker, run: "MlflowRun", sources: Collection[str]) -> bool:
    """Whether the files of a run or of its logged models are those of a version."""
    models = models_of(tracker.client, run.info.run_id)
    ids = {run.info.run_id, *(model.model_id for model in models)}
    places = [run.info.artifact_uri, *(model.artifact_location for model in models)]
    return any(
        source in ids
        or any(_is_below(source, place) for place in places)
        or any(source.startswith((f"runs:/{one}", f"models:/{one}")) for one in ids)
        for source in sources
    )


def _is_below(source: str, place: str) -> bool:
    """Whether an artifact address is another one or below it; local ones may be written with `file://`."""
    here, there = _local_folder(source), _local_folder(place)
    if here is not None and there is not None:
        return here.is_relative_to(there)
    return f"{source}/".startswith(f"{place.rstrip('/')}/")


def _hard_delete(tracker: Tracker) -> Callable[[str], object] | None:
    """The function behind `mlflow gc`; None for a server, which does not offer it."""
    function: Callable[[str], object] | None = getattr(
        tracker.client._tracking_client.store, "_hard_delete_run", None
    )
    return function


def _size(tracker: Tracker, run: "MlflowRun") -> int:
    """Bytes of the artifacts of a run and its logged models."""
    models = models_of(tracker.client, run.info.run_id)
    addresses = [run.info.artifact_uri, *(model.artifact_location for model in models)]
    return sum(_size_at(tracker, address) for address in addresses)


def _size_at(tracker: Tracker, address: str) -> int:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder = _local_folder(address)
    if folder is not None:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    repository = get_artifact_repository(address, tracker.address)

    def size_of(place: str | None) -> int:
        entries = repository.list_artifacts(place)
        return sum(size_of(entry.path) if entry.is_dir else entry.file_size or 0 for entry in entries)

    return size_of(None)


def _local_folder(address: str) -> Path | None:
    """Folder of an artifact address on this machine; None if it is elsewhere."""
    parts = urlparse(address)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None
