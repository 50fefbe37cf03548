"""Registry and records: what a kill left unfinished is completed, and any other difference stops."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segcore.errors import DataError, StageError
from segcore.params import Params
from tasks import promote
from tasks.promotion import history, record
from tasks.promotion.history import read_history, write_history
from tasks.promotion.recorded import recorded
from tasks.tracking import fetch, tracker
from tasks.tracking.tracker import Tracker
from tests.support.promotions import aliases, bundle, decision, model, promoted, registry_of, use_store

CHANGES = (
    "create_run",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_model_version_tag",
    "set_terminated",
)


class Killed(BaseException):
    """Simulates kill -9: no code of this project catches it."""


def recorded_aliases() -> dict[str, int]:
    return {alias: row.version for row in read_history(Path(), "x") for alias in row.aliases}


def forget(p: Params) -> None:
    """Close the store, so that another file can take its place."""
    tracker._client.cache_clear()


def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the calls that change the store or the records; those after `limit` raise Killed."""
    from mlflow import MlflowClient

    state = {"calls": 0, "limit": 10**9}

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if state["calls"] >= state["limit"]:
                raise Killed
            state["calls"] += 1
            return real(*arguments, **keywords)

        return call

    for name in CHANGES:
        monkeypatch.setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
    for module, names in (
        (promote, ("write_json", "write_history", "write_copy")),
        (history, ("write_json",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, counted(getattr(module, name)))
    return state


def test_an_empty_registry_and_no_records_agree(p: Params) -> None:
    registry_of(p).require_agreement()
    registry_of(p).require_agreement(dry_run=True)


def test_after_promotions_a_kept_challenger_and_rollbacks_they_agree(p: Params) -> None:
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    promoted(p, Path(), 2, 2, is_better=False)
    assert promote.rollback(p) == (1, 2) and promote.rollback(p) == (2, 1) and promote.rollback(p) == (1, 2)
    registry_of(p).require_agreement()
    expected = {"champion": 1, "previous": 2, "challenger": 3}
    assert aliases(p) == recorded_aliases() == expected
    # the same from the decisions and the copies alone
    history.history_path(Path(), "x").unlink()
    registry_of(p).require_agreement()
    assert recorded_aliases() == expected


@pytest.mark.parametrize("action", ["promote", "keep", "rollback"])
def test_after_a_kill_between_any_two_steps_the_next_check_completes_them_or_none(
    action: str, p: Params, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    forget(p)
    before, state = tmp_path / "before", counting(monkeypatch)
    shutil.copytree(Path(), before)
    done = 0
    while True:
        forget(p)
        for entry in ("decisions", "models"):
            shutil.rmtree(entry)
            shutil.copytree(before / entry, entry)
        shutil.copy(before / "mlflow.db", "mlflow.db")
        state.update(calls=0, limit=done)
        try:
            if action == "rollback":
                promote.rollback(p)
            else:
                promoted(p, Path(), 2, 2, is_better=action == "promote")
            break
        except Killed:
            state["limit"] = 10**9
        old = {"champion": 2, "previous": 1}
        new = {
            "promote": {"champion": 3, "previous": 2},
            "keep": old,
            "rollback": {"champion": 1, "previous": 2},
        }
        registry_of(p).require_agreement(dry_run=True)
        registry_of(p).require_agreement()
        found = {alias: number for alias, number in aliases(p).items() if alias != "challenger"}
        assert found in (old, new[action]), f"killed after {done} calls"
        assert recorded(Path(), "x").holder("champion").version == found["champion"]
        registry_of(p).require_agreement()
        done += 1
    assert done >= 4


def test_a_killed_promotion_is_recorded_as_acted_upon(p: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(p, Path(), 0, None)

    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(promote, "write_json", die)
        with pytest.raises(Killed):
            promoted(p, Path(), 1, 1)
    registry_of(p).require_agreement()
    done = record.read_record(Path("decisions/x/b1.json"))
    assert done and done.acted and done.versions == {"champion": 2}
    assert recorded_aliases() == {"champion": 2, "previous": 1}


def test_a_rollback_that_was_killed_is_completed_by_the_next_one_and_not_undone(
    p: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)

    def die(*_: Any) -> None:
        raise Killed

    for name in ("write_copy", "write_history"):
        with monkeypatch.context() as patch:
            patch.setattr(promote, name, die)
            with pytest.raises(Killed):
                promote.rollback(p)
        assert promote.rollback(p) == (1, 2), name
        assert promote.rollback(p) == (2, 1)


def lost(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    use_store(patch, Path("new-mlflow.db"), empty / "mlflow.db")


def of_zero_bytes(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    use_store(patch, Path("new-mlflow.db"), None)


def another_store(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    use_store(patch, Path("new-mlflow.db"), empty / "mlflow.db")
    for number in range(2):
        registry_of(p).register(bundle(Path(f"other/{number}"), f"other {number}"), None, {})
    registry_of(p).promote(2, record.DecisionTags("promoted", "", history.now()))


def old_copy(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    use_store(patch, Path("new-mlflow.db"), Path("after-first.db"))


def alias_moved(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    Tracker.open(p).client.set_registered_model_alias("x", "champion", "1")


def alias_deleted(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    Tracker.open(p).client.delete_registered_model_alias("x", "champion")


def previous_moved(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    Tracker.open(p).client.set_registered_model_alias("x", "previous", "3")


def version_deleted(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    Tracker.open(p).client.delete_model_version("x", "1")


def model_deleted(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    Tracker.open(p).client.delete_registered_model("x")


def files_deleted(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("mlruns")


def records_deleted(p: Params, empty: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("decisions")


HARM = [
    (lost, "has no version of this model", "--rebuild"),
    pytest.param(of_zero_bytes, "has no version of this model", "--rebuild", marks=pytest.mark.slow),
    (another_store, "has the weights", "--accept"),
    (old_copy, "records version 2, which the registry does not have", "--rebuild"),
    (alias_moved, "champion is version 1 in the registry, but version 2", "--accept"),
    (alias_deleted, "champion is no version in the registry, but version 2", "--rebuild"),
    (previous_moved, "previous is version 3 in the registry, but version 1", "--accept"),
    (version_deleted, "records version 1, which the registry does not have", "--accept"),
    (model_deleted, "has no version of this model", "--rebuild"),
    (files_deleted, "files of version 2, the champion, are gone", "--rebuild"),
    (records_deleted, "decisions/x has no record of it", "--accept"),
]


@pytest.fixture
def damaged(
    p: Params, empty_store: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Params:
    """A project with two champions and a challenger, after one of HARM."""
    promoted(p, Path(), 0, None)
    forget(p)
    shutil.copy("mlflow.db", "after-first.db")
    promoted(p, Path(), 1, 1)
    promoted(p, Path(), 2, 2, is_better=False)
    request.param(p, empty_store, monkeypatch)
    return p


@pytest.mark.parametrize(("damaged", "what", "remedy"), HARM, indirect=["damaged"])
def test_a_registry_that_differs_from_the_records_stops(damaged: Params, what: str, remedy: str) -> None:
    rows = read_history(Path(), "x")
    for dry_run in (True, False):
        with pytest.raises(StageError, match=what) as caught:
            registry_of(damaged).require_agreement(dry_run=dry_run)
        assert remedy in caught.value.remedy and "mlflow.db" in caught.value.what
    assert read_history(Path(), "x") == rows, "the records are not changed"


@pytest.mark.parametrize(
    ("damaged", "is_wrong"),
    [
        *(
            (harm, True)
            for harm in (lost, another_store, old_copy, alias_moved, alias_deleted, model_deleted)
        ),
        *((harm, False) for harm in (previous_moved, version_deleted, files_deleted, records_deleted)),
    ],
    indirect=["damaged"],
)
def test_prediction_stops_only_if_the_champion_itself_differs(damaged: Params, is_wrong: bool) -> None:
    if not is_wrong:
        registry_of(damaged).require_champion()
        return
    with pytest.raises(StageError) as caught:
        fetch.find_model(damaged, "champion")
    assert "make registry OPTIONS=--rebuild" in caught.value.remedy


@pytest.mark.parametrize("content", ['{"format": 1, "versions": [{"ver', "[]", '{"format": 1}', '{"format": 2}',
    '{"format": 1, "versions": [3]}', '{"format": 1, "versions": [{"version": "x"}]}',
    '{"format": 1, "versions": [], "written": 5}', "\xff", ""])  # fmt: skip
def test_a_damaged_history_is_an_error_with_a_remedy(content: str, p: Params) -> None:
    promoted(p, Path(), 0, None)
    history.history_path(Path(), "x").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"history.json: not a readable history") as caught:
        registry_of(p).require_agreement()
    assert "--rebuild" in caught.value.remedy


def test_a_champion_that_another_copy_of_the_project_promoted_is_not_taken_over(p: Params) -> None:
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    shutil.copytree("decisions", "ours")
    promoted(p, Path(), 2, 2)
    shutil.rmtree("decisions")
    shutil.move("ours", "decisions")
    for dry_run in (True, False):
        with pytest.raises(StageError, match=r"(?s)champion is version 3 .*git pull"):
            registry_of(p).require_agreement(Path(), dry_run)
    assert recorded_aliases() == {"champion": 2, "previous": 1}


def test_versions_that_only_the_registry_has_are_no_disagreement(p: Params) -> None:
    promoted(p, Path(), 0, None)
    registry_of(p).register(bundle(Path("by-hand"), "by hand"), None, {})
    registry_of(p).require_agreement()


def test_the_history_never_has_fewer_versions_than_before(p: Params) -> None:
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    rows = read_history(Path(), "x")
    write_history(Path(), "x", rows[:1])
    after = read_history(Path(), "x")
    assert [(row.version, row.deleted) for row in after] == [(2, False), (1, True)]


def test_an_unchanged_history_is_not_written_again(p: Params) -> None:
    promoted(p, Path(), 0, None)
    path = history.history_path(Path(), "x")
    before = path.read_text()
    write_history(Path(), "x", registry_of(p).history())
    history.replace_history(Path(), "x", registry_of(p).history())
    assert path.read_text() == before
    write_history(Path(), "x", [])
    assert path.read_text() != before


def test_a_history_without_time_of_writing_is_read(p: Params) -> None:
    """As written by earlier versions of segflow."""
    promoted(p, Path(), 0, None)
    promoted(p, Path(), 1, 1)
    path = history.history_path(Path(), "x")
    content = history.read_json(path, "", "")
    del content["written"]
    history.write_json(path, content)
    registry_of(p).require_agreement()
    registry_of(p).rollback()
    registry_of(p).require_agreement()
    assert recorded_aliases() == {"champion": 1, "previous": 2}


def test_a_decision_that_was_never_acted_upon_does_not_explain_another_champion(p: Params) -> None:
    promoted(p, Path(), 0, None)
    one = model(bundle(Path("models/unet-1"), "weights 1", 1))
    # against a champion that is none any more
    record.write_record(record.record_path(Path(), "x", "old"), decision(p, "old", one, 7))
    registry_of(p).register(one.folder, None, {})
    with sqlite3.connect("mlflow.db") as database:
        database.execute("update registered_model_aliases set version = 2 where alias = 'champion'")
    with pytest.raises(StageError, match="champion is version 2 in the registry, but version 1"):
        registry_of(p).require_agreement()
