"""What is checked before a server is started: its database and its port."""

import argparse
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL, temporary_settings

from flows import server, ui
from segcore.errors import StageError


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
