"""`make registry`, with `--rebuild` and `--accept`: the registry from the records, and the reverse."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from segcore.errors import StageError
from segcore.files import sha256
from segcore.params import Params
from tasks import promote
from tasks.promotion import history, rebuild
from tasks.promotion.history import RegisteredVersion, read_history
from tasks.promotion.model_card import CARD
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tests.support.promotions import aliases, bundle, promoted, registry_of, use_store

EXPECTED = {"champion": 1, "previous": 2, "challenger": 3}


@pytest.fixture
def project(p: Params) -> Params:
    """Two champions, a challenger, and a rollback."""
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    promoted(p, Path(), 2, 2, is_better=False)
    promote.rollback(p)
    return p


def run(p: Params) -> list[str]:
    lines, problem = rebuild.rebuild(registry_of(p), Path(), p)
    assert problem is None, problem
    registry_of(p).require_agreement()
    return lines


def facts(rows: list[RegisteredVersion]) -> list[dict[str, Any]]:
    """Everything that must survive; the runs are those of another store."""
    return [asdict(replace(row, run_id=None)) for row in rows]


def lose_store(patch: pytest.MonkeyPatch, empty: Path) -> None:
    use_store(patch, Path("new-mlflow.db"), empty / "mlflow.db")


@pytest.mark.parametrize("place", ["models", "work/champion", "mlruns", "work/predict"])
def test_a_lost_registry_is_restored_with_numbers_tags_aliases_and_files(
    place: str, project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = registry_of(project).history()
    lose_store(monkeypatch, empty_store)
    if place == "mlruns":
        shutil.rmtree("models")
    else:
        shutil.rmtree("mlruns")
        for number in range(3):
            target = Path(place) / (f"unet-{number}" if place == "models" else f"{number + 1}")
            if place != "models":
                shutil.copytree(f"models/unet-{number}", target)
        if place != "models":
            shutil.rmtree("models")
    first = run(project)
    assert "created version 1, 2, 3" in first[0] and "champion is version 1" in first[0]
    assert facts(registry_of(project).history()) == facts(before) == facts(read_history(Path(), "x"))
    assert aliases(project) == EXPECTED
    for row in before:
        fetched = registry_of(project).fetch(row.version, Path(f"fetched/{row.version}"))
        assert sha256(fetched / "model.safetensors") == row.weights_sha256
    assert "nothing was missing" in run(project)[0]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_lost_store_gets_its_model_cards_back(
    is_kept: bool, project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        registry_of(project).describe(number, f"# Card {number}\n")
    if not is_kept:
        shutil.rmtree("mlruns")
    lose_store(monkeypatch, empty_store)
    run(project)
    registry = registry_of(project)
    for number in (1, 2, 3):
        text = registry.tracker.client.get_model_version("x", str(number)).description
        assert text.startswith(f"# Card {number}\n" if is_kept else f"# U-Net for x, version {number}\n")
        assert registry.is_described(number) and (Path(registry.source(number)) / CARD).read_text() == text


def test_a_version_of_an_earlier_segflow_becomes_a_model_with_a_card(project: Params) -> None:
    registry = registry_of(project)
    source = Path(registry.source(2))
    for name in ("MLmodel", CARD):
        (source / name).unlink()
    assert "stored the files of version 2 again" in run(project)[0]
    assert registry.is_model(2) and registry.is_described(2) and "nothing was missing" in run(project)[0]


def test_bundles_are_found_in_the_cache_of_dvc(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dvc(*command: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)

    dvc("init", "--no-scm", "-q")
    dvc("add", "-q", "models/unet-0", "models/unet-1", "models/unet-2")
    shutil.rmtree("models")
    shutil.rmtree("mlruns")
    lose_store(monkeypatch, empty_store)
    # a damaged listing, and an object that is gone, are passed over
    cache = Path(".dvc/cache/files/md5")
    (cache / "00").mkdir(exist_ok=True)
    (cache / "00/0.dir").write_text("[{")
    assert "created version 1, 2, 3" in run(project)[0] and aliases(project) == EXPECTED


@pytest.mark.parametrize("harm", ["cut", "gone"])
def test_a_history_that_is_lost_is_written_again(harm: str, project: Params) -> None:
    before, path = read_history(Path(), "x"), history.history_path(Path(), "x")
    if harm == "cut":
        path.write_text(path.read_text()[:100])
    else:
        path.unlink()
    lines = run(project)
    assert facts(read_history(Path(), "x")) == facts(before)
    assert any("not a readable history" in line for line in lines) == (harm == "cut")


def test_with_registry_and_history_lost_the_decisions_and_copies_suffice(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.history_path(Path(), "x").unlink()
    lose_store(monkeypatch, empty_store)
    run(project)
    assert aliases(project) == EXPECTED
    # the decisions alone do not have the rollback
    shutil.rmtree("decisions/x/history")
    history.history_path(Path(), "x").unlink()
    run(project)
    assert aliases(project) == {"champion": 2, "previous": 1, "challenger": 3}


def test_a_decision_cut_short_is_named_and_the_others_are_used(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("decisions/x/b1.json").write_text('{"format": 1, "act')
    lose_store(monkeypatch, empty_store)
    lines, problem = rebuild.rebuild(registry_of(project), Path(), project)
    assert problem is None and aliases(project) == EXPECTED
    assert any("b1.json: not a readable decision" in line and "git" in line for line in lines)
    # without the history, the damaged decision may be the one on the champion
    history.history_path(Path(), "x").unlink()
    shutil.rmtree("decisions/x/history")
    with pytest.raises(StageError, match=r"b1\.json"):
        rebuild.rebuild(registry_of(project), Path(), project)


def test_a_version_without_weights_keeps_its_number(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_store(monkeypatch, empty_store)
    shutil.rmtree("mlruns")
    shutil.rmtree("models/unet-2")
    lines = run(project)
    assert any("files of version 3 were not found" in line for line in lines)
    assert [row.version for row in registry_of(project).history()] == [3, 2, 1]
    bundle(Path("models/unet-2"), "weights 2", 2)
    assert "stored the files of version 3 again" in run(project)[0]


def test_lost_weights_of_the_champion_are_an_error_whose_remedy_works(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_store(monkeypatch, empty_store)
    shutil.rmtree("mlruns")
    kept = shutil.move("models/unet-0", "elsewhere")
    _, problem = rebuild.rebuild(registry_of(project), Path(), project)
    assert problem and "version 1, the champion" in problem.what and "work/champion/1" in problem.remedy
    with pytest.raises(StageError, match="files of version 1, the champion, are gone"):
        registry_of(project).require_agreement()
    shutil.copytree(kept, "work/champion/1")
    run(project)
    assert aliases(project) == EXPECTED


def test_damaged_files_in_the_store_are_replaced(project: Params) -> None:
    source = Path(registry_of(project).source(2).removeprefix("file://"))
    (source / "model.safetensors").write_text("altered")
    shutil.rmtree(Path(registry_of(project).source(1).removeprefix("file://")))
    assert "stored the files of version 1, 2 again" in run(project)[0]


@pytest.mark.parametrize("which", [1, 2, 3])
def test_deleted_versions_get_their_numbers_back_and_the_rest_is_set_aside(
    which: int, project: Params
) -> None:
    client, before = Tracker.open(project).client, registry_of(project).history()
    client.delete_model_version("x", str(which))
    lines = run(project)
    assert facts(registry_of(project).history()) == facts(before) and aliases(project) == EXPECTED
    assert "is now called x-before-" in lines[1]
    (other,) = [model for model in client.search_registered_models() if model.name != "x"]
    assert len(client.search_model_versions(f"name = '{other.name}'")) >= 2


def test_gaps_are_kept(p: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(p, Path(), 0, None)
    registry_of(p).register(bundle(Path("by-hand"), "by hand"), None, {})
    registry_of(p).delete(2)
    promoted(p, Path(), 1, 1)
    assert aliases(p) == {"champion": 3, "previous": 1}
    lose_store(monkeypatch, empty_store)
    run(p)
    assert [row.version for row in registry_of(p).history()] == [3, 1]


def test_another_registry_is_set_aside_with_its_versions(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_store(monkeypatch, empty_store)
    registry_of(project).register(bundle(Path("other"), "other"), None, {})
    lines = run(project)
    (other,) = [m.name for m in Tracker.open(project).client.search_registered_models() if m.name != "x"]
    assert other in lines[1] and aliases(project) == EXPECTED


def test_newer_versions_of_the_registry_are_kept(project: Params) -> None:
    registry_of(project).register(bundle(Path("newer"), "newer"), None, {})
    Tracker.open(project).client.set_registered_model_alias("x", "champion", "4")
    run(project)
    assert aliases(project) == EXPECTED and len(registry_of(project).history()) == 4


class Killed(BaseException):
    """Simulates kill -9."""


@pytest.mark.slow
def test_a_rebuild_that_is_killed_anywhere_is_completed_by_the_next(
    project: Params, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, state = registry_of(project).history(), {"left": 0}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if state["left"] == 0:
                raise Killed
            state["left"] -= 1
            return real(*arguments, **keywords)

        return call

    names = (
        "add",
        "add_without_files",
        "delete",
        "set_aside",
        "set_aliases",
        "tag",
        "restore_files",
        "create",
    )
    for name in names:
        monkeypatch.setattr(Registry, name, counted(getattr(Registry, name)))
    monkeypatch.setattr(rebuild, "replace_history", counted(rebuild.replace_history))
    done = 0
    while True:
        use_store(monkeypatch, Path(f"mlflow-{done}.db"), empty_store / "mlflow.db")
        state["left"] = -1
        registry_of(project).register(bundle(Path("other"), "other"), None, {})
        state["left"] = done
        try:
            rebuild.rebuild(registry_of(project), Path(), project)
            break
        except Killed:
            state["left"] = -1
        run(project)
        assert facts(registry_of(project).history()) == facts(before), f"killed after {done} calls"
        done += 1
    assert done > 8


def test_accept_writes_a_moved_alias_to_the_records(project: Params) -> None:
    client = Tracker.open(project).client
    client.set_registered_model_alias("x", "champion", "3")
    client.delete_model_version("x", "2")
    with pytest.raises(StageError):
        registry_of(project).require_agreement()
    (line,) = rebuild.accept(registry_of(project), Path())
    assert "champion is version 3" in line
    registry_of(project).require_agreement()
    rows = read_history(Path(), "x")
    assert [(row.version, row.deleted) for row in rows] == [(3, False), (2, True), (1, False)]
    history.history_path(Path(), "x").unlink()
    registry_of(project).require_agreement()


def test_accept_without_a_champion_or_its_files_is_refused(
    project: Params, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree("mlruns")
    with pytest.raises(StageError, match="files of version 1, the champion, are gone"):
        rebuild.accept(registry_of(project), Path())
    lose_store(monkeypatch, empty_store)
    with pytest.raises(StageError, match="no champion that could be accepted"):
        rebuild.accept(registry_of(project), Path())


def test_accept_names_the_weights_of_a_version_registered_by_hand(project: Params) -> None:
    client = Tracker.open(project).client
    run_id = client.create_run(Tracker.open(project).experiment()).info.run_id
    client.log_artifacts(run_id, str(bundle(Path("by-hand"), "by hand")), "model")
    client.create_model_version("x", f"{client.get_run(run_id).info.artifact_uri}/model", run_id)
    client.set_registered_model_alias("x", "champion", "4")
    rebuild.accept(registry_of(project), Path())
    champion = registry_of(project).champion()
    weights = json.loads(Path("by-hand/model.json").read_text())["weights_sha256"]
    assert champion and champion.weights_sha256 == weights
    registry_of(project).require_agreement()


def test_without_records_there_is_nothing_to_restore(p: Params) -> None:
    with pytest.raises(StageError, match="no record of a registered version"):
        rebuild.rebuild(registry_of(p), Path(), p)
