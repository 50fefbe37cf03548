"""Champion and challengers in MLflow's registry: one registered model per data set, one version per set of weights.

The aliases are `champion`, `challenger` and `previous` (the champion before). A registry has no transactions, so
aliases change in an order in which every intermediate state has a champion, and a repeated call completes the change.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segcore.errors import StageError
from segcore.files import sha256
from segcore.models.base.bundle import verified
from tasks.promotion.record import RegisteredVersion
from tasks.tracking.fetch import fetch_model
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# tag of the registered model during a rollback: "restored,demoted", two version numbers
_EXCHANGE = "gate.exchange"
# artifact folder in which tasks/train.py logs the bundle
_FOLDER = "model"


@dataclass(frozen=True)
class DecisionTags:
    """The decision on a version, as stored in its tags.

    Attributes:
        outcome: promoted, kept or first.
        reason: one sentence.
        decided: time, ISO 8601 in UTC.
        scores: scores that the decision is based on, as JSON; None without scores.
    """

    outcome: str
    reason: str
    decided: str
    scores: str | None = None

    def as_tags(self) -> dict[str, object]:
        """Tags by name."""
        tags: dict[str, object] = {"gate.outcome": self.outcome, "gate.reason": self.reason}
        return tags | ({} if self.scores is None else {"scores": self.scores})


class Registry:
    """The registered model of one data set. Each bundle is verified once per object.

    Args:
        tracker: tracker of the data set.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._fetched: dict[int, Path] = {}

    def fetch(self, version: int, target: Path) -> Path:
        """Download the bundle of a version to the folder `target` unless it is there, and verify it.

        Raises:
            ModelError: there is no such version, its bundle is damaged, or the registry does not answer.
        """
        if self._fetched.get(version) != target:
            address = f"models:/{self.tracker.dataset}/{version}"
            self._fetched[version] = fetch_model(self.tracker.client, address, target)
        return self._fetched[version]

    def register(self, bundle: Path, run_id: str | None, tags: Mapping[str, object]) -> int:
        """Register a bundle, and return its version; the same weights always have the same version.

        Args:
            bundle: folder with model.json and model.safetensors.
            run_id: run of its training. If this store has no such run, or the run has other weights, the bundle is
                logged to a new run.
            tags: tags of the version, besides architecture, seed, title and the hashes of both files; None values are
                omitted.

        Raises:
            ModelError: there is no bundle, or its weights do not match its model.json.
            StageError: the store does not answer.
        """
        description = verified(bundle)
        client, name = self.tracker.client, self.tracker.dataset
        weights = description["weights_sha256"]
        same_weights = [v for v in _versions(client, name) if v.tags.get("weights_sha256") == weights]
        if same_weights:
            return min(int(version.version) for version in same_weights)
        described = sha256(bundle / "model.json")
        if not (run_id and _has_bundle(client, run_id, described)):
            run_id = _log_bundle(self.tracker, bundle, description)
        facts = {"weights_sha256": weights, "description_sha256": described} | {
            k: description.get(k) for k in ("architecture", "seed", "title")
        }
        all_tags = {k: str(v) for k, v in (facts | dict(tags)).items() if v is not None}
        _ensure_model(client, name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
        # version and tags are created in one call, so that no version is without tags
        return int(client.create_model_version(name, source, run_id, tags=all_tags).version)

    def promote(self, version: int, decision: DecisionTags) -> None:
        """Make a version the champion, and the old champion `previous`; a repeated call changes nothing.

        `previous` is set first: after a kill in between, the old champion has two aliases, and a repeated call
        completes the promotion.

        Args:
            version: its number, from `register`.
            decision: decision on the version, stored as its tags.

        Raises:
            StageError: there is no such version.
        """
        client, name = self.tracker.client, self.tracker.dataset
        _finish_exchange(client, name)
        _require(client, name, version)
        _tag(client, name, version, decision.as_tags() | {"promoted": decision.decided})
        aliases = _aliases(client, name)
        old = aliases.get(CHAMPION)
        if old is not None and old != version:
            client.set_registered_model_alias(name, PREVIOUS, str(old))
        if old != version:
            client.set_registered_model_alias(name, CHAMPION, str(version))
        if CHALLENGER in aliases:
            # it was compared with the old champion
            client.delete_registered_model_alias(name, CHALLENGER)

    def set_challenger(self, version: int, decision: DecisionTags | None = None) -> None:
        """Give a version the alias `challenger`, and the decision as tags.

        Raises:
            StageError: there is no such version.
        """
        client, name = self.tracker.client, self.tracker.dataset
        _require(client, name, version)
        if decision is not None:
            _tag(client, name, version, decision.as_tags())
        client.set_registered_model_alias(name, CHALLENGER, str(version))

    def rollback(self) -> tuple[int, int]:
        """Exchange champion and previous; returns the version numbers (restored, demoted).

        Both numbers are first stored in a tag, so that a call after a kill completes that exchange and does not start
        another one.

        Raises:
            StageError: there is no previous champion.
        """
        client, name = self.tracker.client, self.tracker.dataset
        finished = _finish_exchange(client, name)
        if finished:
            return finished
        aliases = _aliases(client, name)
        restored, demoted = aliases.get(PREVIOUS), aliases.get(CHAMPION)
        if restored is None or demoted is None or restored == demoted:
            raise StageError(
                f"{name}: the registry at {self.tracker.address} has no previous champion to go back to",
                "promote a second model first; after an interrupted promotion run `make promote` again",
            )
        client.set_registered_model_tag(name, _EXCHANGE, f"{restored},{demoted}")
        _finish_exchange(client, name)
        return restored, demoted

    def champion(self) -> RegisteredVersion | None:
        """The champion's version; None without a champion."""
        return next((version for version in self.history() if CHAMPION in version.aliases), None)

    def history(self) -> list[RegisteredVersion]:
        """All versions, newest first."""
        client, name = self.tracker.client, self.tracker.dataset
        aliases = _aliases(client, name)
        newest_first = sorted(_versions(client, name), key=lambda v: -int(v.version))
        return [
            _registered_version(v, [a for a, number in aliases.items() if number == int(v.version)])
            for v in newest_first
        ]


def _registered_version(version: "ModelVersion", aliases: list[str]) -> RegisteredVersion:
    tags = version.tags
    return RegisteredVersion(
        version=int(version.version),
        architecture=tags.get("architecture"),
        title=tags.get("title"),
        weights_sha256=tags.get("weights_sha256"),
        promoted=tags.get("promoted"),
        restored=tags.get("restored"),
        seed=int(tags["seed"]) if tags.get("seed", "").isdigit() else None,
        run_id=version.run_id or None,
        registered=_iso(version.creation_timestamp / 1000),
        scores=json.loads(tags.get("scores", "{}")),
        aliases=sorted(aliases),
        outcome=tags.get("gate.outcome"),
        decision=tags.get("gate.reason"),
    )


def _finish_exchange(client: "MlflowClient", name: str) -> tuple[int, int] | None:
    """Complete the exchange that the model's tag describes, and remove the tag; None without the tag."""
    model = _model(client, name)
    exchange = model.tags.get(_EXCHANGE) if model else None
    if not exchange:
        return None
    restored, demoted = (int(part) for part in exchange.split(","))
    client.set_registered_model_alias(name, CHAMPION, str(restored))
    client.set_registered_model_alias(name, PREVIOUS, str(demoted))
    _tag(client, name, restored, {"restored": now()})
    client.delete_registered_model_tag(name, _EXCHANGE)
    return restored, demoted


def _has_bundle(client: "MlflowClient", run_id: str, described: str) -> bool:
    """Whether this store has the run, and the run has the bundle with this model.json (sha256)."""
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as folder:
        try:
            names = {file.path for file in client.list_artifacts(run_id, _FOLDER)}
            if not {f"{_FOLDER}/model.json", f"{_FOLDER}/model.safetensors"} <= names:
                return False
            path = client.download_artifacts(run_id, f"{_FOLDER}/model.json", folder)
        except (MlflowException, OSError):
            return False
        return sha256(path) == described


def _log_bundle(tracker: Tracker, bundle: Path, description: Mapping[str, Any]) -> str:
    title = f"{description['title']} · seed {description.get('seed')} · registered"
    run = tracker.create(title, "registration")
    run.log_files(bundle, _FOLDER)
    tracker.client.set_terminated(run.id, "FINISHED")
    return run.id


def _model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model; None if it does not exist. Other errors are raised: ignoring one would lose a champion."""
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


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    if _model(client, name) is None:
        with suppress(MlflowException):
            # another process may have created it meanwhile
            client.create_registered_model(name)


def _versions(client: "MlflowClient", name: str) -> list["ModelVersion"]:
    return list(client.search_model_versions(f"name='{name}'"))


def _aliases(client: "MlflowClient", name: str) -> dict[str, int]:
    model = _model(client, name)
    return {alias: int(version) for alias, version in model.aliases.items()} if model else {}


def _require(client: "MlflowClient", name: str, version: int) -> "ModelVersion":
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, str(version))
    except MlflowException as error:
        raise StageError(
            f"{name}: the registry has no version {version}",
            "choose a version from the history in the report",
        ) from error


def _tag(client: "MlflowClient", name: str, version: int, tags: Mapping[str, object]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version), key, str(value))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def now() -> str:
    """Current time in UTC, ISO 8601."""
    return _iso(time.time())
