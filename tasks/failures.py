"""How a command ends: a known failure in one sentence with a remedy, a defect of segflow with its traceback."""

import errno
import logging
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from segcore.errors import SegflowError, StageError, masked
from segcore.files import LOST, lost_link
from tasks.supervisor import TERMINATED

# environment variable: print the traceback of known failures too
DEBUG = "SEGFLOW_DEBUG"
# environment variable of the stages of a flow
IN_FLOW = "SEGFLOW_FLOW_RUN_ID"
_WHERE = f"correct that file or restore it from a copy; {DEBUG}=1 shows where it was read"
_REMEDIES = {
    errno.ENOSPC: "free disk space, then run again; finished steps are kept",
    errno.EDQUOT: "free disk space, then run again; finished steps are kept",
    errno.EFBIG: "raise the limit of the size of files (`ulimit -f`), or choose another disk, then run again",
    errno.EACCES: "give this user the right to read and write it, then run again",
    errno.EPERM: "give this user the right to read and write it, then run again",
    errno.EROFS: "choose a folder on a disk that can be written, then run again",
    errno.ENOENT: "restore the file, or run again if it was removed meanwhile",
    errno.EISDIR: "move that folder away, then run again",
    errno.ENOTDIR: "move the file away that has the name of a folder, then run again",
    errno.EIO: "check the disk or the network share, then run again",
    errno.ESTALE: "check the network share, then run again",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), then run again",
}
_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# packages by the module of their exceptions, so that none is imported here: what failed, remedy
_PACKAGES = {
    "the database": (("sqlalchemy", "sqlite3", "alembic", "aiosqlite"), "check the database, then run again"),
    "MLflow": (("mlflow",), "check tracking.uri in params.yaml and the store, then run again"),
    "Prefect": (
        ("prefect",),
        "check PREFECT_API_URL, and that the server has the version of Prefect installed here or a newer one, then run "
        "again",
    ),
    "DVC": (
        ("dvc", "dvc_data", "dvc_objects", "scmrepo"),
        "check `dvc status` and the remote, then run again",
    ),
    "a file's syntax": (("yaml", "ruamel"), "correct that file, then run again"),
    "the connection": (
        (
            *("httpx", "httpcore", "requests", "urllib3", "aiohttp", "fsspec", "botocore", "aiobotocore"),
            *("s3fs", "gcsfs", "adlfs", "azure", "google", "paramiko", "ftplib", "ssl", "socket"),
        ),
        "check the address, the network and the credentials, then run again",
    ),
}
# texts of exceptions that Prefect raises as RuntimeError
_UNREACHED = ("Failed to reach API at", "Found incompatible versions")
# a module of this project that is missing is a defect
_OWN = {"flows", "segcore", "tasks"}
_PROJECT = Path(__file__).resolve().parents[1]
_SENTENCE = re.compile(r"^Error: (.+?)\n  Remedy: (.+)$", re.MULTILINE | re.DOTALL)


def explained(error: BaseException) -> SegflowError | None:
    """The error as a SegflowError; None for a defect of segflow, such as a KeyError."""
    if isinstance(error, SegflowError):
        return error
    if isinstance(error, BaseExceptionGroup):
        # of a group of tasks, the first failure is the cause
        return explained(error.exceptions[0])
    if isinstance(error, JSONDecodeError):
        return StageError(f"a file is not valid JSON ({error})", _WHERE)
    if isinstance(error, UnicodeDecodeError):
        return StageError(f"a file is not UTF-8 text ({error.reason} at byte {error.start})", _WHERE)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in _OWN:
        return _missing_module(error.name, _PROJECT)
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, RuntimeError) and str(error).startswith(_UNREACHED):
        package = "prefect"
    for name, (modules, remedy) in _PACKAGES.items():
        if package in modules:
            return StageError(f"{name} failed ({_line(error)})", remedy)
    return _explained_os_error(error) if isinstance(error, OSError) else None


