"""What is checked before a server is started: its database and its port."""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prefect
import psutil
import pytest
from prefect.context import use_profile
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, Profile, temporary_settings

from flows import server, ui
from segcore.errors import StageError
from tests.support import workspaces

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("revision", ["ffff00001111", None])
def test_a_database_of_a_newer_prefect_or_another_program_is_named_at_once(
    tmp_path: Path, revision: str | None
) -> None:
    """Prefect starts its server again and again on one that it cannot upgrade, for minutes."""
    file = tmp_path / "prefect.db"
    connection = {PREFECT_API_URL: None, PREFECT_API_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{file}"}
    with temporary_settings(connection):
        server.check()
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("CREATE TABLE alembic_version (version_num TEXT)")
            if revision:
                database.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        with pytest.raises(StageError, match=f"cannot use this database .schema {revision}") as caught:
            server.check()
        assert str(file) in caught.value.what and "move it away" in caught.value.remedy
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("DELETE FROM alembic_version")
            database.execute("INSERT INTO alembic_version VALUES ('a3b9c7d2e5f1')")
        server.check()


def test_a_database_server_that_refuses_is_named_without_the_password() -> None:
    address = "postgresql+asyncpg://user:S3cretPw@127.0.0.1:9/prefect"
    with (
        temporary_settings({PREFECT_API_URL: None, PREFECT_API_DATABASE_CONNECTION_URL: address}),
        pytest.raises(StageError, match=r"Prefect's database does not answer \(Connection refused") as caught,
    ):
        server.check()
    assert "S3cretPw" not in str(caught.value) and "CONNECTION_URL" in caught.value.remedy


@pytest.mark.parametrize("wanted", ["70000", "-1", "http", "1e3"])
def test_a_port_that_does_not_exist_is_an_error_of_the_command_line(wanted: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no port"):
        ui.port_number(wanted)
    assert ui.port_number("4200") == 4200


@contextmanager
def answering(status: int, version: object) -> Iterator[str]:
    """The address of a web server that has this status and, as its version, this value."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(True if self.path.endswith("/health") else version).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/api"
        web.shutdown()


@pytest.mark.parametrize(
    ("status", "version", "expected"),
    [
        (200, "2.20.9", r"is a server of Prefect 2\.20\.9, but[\s\S]*run a server of version"),
        (200, "9.0.0", r"is a server of Prefect 9\.0\.0, but"),
        (200, "newest", r"/api: something other than Prefect answers there"),
        (200, {"detail": "no"}, r"/api: something other than Prefect answers there"),
        (404, None, r"status 404[\s\S]*ends with /api"),
        (502, None, r"status 502[\s\S]*start the server"),
        (401, None, r"status 401[\s\S]*PREFECT_API_KEY"),
    ],
)
def test_a_server_of_another_version_or_kind_is_named_with_its_remedy(
    status: int, version: object, expected: str
) -> None:
    with (
        answering(status, version) as address,
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(StageError, match=expected) as caught,
    ):
        server.check()
    assert address in caught.value.what


@pytest.mark.parametrize("address", ["localhost:4200", "ftp://127.0.0.1/api", "127.0.0.1"])
def test_what_is_no_address_of_an_api_is_named_with_an_example(address: str) -> None:
    with (
        temporary_settings({PREFECT_API_URL: address}),
        pytest.raises(
            StageError, match=r"is not the address of a Prefect API, which is such as http://"
        ) as caught,
    ):
        server.check()
    assert address in caught.value.what


def test_a_server_that_still_starts_ends_with_its_killed_flow(tmp_path: Path) -> None:
    """Its start takes seconds, more on a busy machine, in which the flow may be killed."""
    starting = subprocess.Popen(
        [sys.executable, "-c", "from flows import server; server.provide()"],
        env=workspaces.environment(ROOT, PREFECT_HOME=str(tmp_path)),
    )
    with starting:
        while not (found := [p for p in psutil.Process(starting.pid).children() if "uvicorn" in p.cmdline()]):
            assert starting.poll() is None
            time.sleep(0.02)
        # the server has loaded nothing yet
        time.sleep(0.7)
        starting.kill()
    gone, alive = psutil.wait_procs(found, timeout=20)
    assert gone and not alive


def test_a_server_of_this_version_is_accepted_and_https_without_encryption_is_named() -> None:
    with answering(200, prefect.__version__) as address:
        with temporary_settings({PREFECT_API_URL: address}):
            server.check()
        encrypted = address.replace("http:", "https:")
        with (
            temporary_settings({PREFECT_API_URL: encrypted}),
            pytest.raises(StageError, match=r"SSL[\s\S]*PREFECT_API_SSL_CERT_FILE"),
        ):
            server.check()


def test_the_profile_with_the_address_of_a_server_that_is_gone_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "_TRIES", 1)
    old = Profile(
        name="old", settings={PREFECT_API_URL: "http://127.0.0.1:9/api"}, source=Path("profiles.toml")
    )
    with use_profile(old, include_current_context=False), pytest.raises(StageError) as caught:
        server.check()
    assert "does not answer" in caught.value.what
    assert "PREFECT_API_URL of the profile 'old' in profiles.toml" in caught.value.remedy


@pytest.mark.parametrize("variable", ["PREFECT_API_REQUEST_TIMEOUT", "PREFECT_LOGGING_LEVEL"])
def test_an_invalid_setting_of_prefect_is_one_sentence(tmp_path: Path, variable: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.notify", "--off"],
        env={**os.environ, "PREFECT_HOME": str(tmp_path), variable: "loud"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "Error: Prefect's settings are invalid" in done.stderr and "loud" in done.stderr.lower()
