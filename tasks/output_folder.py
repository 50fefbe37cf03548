"""The output folder of a prediction: created, locked, and watched for its removal."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

from segcore.errors import DataError, StageError
from segcore.parts import remove

_LOCK = ".lock"
# bytes of the file that is written to find a full disk
_TRIAL_BYTES = 2**16


def require_writable(path: Path) -> None:
    """Check that a folder can be created and written to, without creating it.

    Args:
        path: of the folder, or of one that does not exist yet.

    Raises:
        DataError: it or a folder above it is a file or not writable, the disk is full, or its lock is not writable.
    """
    with _as_output(path):
        there = path
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if not there.is_dir():
            is_link = there.is_symlink() and not there.exists()
            raise NotADirectoryError(f"{there} is a {'broken link' if is_link else 'file'}")
        if there == path and (path / _LOCK).exists():
            with (path / _LOCK).open("a"):
                pass
        with tempfile.TemporaryFile(dir=there) as trial:
            trial.write(bytes(_TRIAL_BYTES))
            trial.flush()
            os.fsync(trial.fileno())


@contextmanager
def _as_output(path: Path) -> Iterator[None]:
    """Raise errors of the file system as errors of the output folder."""
    try:
        yield
    except OSError as error:
        remedy = "choose another --output"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free space on its disk, or choose another --output"
        elif isinstance(error, PermissionError):
            remedy = "choose another --output, or give this user the right to write there"
        raise DataError(
            f"{path}: cannot be used as output folder ({error.strerror or error})", remedy
        ) from error


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
        with _as_output(self.path):
            self._lock = self._locked()
            for left in self.path.glob(".*.part"):
                remove(left)
        return self

    def _locked(self) -> IO[str]:
        """The lock file, locked; another one if it was removed with the folder while this process waited."""
        while True:
            with ExitStack() as stack:
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = stack.enter_context((self.path / _LOCK).open("a"))
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
            return os.path.samestat((self.path / _LOCK).stat(), os.fstat(self._lock.fileno()))
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
