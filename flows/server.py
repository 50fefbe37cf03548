"""Prefect's server before a flow starts: a check of it, or of its database, and the start of an embedded one.

Prefect itself tries for minutes, and then names neither file nor cause.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
import httpx
import prefect
import psutil
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.context import get_settings_context
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from segcore.errors import StageError
from tasks import sqlite
from tasks.database_server import require_answer
from tasks.supervisor import end_with_this_process

_SQLITE = "sqlite+aiosqlite:///"
_RESTORE = "move it away: only the record of past flow runs is lost, not data, models or decisions"
_SERVER_REMEDY = "start that database, or correct PREFECT_API_DATABASE_CONNECTION_URL"
_REMEDY = "start the server, or correct {setting} (without it, each flow starts its own server)"
_TRIES = 3
# servers that may end before one stays
_STARTS = 2
_PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 10.0
_REFUSED = (401, 403)
# process numbers of embedded servers
_bound: set[int] = set()
_ABSENT = 404


def check() -> None:
    """Check the server at PREFECT_API_URL; without one, the database of a server on this machine.

    Waits for locks of other processes on the database.

    Raises:
        StageError: the server does not answer, or the database cannot be used.
    """
    address = PREFECT_API_URL.value()
    if address:
        _check_server(address)
        return
    database = _connection()
    if database.startswith(_SQLITE) and ":memory:" not in database:
        file = Path(database.removeprefix(_SQLITE).partition("?")[0])
        sqlite.check(file, _RESTORE)
        if not file.parent.is_dir():
            raise StageError(
                f"{file}: its folder does not exist",
                "make it, set PREFECT_HOME to a folder that this user can write to, or correct "
                "PREFECT_API_DATABASE_CONNECTION_URL",
            )
        _check_schema(file)
    elif not database.startswith("sqlite"):
        require_answer(database, "Prefect's database", _SERVER_REMEDY)


@contextmanager
def named() -> Iterator[None]:
    """Name Prefect's server where it is lost in the middle of a flow; its client says only that a connection failed."""
    try:
        yield
    except httpx.TransportError as error:
        address = PREFECT_API_URL.value()
        # without one, the server was of this process
        start = f"{_REMEDY.format(setting=_setting())}, then " if address else ""
        raise StageError(
            f"{address or 'this flow'}: Prefect's server does not answer any more ({error})",
            f"{start}run again; finished steps are kept",
        ) from error


def _check_schema(file: Path) -> None:
    """Check that Prefect has the migration that a database had last; its server would start again and again.

    Raises:
        StageError: it has not, or the database is of another program.
    """
    if not file.exists() or sqlite.first_value(file, "SELECT count(*) FROM sqlite_master") == "0":
        return
    revision = sqlite.first_value(file, "SELECT version_num FROM alembic_version")
    migrations = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    known = f'revision = "{revision}"'
    if revision is None or not any(known in path.read_text() for path in migrations.glob("*.py")):
        raise StageError(
            f"{file}: Prefect {prefect.__version__} cannot use this database (schema {revision})",
            f"install the version of Prefect that wrote it, or {_RESTORE}",
        )


def provide() -> None:
    """`check`, and start an embedded server where PREFECT_API_URL is not set.

    Raises:
        StageError: as `check`, or the server does not start.
    """
    check()
    if PREFECT_API_URL.value():
        return
    failures: list[Exception] = []
    starting = threading.Thread(target=_start, args=(failures,), daemon=True)
    starting.start()
    ended = _wait(starting)
    if failures or ended:
        # the database may have been locked or damaged meanwhile
        check()
        is_file = _connection().startswith(_SQLITE)
        restore = f"where it fails again, {_connection()}: {_RESTORE}" if is_file else _SERVER_REMEDY
        raise StageError(
            f"Prefect's server did not start ({str(failures[0]).splitlines()[0] if failures else 'it ended at once'})",
            f"see its lines above, and run again; {restore}",
        )


def _wait(starting: threading.Thread) -> bool:
    """Wait for the start of the server, which from then on ends with this process, even after kill -9.

    Returns:
        Whether servers end at once, which Prefect starts anew without end.
    """
    before = len(_bound)
    while starting.is_alive():
        starting.join(0.1)
        # at once, because this process may be killed while the server starts
        bind_embedded()
        if len(_bound) - before > _STARTS:
            return True
    return False


