"""The registry's versions as files: decisions/<data.name>/history.json, and copies of it.

A rollback, and a change in the UI of MLflow that the operator accepts, have no decision: after each, a copy is written
to decisions/<data.name>/history/, so that the history can be rebuilt if history.json is lost.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from segcore.errors import DataError
from tasks.project import DECISIONS
from tasks.promotion.json_files import read_json, write_json

HISTORY = "history.json"
COPIES = "history"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
FORMAT = 1
_REMEDY = (
    "restore it with git, or run `make registry OPTIONS=--rebuild`, which writes it again from the decisions"
)


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of the registered model; times are ISO 8601 in UTC.

    Attributes:
        version: its number.
        architecture: name of the architecture, such as `unet`.
        title: title of the architecture, such as `U-Net`.
        weights_sha256: hash of the weights.
        description_sha256: hash of model.json; None for versions registered before it was recorded.
        promoted: when it became champion; None: never.
        restored: when a rollback made it champion again; None: never.
        seed: seed of its training.
        run_id: MLflow run of its training.
        registered: when it was registered.
        scores: scores at registration.
        aliases: its present aliases.
        outcome: outcome of the decision on it.
        decision: reason of that decision, one sentence.
        deleted: it was deleted in MLflow, and the operator accepted that.
    """

    version: int
    architecture: str | None
    title: str | None
    weights_sha256: str | None = None
    description_sha256: str | None = None
    promoted: str | None = None
    restored: str | None = None
    seed: int | None = None
    run_id: str | None = None
    registered: str | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    outcome: str | None = None
    decision: str | None = None
    deleted: bool = False

    @property
    def last_change(self) -> str:
        """When it last became champion; empty: never."""
        return max(self.promoted or "", self.restored or "")


@dataclass(frozen=True)
class History:
    """The registry's versions at one time.

    Attributes:
        versions: newest first.
        written: when they were written, ISO 8601 in UTC; None in files of earlier versions of segflow.
    """

    versions: Sequence[RegisteredVersion]
    written: str | None


_VERSIONS = TypeAdapter(list[RegisteredVersion])


def holder(versions: Iterable[RegisteredVersion], alias: str) -> RegisteredVersion | None:
    """The version with an alias; None without one."""
    return next((row for row in versions if alias in row.aliases), None)


def history_path(root: Path, name: str) -> Path:
    """Path of history.json of a dataset."""
    return root / DECISIONS / name / HISTORY


def read_history(root: Path, name: str) -> list[RegisteredVersion]:
    """The registry's versions as last written, newest first; empty without the file.

    Raises:
        DataError: history.json is damaged.
    """
    path = history_path(root, name)
    return list(read_history_file(path).versions) if path.exists() else []


def read_history_file(path: Path) -> History:
    """Content of history.json or of a copy of it.

    Raises:
        DataError: it is damaged.
    """
    content = read_json(path, "history of the registry", _REMEDY)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, this version of segflow reads {FORMAT}")
        versions = _VERSIONS.validate_python([RegisteredVersion(**row) for row in content["versions"]])
        written = TypeAdapter(str | None).validate_python(content.get("written"))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable history of the registry ({error})", _REMEDY) from error
    return History(sorted(versions, key=lambda row: -row.version), written)


def write_history(root: Path, name: str, versions: Sequence[RegisteredVersion]) -> Path:
    """Write the registry's versions to history.json, so that the report needs no MLflow.

    Versions that are in the file but not in `versions` are kept as deleted, so that their numbers stay known.

    Raises:
        DataError: the present file is damaged.
    """
    before = read_history(root, name)
    return _write(history_path(root, name), before, with_deleted(before, versions))


def replace_history(root: Path, name: str, versions: Sequence[RegisteredVersion]) -> None:
    """Write the registry's versions to history.json, which may be damaged."""
    try:
        before = read_history(root, name)
    except DataError:
        before = []
    _write(history_path(root, name), before, versions)


def _write(path: Path, before: Sequence[RegisteredVersion], versions: Sequence[RegisteredVersion]) -> Path:
    """Write a file, unless it has these versions: its time of writing alone would make another commit."""
    content = _content(versions)
    if not path.exists() or json.dumps(_content(before)["versions"]) != json.dumps(content["versions"]):
        write_json(path, content)
    return path


def write_copy(root: Path, name: str, versions: Sequence[RegisteredVersion], change: str) -> None:
    """Write a copy of the history after a change that has no decision.

    Args:
        root: the project's folder.
        name: of the dataset.
        versions: the registry's versions after the change.
        change: "rollback", "accepted", "recovered" or "renewed"; part of the file's name.
    """
    content = _content(versions)
    written = str(content["written"]).translate(str.maketrans("", "", ":-"))
    write_json(root / DECISIONS / name / COPIES / f"{written}-{change}.json", content | {"change": change})


def copies(root: Path, name: str) -> list[Path]:
    """The copies of history.json."""
    return sorted((root / DECISIONS / name / COPIES).glob("*.json"))


def with_deleted(
    before: Sequence[RegisteredVersion], versions: Sequence[RegisteredVersion]
) -> list[RegisteredVersion]:
    """`versions`, and those of `before` that are missing there, marked as deleted; newest first."""
    present = {row.version for row in versions}
    lost = [replace(row, deleted=True, aliases=[]) for row in before if row.version not in present]
    return sorted([*versions, *lost], key=lambda row: -row.version)


def _content(versions: Sequence[RegisteredVersion]) -> dict[str, Any]:
    return {"format": FORMAT, "written": now(), "versions": [asdict(row) for row in versions]}


def iso(seconds: float) -> str:
    """A time in seconds since 1970 as ISO 8601 in UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03d}Z"


def now() -> str:
    """Current time in UTC, ISO 8601 with milliseconds, so that texts of times sort by time."""
    return iso(time.time())
