"""Champion, challenger and previous in a real embedded MLflow registry, also after a kill between two calls."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from segcore.errors import ModelError, StageError
from segcore.params import Params
from tasks.tracking.fetch import fetch_model
from tasks.tracking.registry import DecisionTags, Registry
from tasks.tracking.tracker import Tracker
from tests.support.tiny import params_for

MOVES = (
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_model_version_tag",
)


class Killed(BaseException):
    """Simulates kill -9: no code of this project catches it."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture
def params(store: Path, request: pytest.FixtureRequest) -> Params:
    """Parameters with a new registered model for each test."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return params_for("source", data={"name": f"d{name}"})


def bundle(folder: Path, content: str, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    facts = {"format": 2, "architecture": "unet", "title": "U-Net", "seed": seed}
    weights = hashlib.sha256(content.encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps(facts | {"weights_sha256": weights}))
    return folder


def registry_of(params: Params) -> Registry:
    return Registry(Tracker.open(params))


def decision(number: int) -> DecisionTags:
    return DecisionTags("promoted", f"reason {number}", f"2026-01-0{number}T00:00:00Z")


def aliases(params: Params) -> dict[str, int]:
    registered = Tracker.open(params).client.get_registered_model(params.data.name).aliases
    return {alias: int(version) for alias, version in registered.items()}


def versions(params: Params, folder: Path, count: int) -> list[int]:
    return [
        registry_of(params).register(bundle(folder / str(i), f"weights {i}", i), None, {})
        for i in range(count)
    ]


def test_the_same_weights_share_a_version_and_other_weights_get_a_new_one(
    params: Params, tmp_path: Path
) -> None:
    scores = {"scores": json.dumps({"frozen": 0.8}), "batch": None}
    first = registry_of(params).register(bundle(tmp_path / "a", "one"), None, scores)
    again = registry_of(params).register(bundle(tmp_path / "b", "one"), None, {})
    other = registry_of(params).register(bundle(tmp_path / "c", "two", seed=3), None, {})
    assert (first, again, other) == (1, 1, 2)
    newest, oldest = registry_of(params).history()
    assert (newest.version, newest.seed, oldest.scores) == (2, 3, {"frozen": 0.8})
    assert newest.aliases == [] and newest.promoted is None and newest.decision is None


@pytest.mark.parametrize("harm", ["altered", "gone"])
def test_registering_again_restores_files_that_the_store_lost(
    harm: str, params: Params, tmp_path: Path
) -> None:
    registry = registry_of(params)
    first = registry.register(bundle(tmp_path / "a", "one"), None, {})
    source = Path(registry.source(first).removeprefix("file://"))
    if harm == "gone":
        shutil.rmtree(source)
    else:
        (source / "model.safetensors").write_text("altered")
    assert registry.register(tmp_path / "a", None, {}) == first
    assert (registry.fetch(first, tmp_path / "b") / "model.safetensors").read_text() == "one"


def test_a_registration_that_was_killed_before_the_version_leaves_no_second_run(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Killed

    for name in ("set_terminated", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, name, die)
            with pytest.raises(Killed):
                registry_of(params).register(bundle(tmp_path / name, "one"), None, {})
    assert registry_of(params).register(bundle(tmp_path / "a", "one"), None, {}) == 1
    (run,) = Tracker.open(params).find("tags.kind = 'registration'")
    assert run.info.status == "FINISHED"


def test_a_version_has_the_training_run_as_source_if_the_store_has_it(params: Params, tmp_path: Path) -> None:
    client, folder = Tracker.open(params).client, bundle(tmp_path / "a", "one")
    run = client.create_run(Tracker.open(params).experiment()).info.run_id
    client.log_artifacts(run, str(folder), "model")
    assert registry_of(params).register(folder, run, {}) == 1
    assert registry_of(params).history()[0].run_id == run
    other = bundle(tmp_path / "b", "two")
    run_of_another_store = "0" * 32
    for unsuitable in (run_of_another_store, run, None):
        version = registry_of(params).register(other, unsuitable, {})
        created = registry_of(params).history()[0].run_id
        assert version == 2 and created not in (run, None)
    assert client.get_run(created).data.tags["kind"] == "registration"


def test_promotion_rollback_and_history(params: Params, tmp_path: Path) -> None:
    assert registry_of(params).champion() is None
    with pytest.raises(StageError, match="no previous champion"):
        registry_of(params).rollback()
    one, two, three = versions(params, tmp_path, 3)
    registry_of(params).promote(one, decision(1))
    assert aliases(params) == {"champion": one}
    with pytest.raises(StageError, match="no previous champion"):
        registry_of(params).rollback()
    registry_of(params).set_challenger(two, replace(decision(2), outcome="kept"))
    assert aliases(params) == {"champion": one, "challenger": two}
    for _ in range(2):
        registry_of(params).promote(three, decision(3))
        assert aliases(params) == {"champion": three, "previous": one}
    assert registry_of(params).rollback() == (one, three)
    assert aliases(params) == {"champion": one, "previous": three}
    champion = registry_of(params).champion()
    assert champion and champion.version == one and champion.restored is not None
    rows = registry_of(params).history()
    assert [r.version for r in rows] == [three, two, one]
    assert [r.promoted for r in rows] == ["2026-01-03T00:00:00Z", None, "2026-01-01T00:00:00Z"]
    assert [r.decision for r in rows] == ["reason 3", "reason 2", "reason 1"]
    with pytest.raises(StageError, match="no version 9"):
        registry_of(params).promote(9, decision(1))


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_after_a_kill_between_any_two_calls_a_repeated_call_completes_the_change(
    action: str, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = versions(params, tmp_path, 3)

    def prepare() -> None:
        registry_of(params).promote(one, decision(1))
        registry_of(params).promote(two, decision(2))
        registry_of(params).set_challenger(three)

    def act() -> object:
        return (
            registry_of(params).promote(three, decision(3))
            if action == "promote"
            else registry_of(params).rollback()
        )

    wanted = {"champion": three, "previous": two}
    if action == "rollback":
        wanted = {"champion": one, "previous": two, "challenger": three}
    calls: list[str] = []
    limit = 10**9

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(MlflowClient, name)

        def call(*args: Any, **keywords: Any) -> Any:
            if len(calls) >= limit:
                raise Killed
            calls.append(name)
            return real(*args, **keywords)

        return call

    for name in MOVES:
        monkeypatch.setattr(MlflowClient, name, counted(name))
    prepare()
    calls.clear()
    act()
    assert aliases(params) == wanted
    total = len(calls)
    assert total >= 4
    for done in range(total):
        limit = 10**9
        prepare()
        calls.clear()
        limit = done
        with pytest.raises(Killed):
            act()
        assert registry_of(params).champion() is not None, f"no champion after {done} calls"
        limit = 10**9
        act()
        assert aliases(params) == wanted, f"killed after {done} of {total} calls"


def test_a_download_is_verified_and_reused_and_damaged_bundles_are_rejected(
    params: Params, tmp_path: Path
) -> None:
    one = registry_of(params).register(bundle(tmp_path / "a", "one"), None, {})
    target = fetch_model(
        Tracker.open(params).client, f"models:/{params.data.name}/{one}", tmp_path / "work" / "1"
    )
    assert (target / "model.safetensors").read_text() == "one"
    written_at = (target / "model.json").stat().st_mtime_ns
    assert (
        fetch_model(Tracker.open(params).client, f"models:/{params.data.name}/{one}", target) / "model.json"
    ).stat().st_mtime_ns == written_at
    (target / "model.safetensors").write_text("damaged here")
    assert (
        fetch_model(Tracker.open(params).client, f"models:/{params.data.name}/{one}", target)
        / "model.safetensors"
    ).read_text() == "one"
    client = Tracker.open(params).client
    source = Path(client.get_model_version_download_uri(params.data.name, "1").removeprefix("file://"))
    (source / "model.safetensors").write_text("altered in the store")
    with pytest.raises(ModelError, match=r"not the file that model.json describes"):
        fetch_model(Tracker.open(params).client, f"models:/{params.data.name}/{one}", tmp_path / "other")
    shutil.rmtree(source)
    bundle(source, "whole, but another")
    with pytest.raises(ModelError, match="not the file that was registered"):
        fetch_model(Tracker.open(params).client, f"models:/{params.data.name}/{one}", tmp_path / "other")
    shutil.rmtree(source)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        fetch_model(Tracker.open(params).client, f"models:/{params.data.name}/{one}", tmp_path / "other")
    assert not (tmp_path / "other").exists()
