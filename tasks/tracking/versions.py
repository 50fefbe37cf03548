"""Registered versions in MLflow: single calls of the client, without decisions."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segcore.errors import ModelError, StageError
from segcore.files import sha256
from segcore.models.base.bundle import Hashes, verified
from tasks.promotion.history import CHAMPION, PREVIOUS, RegisteredVersion, iso, now
from tasks.promotion.model_card import CARD
from tasks.tracking import logged_models
from tasks.tracking.tracker import Run, Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

# tag of the registered model during a rollback: "restored,demoted", two version numbers
EXCHANGE = "gate.exchange"
# artifact folder of a run in which earlier versions logged the bundle
FOLDER = "model"
_BUNDLE = frozenset({"model.json", "model.safetensors"})
# characters that MLflow's tables take
_LONGEST_DESCRIPTION = 5000


def model_of(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model; None if it does not exist. Other errors are raised: ignoring one would lose a champion.

    Raises:
        StageError: the registry does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise StageError(
            f"{name}: the model registry does not answer: {error.message}",
            "start the MLflow server, or correct tracking.uri in params.yaml",
        ) from error


def ensure_model(client: "MlflowClient", name: str) -> None:
    """Create the registered model if it does not exist."""
    from mlflow.exceptions import MlflowException

    if model_of(client, name) is None:
        with suppress(MlflowException):
            # another process may have created it meanwhile
            client.create_registered_model(name)


def versions_of(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    """All versions of a registered model."""
    return list(client.search_model_versions(f"name='{name}'"))


def aliases_of(client: "MlflowClient", name: str) -> dict[str, int]:
    """Version by alias."""
    model = model_of(client, name)
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def require_version(client: "MlflowClient", name: str, version: int) -> "ModelVersion":
    """One version.

    Raises:
        StageError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        raise StageError(
            f"{name}: the registry has no version {version}",
            "choose a version from the history in the report",
        ) from error


def tag_version(client: "MlflowClient", name: str, version: int, tags: Mapping[str, object]) -> None:
    """Set tags of a version, except those with the value None."""
    for key, value in tags.items():
        if value is not None:
            client.set_model_version_tag(name, str(version), key, str(value))


def row_of(version: "ModelVersion", aliases: list[str]) -> RegisteredVersion:
    """A version as a row of the history."""
    tags = version.tags
    return RegisteredVersion(
        version=int(version.version),
        architecture=tags.get("architecture"),
        title=tags.get("title"),
        weights_sha256=tags.get("weights_sha256"),
        description_sha256=tags.get("description_sha256"),
        promoted=tags.get("promoted"),
        restored=tags.get("restored"),
        seed=int(tags["seed"]) if tags.get("seed", "").isdigit() else None,
        run_id=version.run_id or None,
        # a rebuilt version has the time of its first registration as a tag
        registered=tags.get("registered") or iso(version.creation_timestamp / 1000),
        scores=_scores(tags.get("scores")),
        aliases=sorted(aliases),
        outcome=tags.get("gate.outcome"),
        decision=tags.get("gate.reason"),
    )


def _scores(text: str | None) -> dict[str, Any]:
    """Scores in a tag, which can be edited in MLflow's UI; they are shown only, so others than JSON are left out."""
    try:
        scores = json.loads(text or "{}")
    except ValueError:
        return {}
    return scores if isinstance(scores, dict) else {}


def finish_exchange(client: "MlflowClient", name: str) -> tuple[int, int] | None:
    """Complete the rollback that the model's tag describes, and remove the tag; None without the tag."""
    model = model_of(client, name)
    exchange = model.tags.get(EXCHANGE) if model else None
    if not exchange:
        return None
    restored, demoted = (int(part) for part in exchange.split(","))
    client.set_registered_model_alias(name, CHAMPION, str(restored))
    client.set_registered_model_alias(name, PREVIOUS, str(demoted))
    tag_version(client, name, restored, {"restored": now()})
    client.delete_registered_model_tag(name, EXCHANGE)
    return restored, demoted


def has_files(client: "MlflowClient", source: str, names: Collection[str] = _BUNDLE) -> bool:
    """Whether there are files with these names, by default a bundle's, at an artifact address; they are not read.

    Raises:
        StageError: the store of the files does not answer.
    """
    from mlflow.exceptions import MlflowException

    try:
        files = _repository(client, source).list_artifacts()
    # ImportError: the package for an address of this kind is not installed
    except (MlflowException, OSError, ImportError) as error:
        raise StageError(
            f"{source}: the files of the MLflow store cannot be listed ({error})",
            "check that this machine can read the store's files, or install the package that is missing; "
            "then run again",
        ) from error
    return {Path(file.path).name for file in files} >= set(names)


def _repository(client: "MlflowClient", source: str) -> Any:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(source, client.tracking_uri, client.tracking_uri)


def is_stored(tracker: Tracker, source: str, hashes: Hashes) -> bool:
    """Whether the bundle at an artifact address, after download, has these hashes."""
    from mlflow.exceptions import MlflowException

    if not has_files(tracker.client, source):
        return False
    try:
        with downloaded(tracker.client, source) as folder:
            verified(folder, hashes)
            return True
    except (MlflowException, OSError, ModelError):
        return False


