"""Ways in which the files of an operation are damaged, and the commands that meet them."""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

import yaml

Harm = Callable[[Path], None]

PYTHON = (sys.executable, "-m")
# by name: arguments of python -m
COMMANDS: dict[str, tuple[str, ...]] = {
    "ingest": ("tasks", "ingest"),
    "prepare": ("tasks", "prepare"),
    "train": ("tasks", "train", "unet", "0"),
    "evaluate": ("tasks", "evaluate", "unet", "0"),
    "compare": ("tasks", "compare"),
    "report": ("tasks", "report"),
    "receive": ("tasks", "receive"),
    "promote": ("tasks", "promote"),
    "rollback": ("tasks", "promote", "--rollback"),
    "predict": ("tasks", "predict", "pictures/images", "--output", "predicted"),
    "configure": ("tasks", "configure", "buildings"),
    "transfer": ("tasks", "transfer", "models:/tiny@champion"),
    "lr-range": ("tasks", "lr-range", "unet", "--steps", "4"),
    "measure": ("tasks", "measure", "models/unet-0", "--tile", "32", "--rounds", "1"),
    "flows.compare": ("flows.compare",),
    "flows.retrain": ("flows.retrain",),
    "flows.predict": ("flows.predict", "pictures/images", "--output", "predicted"),
    "flows.notify": ("flows.notify", "--off"),
    "flows.serve": ("flows.serve", "--prefect-port", "0"),
    "flows.ui": ("flows.ui", "--prefect-port", "0", "--mlflow-port", "0"),
}
# commands that run until they are ended: what they print when they are ready
UNTIL = {"flows.serve": "being served", "flows.ui": "Press Ctrl-C"}


@dataclass(frozen=True)
class Damage:
    """One damaged file.

    Attributes:
        harm: damages the file in a project folder.
        names: texts of which an error has one: the file or the key.
        first: the command with which the short part of the tests tries it.
        variables: environment variables of the command.
        holds: context in which the command runs, such as a lock; None for none.
        unprivileged: run without root's permissions.
        own_server: whether flows start a server of their own.
        largest_file: bytes that a file may grow to, as on a full disk; None: no limit.
        mount: folder, and "full" or "read-only": the disk that it is on.
        is_output_cut: whether the program that reads standard output has ended.
    """

    harm: Harm
    names: tuple[str, ...]
    first: str
    variables: Mapping[str, str] = field(default_factory=dict)
    holds: Callable[[Path], object] | None = None
    unprivileged: bool = False
    own_server: bool = False
    largest_file: int | None = None
    mount: tuple[str, str] | None = None
    is_output_cut: bool = False


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Harm:
    """Change the content of all files that match a pattern, of which there is at least one."""

    def harm(folder: Path) -> None:
        paths = sorted(folder.glob(name))
        assert paths, name
        for path in paths:
            path.write_bytes(change(path.read_bytes()))

    return harm


def _zero_page(content: bytes) -> bytes:
    return bytes(4096) + content[4096:]