def _missing_module(name: str, project: Path) -> StageError:
    """The error for a module that is not installed; it may be where the project's packages are.

    Args:
        name: of the module.
        project: folder of the environments, of which `.venv-cluster` and others have all packages of `.venv` too.
    """
    environments = {folder.resolve() for folder in project.glob(".venv*")}
    if (project / ".venv").is_dir() and Path(sys.prefix).resolve() not in environments:
        return StageError(
            f"the Python package of the module {name} is not installed for {sys.executable}, which is not the Python "
            "of this project",
            "run `. .venv/bin/activate`, or use .venv/bin/python",
        )
    return StageError(
        f"the Python package of the module {name} is not installed",
        "install it with `.venv/bin/python -m pip install`, as addresses such as gs:// need it; if it is one of "
        "pyproject.toml, install all with `rm .venv/.installed && make install`",
    )


def _explained_os_error(error: OSError) -> StageError:
    remedy = _REMEDIES.get(error.errno or 0, "correct the cause, then run again")
    if isinstance(error, BrokenPipeError) and _is_cut(sys.stdout):
        return StageError(
            "standard output was closed by the program that reads it",
            "write the output to a file, such as `> output.txt`, or read it to its end, then run again",
        )
    if isinstance(error, ConnectionError | TimeoutError):
        return StageError(
            f"a connection failed ({error.strerror or _line(error)})",
            "check the addresses in params.yaml and the network, then run again",
        )
    reason = error.strerror or _line(error)
    # of a copy, the second path is the one that is written
    name = error.filename2 if error.filename2 and error.errno in _OF_WRITING else error.filename
    lost = lost_link(Path(os.fsdecode(name))) if isinstance(name, str | bytes) else None
    if lost:
        return StageError(f"{lost}: is a link to {lost.readlink()}, which leads nowhere", LOST)
    return StageError(f"{name}: {reason}" if name else reason, remedy)


def _is_cut(stream: TextIO) -> bool:
    """Whether the reader of a pipe has closed it."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):
        # no file behind it, or closed here
        return False


def _end_output() -> None:
    """Let nothing more be written to a standard output that cannot take it, as Python would at its end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(error: BaseException) -> str:
    """First line of an exception's text, at most 300 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def sentence_in(output: str) -> tuple[str, str] | None:
    """(what, remedy) of the last error that a command of this project printed; None without one."""
    found = list(_SENTENCE.finditer(output))
    return (found[-1][1].strip(), found[-1][2].partition("\n")[0].strip()) if found else None


@contextmanager
def translated() -> Iterator[None]:
    """Raise known failures of other packages as SegflowError, so that the state of a flow run has the sentence."""
    try:
        yield
    except Exception as error:
        known = explained(error)
        if known is None or known is error:
            raise
        raise known from error


@contextmanager
def reported(interrupted: str = "Interrupted.", at_sigterm: bool = False) -> Iterator[None]:
    """Common end of all commands: exit code 1 after an error, which is printed; 130 after Ctrl-C.

    Args:
        interrupted: message printed at Ctrl-C.
        at_sigterm: print it at SIGTERM too, where that raises SystemExit; a stage ends with its flow, which prints it.
    """
    mask_logs()
    try:
        yield
    except SystemExit as end:
        if at_sigterm and end.code == TERMINATED:
            print(f"\n{interrupted}", file=sys.stderr, flush=True)
        raise
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr, flush=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001
        known = explained(error)
        if known is None or os.environ.get(DEBUG):
            print(masked(traceback.format_exc()), file=sys.stderr)
        if known is None:
            print(
                "This is a defect of segflow: please report it with the lines above.",
                file=sys.stderr,
                flush=True,
            )
        else:
            # DVC passes standard output on to the flow, which prints the error; standard error would be a second time
            stream = sys.stdout if os.environ.get(IN_FLOW) and not _is_cut(sys.stdout) else sys.stderr
            print(f"\nError: {known}", file=stream, flush=True)
        _end_output()
        sys.exit(1)


def mask_logs() -> None:
    """Mask secrets in all log records of this process, of other packages too; a repeated call changes nothing."""
    plain: Any = logging.getLogRecordFactory()
    if getattr(plain, "masks", False):
        return

    def masking(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = plain(*args, **kwargs)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            # logging itself reports a format that does not fit its arguments
            return record
        if masked(text) != text:
            record.msg, record.args = masked(text), ()
        if record.exc_info and record.exc_info[1] is not None:
            # formatters use this text instead of exc_info
            record.exc_text = masked("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    masking.masks = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masking)