@contextmanager
def downloaded(client: "MlflowClient", source: str) -> Iterator[Path]:
    """The files of a bundle at an artifact address, in a temporary folder."""
    with TemporaryDirectory() as folder:
        download_bundle(client, source, Path(folder))
        yield Path(folder)


def download_bundle(client: "MlflowClient", source: str, folder: Path) -> None:
    """Download the files at an artifact address, but not its subfolders: that of an MLflow model has segcore in one."""
    repository = _repository(client, source)
    for file in repository.list_artifacts():
        if not file.is_dir:
            repository.download_artifacts(file.path, str(folder))


def upload(client: "MlflowClient", version: "ModelVersion", bundle: Path) -> None:
    """Store the files of a version again, as an MLflow model; the run that it belongs to need not exist any more.

    Raises:
        StageError: they cannot be written there.
    """
    source = client.get_model_version_download_uri(version.name, version.version)
    with TemporaryDirectory() as folder:
        logged_models.write_model(Path(folder), bundle, None, version.run_id)
        _store(client, source, folder)


def _store(client: "MlflowClient", source: str, folder: str) -> None:
    """Add the files of a folder to those at an artifact address."""
    from mlflow.exceptions import MlflowException

    try:
        _repository(client, source).log_artifacts(folder)
    except (MlflowException, OSError) as error:
        raise StageError(
            f"{source}: the files of a model cannot be stored there ({error})",
            "free disk space, or let this user write to the files of the MLflow store, then run again",
        ) from error


def describe(client: "MlflowClient", name: str, version: int, card: str) -> None:
    """Store a model card beside the files of a version, and as its description, of which a long one loses its end.

    Args:
        client: client of the store.
        name: of the registered model.
        version: its number.
        card: Markdown, with headings of level 2.

    Raises:
        StageError: the file cannot be written.
    """
    with TemporaryDirectory() as folder:
        (Path(folder) / CARD).write_text(card, encoding="utf-8")
        _store(client, client.get_model_version_download_uri(name, str(version)), folder)
    if len(card) > _LONGEST_DESCRIPTION:
        rest = f"\n\nThe other sections are in {CARD}, among the files of this version.\n"
        end = card.rfind("\n\n## ", 0, _LONGEST_DESCRIPTION - len(rest))
        card = card[: max(end, 0)] + rest
    client.update_model_version(name, str(version), description=card)


def log_bundle(tracker: Tracker, bundle: Path, facts: Mapping[str, Any]) -> "LoggedModel":
    """A bundle as the logged model of a run of its own; a run that an interrupted call left behind is used again.

    Args:
        tracker: tracker of the data set.
        bundle: folder of the bundle.
        facts: title, seed and weights_sha256.

    Raises:
        StageError: the stored files are not those of the bundle.
    """
    weights = str(facts["weights_sha256"])
    earlier = tracker.find(f"tags.kind = 'registration' and tags.weights_sha256 = '{weights}'")
    if earlier:
        run = Run(tracker.client, earlier[0].info.run_id)
    else:
        title = f"{facts.get('title')} · seed {facts.get('seed')} · registered"
        run = tracker.create(title, "registration", {"weights_sha256": weights})
    model = logged_models.log_model(run, bundle)
    if not is_stored(tracker, model.artifact_location, hashes_of(bundle, weights)):
        raise StageError(
            f"{model.artifact_location}: the store does not return the files of {bundle} that were written to it",
            "check the disk or bucket of the MLflow store, then run again",
        )
    tracker.client.set_terminated(run.id, "FINISHED")
    return model


def source_of(client: "MlflowClient", run_id: str) -> str:
    """Artifact address of the bundle of a run without a logged model, as earlier versions made them."""
    return f"{client.get_run(run_id).info.artifact_uri}/{FOLDER}"


def hashes_of(bundle: Path, weights: str) -> Hashes:
    """Hashes of a bundle with verified weights."""
    return Hashes(weights, sha256(bundle / "model.json"))


def name_in_model(client: "MlflowClient", name: str, version: int) -> None:
    """Name a version in the logged model that has its files, if there is one; a kill may have kept it from that."""
    from mlflow.exceptions import MlflowException

    registered = require_version(client, name, version)
    try:
        models = logged_models.models_of(client, registered.run_id) if registered.run_id else []
    except MlflowException:
        # the run is deleted
        return
    for model in models:
        if model.artifact_location == registered.source:
            logged_models.name_version(client, model.model_id, name, version)


def stored_model(tracker: Tracker, run_id: str, bundle: Path, hashes: Hashes) -> "LoggedModel | None":
    """The logged model of a run; None if this store has no such run, or the run has another bundle.

    A run of an earlier version of segflow has the bundle, but no logged model, and gets one.
    """
    from mlflow.exceptions import MlflowException

    try:
        model = logged_models.model_of(tracker.client, run_id)
        source = model.artifact_location if model else source_of(tracker.client, run_id)
    except MlflowException:
        return None
    if not is_stored(tracker, source, hashes):
        return None
    return model or logged_models.log_model(Run(tracker.client, run_id), bundle)