def _middle(content: bytes) -> bytes:
    return content[: len(content) // 2] + b"\x55" * 65536 + content[len(content) // 2 + 65536 :]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 3]


def _decision(folder: Path) -> None:
    for path in folder.glob("decisions/tiny/*.json"):
        if path.name != "history.json":
            path.write_bytes(_cut(path.read_bytes()))


def _as_folder(name: str) -> Harm:
    def harm(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return harm


def _mode(name: str, mode: int) -> Harm:
    return lambda folder: (folder / name).chmod(mode)


def _removed(*names: str) -> Harm:
    def harm(folder: Path) -> None:
        for name in names:
            rmtree(folder / name, ignore_errors=True)

    return harm


def _setting(section: str, **values: object) -> Harm:
    def harm(folder: Path) -> None:
        path = folder / "params.yaml"
        content = yaml.safe_load(path.read_text())
        content.setdefault(section, {}).update(values)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    return harm


def _other_owner(folder: Path) -> None:
    for path in (folder, folder / ".git", *(folder / ".git").rglob("*")):
        os.chown(path, 12345, 12345)


def _all(*harms: Harm) -> Harm:
    def harm(folder: Path) -> None:
        for one in harms:
            one(folder)

    return harm


def nothing(folder: Path) -> None:
    """The damage is in `variables` or `holds`."""


def _settled(folder: Path) -> None:
    """Move the write-ahead log of Prefect's database into the file, as a regular end does, and remove it."""
    with closing(sqlite3.connect(folder / ".prefect/prefect.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.execute("PRAGMA journal_mode = DELETE")


def _after_settling(harm: Harm) -> Harm:
    return _all(_settled, harm)


def _locked(name: str) -> Callable[[Path], object]:
    @contextmanager
    def hold(folder: Path) -> Iterator[None]:
        with closing(sqlite3.connect(folder / name, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            yield

    return hold


MLFLOW, _PREFECT = "mlflow.db", ".prefect/prefect.db"
_SOON = {"SEGFLOW_LOCK_SECONDS": "1"}
_AWAY = "http://user:S3cretPw@127.0.0.1:9"

DAMAGES: dict[str, Damage] = {
    "mlflow zeroed": Damage(_bytes(MLFLOW, _zero_page), (MLFLOW,), "rollback"),
    "mlflow middle": Damage(_bytes(MLFLOW, _middle), (MLFLOW,), "predict"),
    "mlflow cut": Damage(_bytes(MLFLOW, _cut), (MLFLOW,), "promote"),
    "mlflow empty": Damage(_bytes(MLFLOW, lambda _: b""), (MLFLOW, "registry", "champion"), "promote"),
    "mlflow folder": Damage(_as_folder(MLFLOW), (MLFLOW,), "flows.ui"),
    "mlflow locked": Damage(nothing, (MLFLOW,), "rollback", _SOON, holds=_locked(MLFLOW)),
    "mlflow unreadable": Damage(_mode(MLFLOW, 0), (MLFLOW,), "rollback", unprivileged=True),
    "mlflow away": Damage(nothing, ("127.0.0.1:9",), "rollback", {"MLFLOW_TRACKING_URI": _AWAY}),
    "prefect zeroed": Damage(
        _after_settling(_bytes(_PREFECT, _zero_page)), (_PREFECT,), "flows.notify", own_server=True
    ),
    "prefect cut": Damage(
        _after_settling(_bytes(_PREFECT, _cut)), (_PREFECT,), "flows.compare", own_server=True
    ),
    "prefect folder": Damage(
        _after_settling(_as_folder(_PREFECT)), (_PREFECT,), "flows.serve", own_server=True
    ),
    "prefect locked": Damage(
        _settled, (_PREFECT,), "flows.retrain", _SOON, holds=_locked(_PREFECT), own_server=True
    ),
    "prefect away": Damage(
        nothing, ("127.0.0.1:9",), "flows.predict", {"PREFECT_API_URL": f"{_AWAY}/api"}, own_server=True
    ),
    "decision cut": Damage(_decision, ("decisions/tiny",), "report"),
    "history cut": Damage(_bytes("decisions/tiny/history.json", _cut), ("history.json",), "report"),
    "model.json list": Damage(_bytes("m*/**/model.json", lambda _: b"[1]"), ("model.json",), "predict"),
    "model.json not text": Damage(_bytes("m*/**/model.json", lambda _: b"\xff\xfe{"), ("model.json",), "measure"),
    "model.json cut": Damage(_bytes("m*/**/model.json", _cut), ("model.json",), "evaluate"),
    "git damaged": Damage(_bytes(".git/HEAD", lambda _: b""), (".git", "git"), "flows.retrain"),
    "git of another owner": Damage(_other_owner, ("git", "cannot be written"), "receive", unprivileged=True),
    "git not writable": Damage(_mode(".git", 0o555), (".git", "git"), "receive", unprivileged=True),
    "inbox away": Damage(_setting("retrain", inbox="ftp://u:S3cretPw@127.0.0.1:9/x"), ("ftp://",), "receive"),
    "bad cron": Damage(_setting("schedule", cron="0 25 * * *"), ("schedule.cron",), "flows.serve"),
    "bad time zone": Damage(_setting("schedule", timezone="Europe/Berln"), ("schedule.timezone",), "ingest"),
    "params not text": Damage(_bytes("params.yaml", lambda c: b"# \xff\xfe\n" + c), ("params.yaml",), "prepare"),
    "dvc.lock cut": Damage(_bytes("dvc.lock", _cut), ("dvc.lock",), "flows.compare"),
    "comparison cut": Damage(_bytes("comparison/comparison.json", _cut), ("comparison.json",), "report"),
    "summary cut": Damage(_bytes("evaluations/*/summary.json", _cut), ("summary.json",), "compare"),
    "prepared cut": Damage(_bytes("data/prepared/prepared.json", _cut), ("prepared.json",), "train"),
    "receipt cut": Damage(_bytes("work/receive/*/last.json", _cut), ("last.json",), "flows.retrain"),
    "caches cut": Damage(
        _all(*(_bytes(f"work/{part}/**/*.json", _cut) for part in ("ingest", "prepare", "costs"))),
        ("work/",),
        "ingest",
    ),
    "outputs removed": Damage(_removed("work", "reports", "comparison", "predicted"), ("comparison",), "flows.compare"),
    "models removed": Damage(_removed("models", "evaluations"), ("models", "evaluation"), "promote"),
    "artifacts removed": Damage(_removed("mlruns"), ("tiny", "mlruns"), "predict"),
}  # fmt: skip
