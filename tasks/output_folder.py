"""The output folder of a prediction: created, locked, and watched for its removal."""

import fcntl
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

from segcore.errors import DataError, StageError


class OutputFolder:
    """A folder that one process at a time writes to; a context manager that waits for the others.

    Args:
        path: of the folder, which is created. What a killed run left in it is removed.

    Raises:
        DataError: it is not a folder, or not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "OutputFolder":
        try:
            self._lock = self._locked()
            for left in self.path.glob(".*.part"):
                shutil.rmtree(left, ignore_errors=True)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be used as output folder ({error.strerror or error})",
                "choose another --output, or give this user the right to write there",
            ) from error
        return self

    def _locked(self) -> IO[str]:
        """The lock file, locked; another one if it was removed with the folder while this process waited."""
        while True:
            with ExitStack() as stack:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = stack.enter_context((self.path / ".lock").open("a"))
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if self.is_there():
                    stack.pop_all()
                    return self._lock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def is_there(self) -> bool:
        """Whether the folder is still the one that was locked."""
        try:
            return os.path.samestat((self.path / ".lock").stat(), os.fstat(self._lock.fileno()))
        except OSError:
            return False

    def require(self) -> None:
        """Check that the folder is still the one that was locked.

        Raises:
            StageError: it was removed or replaced.
        """
        if not self.is_there():
            raise StageError(
                f"{self.path}: this folder was removed or replaced while scenes were predicted into it",
                "run the same command again",
            )
