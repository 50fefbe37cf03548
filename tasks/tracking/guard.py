"""Every call of an MLflow client, with the failures of its store as a StageError that names the store and a remedy."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.errors import StageError
from tasks import sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

RESTORE = (
    "restore it from a copy, correct tracking.uri in params.yaml, or move it away and run "
    "`make registry OPTIONS=--rebuild`, which makes the registry anew from decisions and bundles"
)
# MLflow's answers to a question about one run or version; the store is sound, and callers treat them
_ANSWERS = {
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
}
_REFUSED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
# packages whose exceptions are failures of the store or of the way to it
_PACKAGES = {"sqlalchemy", "sqlite3", "alembic", "requests", "urllib3"}
# attempts of a call that meets a lock again and again
_ATTEMPTS = 5


class Guard:
    """Has the attributes of an MlflowClient; its methods raise StageError where the store cannot be used.

    A call that meets the lock of another process waits and is repeated: SQLite has rolled it back.

    Args:
        connect: makes a client of the store, which already reads it.
        address: address of the store.
        file: its SQLite file; None for a server.
    """

    def __init__(self, connect: "Callable[[], MlflowClient]", address: str, file: Path | None) -> None:
        self._address, self._file = address, file
        self._client = self._guarded(connect)()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        return self._guarded(value) if callable(value) else value

    def _guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._once(method, *args, **kwargs)
                except StageError as error:
                    if self._file is None or not sqlite.is_busy(str(error.__cause__)):
                        raise
                    # waits for the lock; raises where the file is damaged, or locked for long
                    sqlite.check(self._file, RESTORE)
            return self._once(method, *args, **kwargs)

        return call

    def _once(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            failure = self._failure(error, is_artifact=_is_artifact(method.__name__))
            if failure is None:
                raise
            raise failure from error

    def _failure(self, error: Exception, is_artifact: bool) -> StageError | None:
        """The error of a store that cannot be used; None for an answer of a sound store, or another exception."""
        code = getattr(error, "error_code", None)
        if code in _ANSWERS or not (_is_of_store(error) or (code is not None and not is_artifact)):
            return None
        message = str(getattr(error, "message", error)).strip()
        if self._file is not None:
            return sqlite.explained(self._file, message, RESTORE)
        remedy = "start the server, or correct tracking.uri in params.yaml (null for the embedded store)"
        if code in _REFUSED:
            remedy = "correct the user, password or token of the server, such as MLFLOW_TRACKING_USERNAME"
        reason = message.splitlines()[0][:300] if message else type(error).__name__
        return StageError(f"{self._address}: the MLflow store does not answer ({reason})", remedy)


def _is_artifact(method: str) -> bool:
    """Whether a method reads or writes files beside the store."""
    return "artifact" in method or method in ("log_image", "log_table", "log_figure", "log_text", "log_dict")


def _is_of_store(error: BaseException | None) -> bool:
    """Whether an exception, or one that caused it, is of a package that reaches the store."""
    while error is not None:
        if type(error).__module__.partition(".")[0] in _PACKAGES:
            return True
        error = error.__cause__
    return False
