"""How commands end: known failures in one sentence, defects with a traceback, secrets in neither."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.errors import DataError, StageError
from tasks import failures

SECRET = "S3cretPw"
ADDRESS = f"http://user:{SECRET}@host"


def ended(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """(exit code, standard output, standard error) of a command that raises an error."""
    with pytest.raises(SystemExit) as end, failures.reported("Interrupted; all is kept."):
        raise error
    out, err = capsys.readouterr()
    return end.value.code, out, err


def foreign(module: str, text: str, base: type[Exception] = Exception) -> Exception:
    """An exception of another package, which is recognised by its module's name."""
    return type("Problem", (base,), {"__module__": module})(text)


@pytest.mark.parametrize(
    "error",
    [
        DataError(f"x.tif of {ADDRESS}: damaged", "restore it"),
        foreign("sqlalchemy.exc", f"(sqlite3.OperationalError) at {ADDRESS}\n[SQL: SELECT 1]"),
        foreign("mlflow.exceptions", f"API request to {ADDRESS} failed"),
        foreign("prefect.exceptions", f"{ADDRESS} away"),
        foreign("httpx", f"{ADDRESS} away"),
        foreign("botocore.exceptions", f"{ADDRESS} away"),
        foreign("dvc.exceptions", f"{ADDRESS} away"),
        ModuleNotFoundError("No module named 'google.cloud'", name="google.cloud"),
        ConnectionRefusedError(111, "Connection refused"),
        PermissionError(13, "Permission denied", "work/x"),
        OSError(28, "No space left on device", "work/x"),
        OSError(28, "No space left on device", "source", None, "work/x"),
        OSError(27, "File too large", "source", None, "work/x"),
        OSError(30, "Read-only file system", "work/x"),
        OSError(5, "Input/output error", "work/x"),
        OSError(116, "Stale file handle", "work/x"),
        RuntimeError("Failed to reach API at http://127.0.0.1:4200/api/"),
        IsADirectoryError(21, "Is a directory", "work/x"),
        FileNotFoundError(2, "No such file or directory", "work/x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        json.JSONDecodeError("Expecting value", "", 0),
        ExceptionGroup("tasks", [OSError(28, "No space left on device", "work/x")]),
    ],
)
def test_a_known_failure_is_one_sentence_with_a_remedy(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ended(error, capsys)
    assert code == 1 and not out
    assert err.startswith("\nError: ") and err.count("\n  Remedy: ") == 1
    assert "Traceback" not in err and SECRET not in err and "SQL:" not in err
    if getattr(error, "filename", None):
        assert "work/x: " in err


def test_another_python_than_that_of_the_project_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".venv", ".venv-bench", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(failures, "_PROJECT", tmp_path)
    error = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
    for name, remedy in (
        ("other", "run `. .venv/bin/activate`"),
        (".venv", "install"),
        (".venv-bench", "install"),
    ):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / name))
        known = failures.explained(error)
        assert known is not None and known.remedy.startswith(remedy)
    (tmp_path / ".venv").rmdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "other"))
    known = failures.explained(error)
    assert known is not None and known.remedy.startswith("install")


def test_a_defect_keeps_its_traceback_without_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = ended(KeyError(ADDRESS), capsys)
    assert code == 1 and "Traceback" in err and "please report it" in err and SECRET not in err


def test_the_traceback_of_a_known_failure_is_shown_for_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(failures.DEBUG, "1")
    _, _, err = ended(OSError(28, "No space left on device", "work/x"), capsys)
    assert "Traceback" in err and "Error: work/x" in err


def test_an_interrupted_command_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(KeyboardInterrupt(), capsys) == (130, "", "\nInterrupted; all is kept.\n")


def test_a_known_failure_becomes_an_error_with_its_sentence() -> None:
    with pytest.raises(StageError, match="No space left"), failures.translated():
        raise OSError(28, "No space left on device", "work/x")
    with pytest.raises(KeyError), failures.translated():
        raise KeyError("x")


def test_the_last_sentence_of_an_output_is_found() -> None:
    output = "step 1\n\nError: a.tif: is\ncut\n  Remedy: restore it\nERROR: failed to reproduce 'x'\n"
    assert failures.sentence_in(output) == ("a.tif: is\ncut", "restore it")
    assert failures.sentence_in("Traceback\nValueError: x") is None


def test_logs_of_every_package_are_masked(tmp_path: Path) -> None:
    code = f"""if True:
        import logging
        from tasks.failures import mask_logs
        mask_logs(); mask_logs()
        logging.basicConfig()
        log = logging.getLogger("urllib3.connectionpool")
        log.warning("retry of %s", "{ADDRESS}")
        log.warning("plain %d %%", 3)
        log.warning("wrong %d", "x")
        try:
            raise ValueError("{ADDRESS}")
        except ValueError:
            log.exception("failed")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert SECRET not in done.stderr
    assert "retry of http://***@host" in done.stderr and "ValueError: http://***@host" in done.stderr
    assert "plain 3 %" in done.stderr


def test_masking_leaves_records_without_secrets_as_they_are() -> None:
    plain = logging.getLogRecordFactory()
    try:
        failures.mask_logs()
        record = logging.getLogger("x").makeRecord("x", 20, "f", 1, "%s and %s", ("a", "b"), None)
        assert (record.msg, record.args) == ("%s and %s", ("a", "b"))
    finally:
        logging.setLogRecordFactory(plain)


def test_output_that_nothing_reads_any_more_is_named() -> None:
    script = "from tasks.failures import reported\nwith reported():\n    print('x' * 100_000, flush=True)"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1 and done.stderr.startswith("\nError: standard output was closed")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_known_failure_while_modules_are_imported_is_one_sentence() -> None:
    script = (
        "from tasks.interruption import report_in_one_line\nreport_in_one_line()\n"
        "raise OSError(5, 'Input/output error', 'a.py')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "\nError: a.py: Input/output error\n  Remedy: " in done.stderr
    assert "Traceback" not in done.stderr
