"""One connection to a server before a tool uses it: tools try for minutes, and then name neither address nor cause."""

import socket
from urllib.parse import urlsplit

from segcore.errors import StageError

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_CONNECT_SECONDS = 10.0


def require_answer(address: str, name: str, remedy: str) -> None:
    """Connect once to a server that is named by host and port; an address without both is not checked.

    Args:
        address: of a database or web server.
        name: of the server, for the error message.
        remedy: remedy where it does not answer.

    Raises:
        StageError: there is no such host, or it refuses.
    """
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme.partition("+")[0])
    except ValueError as error:
        # the exception's text would contain a part of the password
        raise StageError(
            f"{address}: is not an address", f"{remedy}; in a password, write @ as %40 and / as %2F"
        ) from error
    if not host or not port:
        return
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise StageError(f"{address}: {name} does not answer ({error.strerror or error})", remedy) from error
