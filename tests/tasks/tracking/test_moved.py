"""A store follows its project's folder when that is moved, renamed, copied or mounted elsewhere."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from segcore.errors import ModelError
from segcore.params import Params
from tasks.tracking import tracker
from tasks.tracking.fetch import find_model
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tests.support.bundles import make_bundle
from tests.support.tiny import params_for

ADDRESS = "models:/tiny/1"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a registered bundle."""
    folder = tmp_path_factory.mktemp("moved") / "first place"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Registry(Tracker.open(params())).register(make_bundle(folder / "models/unet-0"), None, {})
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project at a place of its own, as if it had been made there."""
    folder = tmp_path / "a % b"
    shutil.copytree(template, folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            database.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(folder))
            )
        database.execute(
            "UPDATE model_versions SET source = replace(source, ?, ?), "
            "storage_location = replace(storage_location, ?, ?)",
            (str(template), str(folder)) * 2,
        )
        database.execute(
            "UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)",
            (str(template), str(folder)),
        )
    tracker._client.cache_clear()
    return folder


def params() -> Params:
    return params_for("source")


def addresses(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs "
            "UNION SELECT source FROM model_versions UNION SELECT storage_location FROM model_versions "
            "UNION SELECT artifact_location FROM logged_models"
        )
        return {row[0] for row in rows}


def read_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """Version number of the bundle that is read in a project folder."""
    monkeypatch.chdir(folder)
    tracker._client.cache_clear()
    shutil.rmtree(folder / "work", ignore_errors=True)
    return find_model(params(), ADDRESS, folder).version


def test_a_moved_project_has_its_models_and_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = place.with_name("new ü")
    place.rename(new)
    assert read_at(new, monkeypatch) == 1
    assert all(address.startswith(f"{new}/mlruns/") for address in addresses(new))
    assert capsys.readouterr().err.count("was moved from") == 1
    Registry(Tracker.open(params())).register(make_bundle(new / "models/unet-1", seed=1), None, {})
    assert not place.exists()
    assert read_at(new, monkeypatch) == 1 and "moved" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["empty", "mlruns", "without files"])
def test_a_moved_project_does_not_use_another_one_at_its_former_place(
    what: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = place.with_name("new")
    place.rename(new)
    (place / "mlruns/1" if what == "mlruns" else place).mkdir(parents=True)
    if what == "without files":
        shutil.rmtree(new / "mlruns")
    monkeypatch.chdir(new)
    tracker._client.cache_clear()
    Registry(Tracker.open(params())).register(make_bundle(new / "models/unet-1", seed=1), None, {})
    assert all(address.startswith(f"{new}/mlruns/") for address in addresses(new))
    assert capsys.readouterr().err.count("was moved from") == 1 and not list(place.rglob("*.json"))


def test_a_copy_neither_reads_nor_changes_the_project_that_it_was_copied_from(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = place.with_name("copy")
    shutil.copytree(place, copy)
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    assert read_at(copy, monkeypatch) == 1
    Registry(Tracker.open(params())).register(make_bundle(copy / "models/unet-1", seed=1), None, {})
    assert f"is a copy of {place}/mlflow.db" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before
    assert all(address.startswith(f"{copy}/mlruns/") for address in addresses(copy))
    assert all(address.startswith(f"{place}/mlruns/") for address in addresses(place))


def test_a_copy_without_its_artifacts_does_not_read_those_of_the_first_project(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = place.with_name("copy")
    shutil.copytree(place, copy)
    shutil.rmtree(copy / "mlruns")
    shutil.rmtree(copy / "models")
    with pytest.raises(ModelError, match="is gone"):
        read_at(copy, monkeypatch)


def test_a_store_that_projects_share_and_one_behind_a_link_are_left_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = place.with_name("shared")
    (shared / "mlruns").mkdir(parents=True)
    (place / "mlflow.db").rename(shared / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    assert read_at(place, monkeypatch) == 1
    (shared / "mlflow.db").rename(place / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    link = place.with_name("link")
    link.symlink_to(place)
    assert read_at(link, monkeypatch) == 1
    # another project that has used this store has its own files
    (place / "mlflow.db").rename(shared / "mlflow.db")
    shutil.copytree(place / "mlruns", shared / "mlruns", dirs_exist_ok=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    assert read_at(place, monkeypatch) == 1
    assert "tracking:" not in capsys.readouterr().err
