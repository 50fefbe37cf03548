"""A store that cannot be used ends a call of its client in one sentence, within seconds and without secrets."""

import http.server
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from segcore.errors import StageError
from tasks import sqlite
from tasks.tracking import store

SECRET = "S3cretPw"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(sqlite.WAIT, "0.2")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_answers_about_a_run_pass_and_damage_in_use_is_named(address: str, tmp_path: Path) -> None:
    client, file = store.open_client(address), tmp_path / "mlflow.db"
    assert client.get_experiment("0").artifact_location.startswith(str(tmp_path / "mlruns"))
    assert client.tracking_uri == address
    with pytest.raises(MlflowException) as caught:
        client.get_run("0" * 32)
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    file.write_bytes(bytes(4096) + file.read_bytes()[4096:])
    with pytest.raises(StageError, match="damaged") as named:
        client.create_run("0")
    assert str(file) in named.value.what and "make registry OPTIONS=--rebuild" in named.value.remedy
    with pytest.raises(StageError, match="damaged"):
        store.open_client(address)


def test_an_empty_file_becomes_a_new_store(address: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    assert store.open_client(address).search_experiments()[0].name == "Default"


def test_a_folder_in_place_of_the_store_is_named_at_once(address: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    with pytest.raises(StageError, match="is a folder"):
        store.open_client(address)


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = 'ffff00001111'", "DELETE FROM alembic_version"],
)
def test_a_store_with_another_schema_is_named_though_its_lock_file_is_of_this_version(
    address: str, tmp_path: Path, change: str
) -> None:
    """As of a copy that a newer MLflow wrote."""
    store.open_client(address)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database, database:
        database.execute(change)
    with pytest.raises(StageError, match="cannot use this store") as caught:
        store.open_client(address)
    assert str(tmp_path / "mlflow.db") in caught.value.what and "(Background" not in caught.value.what


@pytest.mark.parametrize("wrong", ["sqlite://", "sqlite:mlflow.db", "sqlite+pysqlite:///mlflow.db"])
def test_a_store_in_memory_and_other_sqlite_addresses_are_refused(wrong: str) -> None:
    """What is registered in memory would be gone when the process ends."""
    with pytest.raises(StageError, match="is not the address of a SQLite file"):
        store.open_client(wrong)


@pytest.mark.slow
def test_a_call_survives_a_lock_and_is_made_once(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow itself waits for 20 s."""
    client = store.open_client(address)
    monkeypatch.setenv(sqlite.WAIT, "60")
    with closing(
        sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN EXCLUSIVE")
        threading.Timer(23, lambda: other.execute("ROLLBACK")).start()
        client.create_run("0", run_name="waited")
    assert len(client.search_runs(["0"], "attributes.run_name = 'waited'")) == 1


@pytest.fixture
def web_server() -> Iterator[Callable[[int], str]]:
    """A function that returns the address of a web server that answers each request with a status and a page."""
    status = [200]

    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status[0])
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    def answering(code: int) -> str:
        status[0] = code
        return f"http://user:{SECRET}@127.0.0.1:{server.server_port}"

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield answering
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "remedy"), [(200, "tracking.uri"), (401, "password"), (404, "tracking.uri")]
)
def test_a_server_that_is_no_store_is_named_without_the_password(
    web_server: Callable[[int], str], status: int, remedy: str
) -> None:
    with pytest.raises(StageError, match=r"http://\*\*\*@127") as caught:
        store.open_client(web_server(status))
    assert SECRET not in str(caught.value) and remedy in caught.value.remedy


@pytest.mark.parametrize(
    "place",
    ["http://u:{}@127.0.0.1:9", "postgresql://u:{}@127.0.0.1:9/db", "foo://u:{}@/x", "http://u:{}/5@h:9x/"],
)
def test_an_address_that_does_not_answer_is_refused_at_once(place: str) -> None:
    with pytest.raises(StageError, match=r"\*\*\*@") as caught:
        store.open_client(place.format(SECRET))
    assert SECRET not in str(caught.value)