def bind_embedded() -> None:
    """Make the server that Prefect starts where none is configured end with this process, even after kill -9."""
    for child in psutil.Process().children():
        # it may have ended meanwhile
        with suppress(psutil.NoSuchProcess):
            is_server = any("prefect.server.api.server" in argument for argument in child.cmdline())
            if is_server and child.pid not in _bound:
                end_with_this_process(child.pid)
                _bound.add(child.pid)


def _start(failures: list[Exception]) -> None:
    """Start the embedded server in this thread, which hands on that it blocks SIGINT.

    Otherwise Ctrl-C in a terminal would end the server as well, before the flow can record its end.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        get_client(sync_client=True)
    except Exception as error:  # noqa: BLE001
        failures.append(error)


def _connection() -> str:
    value = PREFECT_API_DATABASE_CONNECTION_URL.value()
    return value.get_secret_value() if hasattr(value, "get_secret_value") else str(value or "")


def _check_server(address: str) -> None:
    setting = _setting()
    remedy = _REMEDY.format(setting=setting)
    for attempt in range(1, _TRIES + 1):
        try:
            _require_version(address, _ask(address), setting)
            return
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            if status in _REFUSED:
                remedy = "correct PREFECT_API_KEY or PREFECT_API_AUTH_STRING"
            elif status == _ABSENT:
                remedy = f"correct {setting}: the address of a Prefect API ends with /api"
            raise StageError(f"{address}: Prefect's server answers with status {status}", remedy) from error
        # InvalidURL, ValueError: not an address, or an answer that is no JSON
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError, RuntimeError) as error:
            raise StageError(f"{address}: {_not_prefect(address)}", remedy) from error
        except (httpx.HTTPError, OSError) as error:
            is_encrypted = "SSL" in str(error)
            if is_encrypted:
                remedy = (
                    "set PREFECT_API_SSL_CERT_FILE to the certificate of the server's authority, or write http:// in "
                    f"{setting} if the server does not encrypt"
                )
            if is_encrypted or attempt == _TRIES or isinstance(error, httpx.TimeoutException):
                raise StageError(f"{address}: Prefect's server does not answer ({error})", remedy) from error
            time.sleep(_PAUSE_SECONDS)


def _not_prefect(address: str) -> str:
    """What is wrong with an address that is no address, or where no Prefect server answers."""
    is_address = re.match(r"https?://[^/]", address)
    if is_address and address.rstrip("/").endswith("/api"):
        return "something other than Prefect answers there"
    return "is not the address of a Prefect API, which is such as http://127.0.0.1:4200/api"


def _setting() -> str:
    """Where the address comes from, for a remedy."""
    if PREFECT_API_URL.name in os.environ:
        return PREFECT_API_URL.name
    context = get_settings_context()
    if PREFECT_API_URL in context.profile.settings:
        path = context.profile.source or "Prefect's profiles"
        return f"PREFECT_API_URL of the profile {context.profile.name!r} in {path}"
    return f"{PREFECT_API_URL.name} in prefect.toml, pyproject.toml or .env"


def _ask(address: str) -> str | None:
    """The server's version, None for Prefect Cloud.

    Raises what the client raises, and ValueError for an answer that is not of a Prefect server.
    """
    settings = {"timeout": _TIMEOUT_SECONDS}
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        SyncPrefectClient(address, httpx_settings=settings) as client,
    ):
        error = client.api_healthcheck()
        if error is not None:
            raise error
        if client.server_type == ServerType.CLOUD:
            return None
        # any other web server may have a page at /health
        version = client.api_version()
        if not isinstance(version, str) or not re.match(r"\d+\.\d+", version):
            raise ValueError("no version")
        return version


def _require_version(address: str, version: str | None, setting: str) -> None:
    """Check that a server has this project's major version of Prefect; its clients refuse others."""
    if version is not None and version.partition(".")[0] != prefect.__version__.partition(".")[0]:
        raise StageError(
            f"{address}: is a server of Prefect {version}, but Prefect {prefect.__version__} is installed here",
            f"run a server of version {prefect.__version__}, or correct {setting} (without it, each flow starts its "
            "own server)",
        )
