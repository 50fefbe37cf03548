"""Champion and challengers in MLflow's model registry: one registered model a data set, a version a set of weights.

Aliases say who is who: `champion`, `challenger`, `previous` (the champion before). A registry has no transactions, so
aliases are moved in an order in which every half-done state still has a champion and is finished by a repeated call.
"""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from segcore.errors import StageError
from segcore.models.base.bundle import verified
from segcore.params import Params
from tasks.tracking import store
from tasks.tracking.store import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
_EXCHANGE = "gate.exchange"  # tag of the registered model: "restored,demoted" while a rollback is under way
_FOLDER = "model"  # of a run's artifacts, as tasks/train.py logs the bundle


def register(params: Params, bundle: Path, run_id: str | None, tags: Mapping[str, object]) -> int:
    """The version of a bundle in the registered model `data.name`; the same weights give the same version.

    Args:
        params: the whole of params.yaml.
        bundle: folder with model.json and model.safetensors.
        run_id: of its training. Where this store has no such run, or the run holds other weights, the bundle is
            logged to a run of its own.
        tags: of the version, besides architecture, seed, title and weights_sha256; None is left out.

    Raises:
        ModelError: no bundle, or weights that are not the ones described.
        StageError: the store does not answer.
    """
    description = verified(bundle)
    client, name = store.client(params), params.data.name
    weights = description["weights_sha256"]
    known = [v for v in _versions(client, name) if v.tags.get("weights_sha256") == weights]
    if known:
        return min(int(version.version) for version in known)
    if not (run_id and _holds(client, run_id, weights)):
        run_id = _log_bundle(client, params, bundle, description)
    facts = {"weights_sha256": weights} | {k: description.get(k) for k in ("architecture", "seed", "title")}
    shown = {k: str(v) for k, v in (facts | dict(tags)).items() if v is not None}
    _ensure_model(client, name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
    return int(
        client.create_model_version(name, source, run_id, tags=shown).version
    )  # tags come with it, or it does not


def promote(params: Params, version: int, decision: Mapping[str, Any]) -> None:
    """Make a version champion and the champion before it `previous`; repeated, it changes nothing.

    `previous` is set first: killed in between, there are two names for the old champion, and a repeated call goes on.

    Args:
        params: the whole of params.yaml.
        version: of `register`.
        decision: its outcome, reason, time `decided` and, where there, scores (JSON) become tags of the version.

    Raises:
        StageError: there is no such version.
    """
    client, name = store.client(params), params.data.name
    _finish_exchange(client, name)
    _require(client, name, version)
    _tag(client, name, version, _said(decision) | {"promoted": decision["decided"]})
    aliases = _aliases(client, name)
    old = aliases.get(CHAMPION)
    if old is not None and old != version:
        client.set_registered_model_alias(name, PREVIOUS, str(old))
    if old != version:
        client.set_registered_model_alias(name, CHAMPION, str(version))
    if CHALLENGER in aliases:  # it was measured against a champion that is no more
        client.delete_registered_model_alias(name, CHALLENGER)


def set_challenger(params: Params, version: int, decision: Mapping[str, Any] | None = None) -> None:
    """Give a version the alias `challenger`, and the decision's outcome and reason as tags.

    Raises:
        StageError: there is no such version.
    """
    client, name = store.client(params), params.data.name
    _require(client, name, version)
    if decision is not None:
        _tag(client, name, version, _said(decision))
    client.set_registered_model_alias(name, CHALLENGER, str(version))


def rollback(params: Params) -> tuple[int, int]:
    """Exchange champion and previous; (restored, demoted).

    What is to be exchanged is written down first, so that a call after a kill finishes that exchange and begins no
    other.

    Raises:
        StageError: there is no previous champion.
    """
    client, name = store.client(params), params.data.name
    finished = _finish_exchange(client, name)
    if finished:
        return finished
    aliases = _aliases(client, name)
    restored, demoted = aliases.get(PREVIOUS), aliases.get(CHAMPION)
    if restored is None or demoted is None or restored == demoted:
        raise StageError(
            f"{name}: the registry at {store.uri(params)} has no previous champion to go back to",
            "promote a second model first; after an interrupted promotion run `make promote` again",
        )
    client.set_registered_model_tag(name, _EXCHANGE, f"{restored},{demoted}")
    _finish_exchange(client, name)
    return restored, demoted


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


def champion(params: Params) -> dict[str, Any] | None:
    """Facts of the champion's version (see `history`), or None where there is none."""
    return next((row for row in history(params) if CHAMPION in row["aliases"]), None)


def history(params: Params) -> list[dict[str, Any]]:
    """Every version, newest first.

    Returns:
        Of each its version, architecture, seed, title, weights_sha256, run_id, registered and promoted and restored
        (ISO 8601 in UTC, or None), scores (as registered), aliases now, outcome and decision (a sentence, or None).
    """
    client, name = store.client(params), params.data.name
    aliases = _aliases(client, name)
    rows = []
    for found in sorted(_versions(client, name), key=lambda v: -int(v.version)):
        tags, number = found.tags, int(found.version)
        rows.append(
            {
                "version": number,
                **{
                    k: tags.get(k)
                    for k in ("architecture", "title", "weights_sha256", "promoted", "restored")
                },
                "seed": int(tags["seed"]) if tags.get("seed", "").isdigit() else None,
                "run_id": found.run_id or None,
                "registered": _iso(found.creation_timestamp / 1000),
                "scores": json.loads(tags.get("scores", "{}")),
                "aliases": sorted(alias for alias, version in aliases.items() if version == number),
                "outcome": tags.get("gate.outcome"),
                "decision": tags.get("gate.reason"),
            }
        )
    return rows


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


def _log_bundle(client: "MlflowClient", params: Params, bundle: Path, description: Mapping[str, Any]) -> str:
    experiment = store.experiment(client, params.data.name)
    title = f"{description['title']} · seed {description.get('seed')} · registered"
    tags = {"kind": "registration", "process": store.process_mark()}
    run = Run(client, client.create_run(experiment, run_name=title, tags=tags).info.run_id)
    run.log_files(bundle, _FOLDER)
    client.set_terminated(run.id, "FINISHED")
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
        with suppress(MlflowException):  # another process was faster
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


def _said(decision: Mapping[str, Any]) -> dict[str, object]:
    """Tags of a version that tell of a decision."""
    tags = {"gate.outcome": decision["outcome"], "gate.reason": decision["reason"]}
    return tags | ({"scores": decision["scores"]} if "scores" in decision else {})


def _tag(client: "MlflowClient", name: str, version: int, tags: Mapping[str, object]) -> None:
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version), key, str(value))


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def now() -> str:
    """This moment in UTC, ISO 8601."""
    return _iso(time.time())
