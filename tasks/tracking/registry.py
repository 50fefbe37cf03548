"""Champion and challengers in MLflow's model registry: one registered model per data set, one version
per set of weights.

The aliases are `champion`, `challenger` and `previous` (the champion before). A registry has no transactions, so
aliases are moved in an order in which every half-done state still has a champion and is finished by a repeated call.
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
from segcore.models.base.bundle import verified
from tasks.promotion.record import RegisteredVersion
from tasks.tracking.fetch import fetch_model
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# tag of the registered model: "restored,demoted" while a rollback is under way
_EXCHANGE = "gate.exchange"
# of a run's artifacts, as tasks/train.py logs the bundle
_FOLDER = "model"


@dataclass(frozen=True)
class DecisionTags:
    """What a version keeps of the decision on it.

    Attributes:
        outcome: promoted, kept or first.
        reason: one sentence.
        decided: time, ISO 8601 in UTC.
        scores: JSON of the scores that the decision rests on; None: there are none.
    """

    outcome: str
    reason: str
    decided: str
    scores: str | None = None

    def as_tags(self) -> dict[str, object]:
        tags: dict[str, object] = {"gate.outcome": self.outcome, "gate.reason": self.reason}
        return tags | ({} if self.scores is None else {"scores": self.scores})


class Registry:
    """The registered model of one data set. Bundles that were fetched by this object are not verified again.

    Args:
        tracker: of the data set.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._fetched: dict[int, Path] = {}

    def fetch(self, version: int, target: Path) -> Path:
        """The verified bundle of a version in the folder `target`; downloaded where it is not there yet.

        Raises:
            ModelError: there is no such version, or its bundle is damaged; StageError: the store does not answer.
        """
        if self._fetched.get(version) != target:
            address = f"models:/{self.tracker.dataset}/{version}"
            self._fetched[version] = fetch_model(self.tracker.client, address, target)
        return self._fetched[version]

    def register(self, bundle: Path, run_id: str | None, tags: Mapping[str, object]) -> int:
        """The version of a bundle in the registered model; the same weights give the same version.

        Args:
            bundle: folder with model.json and model.safetensors.
            run_id: of its training. Where this store has no such run, or the run holds other weights, the bundle is
                logged to a run of its own.
            tags: of the version, besides architecture, seed, title and weights_sha256; None is left out.

        Raises:
            ModelError: no bundle, or weights that are not the ones described.
            StageError: the store does not answer.
        """
        description = verified(bundle)
        client, name = self.tracker.client, self.tracker.dataset
        weights = description["weights_sha256"]
        known = [v for v in _versions(client, name) if v.tags.get("weights_sha256") == weights]
        if known:
            return min(int(version.version) for version in known)
        if not (run_id and _holds(client, run_id, weights)):
            run_id = _log_bundle(self.tracker, bundle, description)
        facts = {"weights_sha256": weights} | {
            k: description.get(k) for k in ("architecture", "seed", "title")
        }
        shown = {k: str(v) for k, v in (facts | dict(tags)).items() if v is not None}
        _ensure_model(client, name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
        return int(
            client.create_model_version(name, source, run_id, tags=shown).version
        )  # tags come with it, or it does not

    def promote(self, version: int, decision: DecisionTags) -> None:
        """Make a version champion and the champion before it `previous`; repeated, it changes nothing.

        `previous` is set first: after a kill in between the old champion has two aliases, and a repeated call goes on.

        Args:
            version: of `register`.
            decision: on the version, which keeps it as tags.

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
            # it was measured against a champion that is no more
            client.delete_registered_model_alias(name, CHALLENGER)

    def set_challenger(self, version: int, decision: DecisionTags | None = None) -> None:
        """Give a version the alias `challenger`, and the decision's outcome and reason as tags.

        Raises:
            StageError: there is no such version.
        """
        client, name = self.tracker.client, self.tracker.dataset
        _require(client, name, version)
        if decision is not None:
            _tag(client, name, version, decision.as_tags())
        client.set_registered_model_alias(name, CHALLENGER, str(version))

    def rollback(self) -> tuple[int, int]:
        """Exchange champion and previous; (restored, demoted).

        What is to be exchanged is written down first, so that a call after a kill finishes that exchange and begins no
        other.

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
        """The champion's version, or None where there is none."""
        return next((version for version in self.history() if CHAMPION in version.aliases), None)

    def history(self) -> list[RegisteredVersion]:
        """Every version, newest first."""
        client, name = self.tracker.client, self.tracker.dataset
        aliases = _aliases(client, name)
        found = sorted(_versions(client, name), key=lambda v: -int(v.version))
        return [_version(v, [a for a, number in aliases.items() if number == int(v.version)]) for v in found]


def _version(found: "ModelVersion", aliases: list[str]) -> RegisteredVersion:
    tags = found.tags
    return RegisteredVersion(
        version=int(found.version),
        architecture=tags.get("architecture"),
        title=tags.get("title"),
        weights_sha256=tags.get("weights_sha256"),
        promoted=tags.get("promoted"),
        restored=tags.get("restored"),
        seed=int(tags["seed"]) if tags.get("seed", "").isdigit() else None,
        run_id=found.run_id or None,
        registered=_iso(found.creation_timestamp / 1000),
        scores=json.loads(tags.get("scores", "{}")),
        aliases=sorted(aliases),
        outcome=tags.get("gate.outcome"),
        decision=tags.get("gate.reason"),
    )


def _finish_exchange(client: "MlflowClient", name: str) -> tuple[int, int] | None:
    """Do what the tag of an exchange says, and remove it; None where there is none."""
    model = _model(client, name)
    wanted = model.tags.get(_EXCHANGE) if model else None
    if not wanted:
        return None
    restored, demoted = (int(part) for part in wanted.split(","))
    client.set_registered_model_alias(name, CHAMPION, str(restored))
    client.set_registered_model_alias(name, PREVIOUS, str(demoted))
    _tag(client, name, restored, {"restored": now()})
    client.delete_registered_model_tag(name, _EXCHANGE)
    return restored, demoted


def _holds(client: "MlflowClient", run_id: str, weights: str) -> bool:
    """Whether this store has the run, and the run the bundle with these weights."""
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as folder:
        try:
            names = {file.path for file in client.list_artifacts(run_id, _FOLDER)}
            if not {f"{_FOLDER}/model.json", f"{_FOLDER}/model.safetensors"} <= names:
                return False
            path = client.download_artifacts(run_id, f"{_FOLDER}/model.json", folder)
        except (MlflowException, OSError):
            return False
        return bool(json.loads(Path(path).read_text())["weights_sha256"] == weights)


def _log_bundle(tracker: Tracker, bundle: Path, description: Mapping[str, Any]) -> str:
    title = f"{description['title']} · seed {description.get('seed')} · registered"
    run = tracker.create(title, "registration")
    run.log_files(bundle, _FOLDER)
    tracker.client.set_terminated(run.id, "FINISHED")
    return run.id


def _model(client: "MlflowClient", name: str) -> "RegisteredModel | None":
    """The registered model; None where there is none. Any other answer is an error, or a champion would be lost."""
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
            # another process was faster
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
            f"{name}: the registry has no version {version}", "take a version of the history in the report"
        ) from error


def _tag(client: "MlflowClient", name: str, version: int, tags: Mapping[str, object]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version), key, str(value))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return _iso(time.time())
