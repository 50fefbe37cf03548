"""Decisions as files: decisions/<data.name>/<batch or run key>.json.

A decision is written before the registry changes. After a kill in between, the next call reads it and does not decide
again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from segcore.errors import DataError
from segcore.promotion.figures import Basis, CandidateFigures, ChallengerFigures
from segcore.promotion.rule_text import (
    looks_text,
    smallest_text,
    tolerance_text,
)
from tasks.project import DECISIONS
from tasks.promotion.history import FORMAT, HISTORY
from tasks.promotion.json_files import read_json, write_json

_REMEDY = "restore it with git, or remove it to decide again"


@dataclass(frozen=True, kw_only=True)
class JudgedModel(ChallengerFigures):
    """A challenger's figures and identity.

    Attributes:
        architecture: its name, such as `unet`.
        seed: seed of its training.
        weights_sha256: hash of its weights.
    """

    architecture: str
    seed: int
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's answer to a decision that would change the champion.

    Attributes:
        answer: approved, refused or timed out.
        by: name of the person; None if nobody answered.
        when: time of the answer, ISO 8601 in UTC.
        comment: text of the person.
    """

    answer: Literal["approved", "refused", "timed out"]
    by: str | None
    when: str
    comment: str | None = None


@dataclass(frozen=True)
class DecisionTags:
    """The decision on a version, as stored in its tags.

    Attributes:
        outcome: promoted, kept or first.
        reason: one sentence.
        decided: time, ISO 8601 in UTC.
        scores: scores that the decision is based on, as JSON; None without scores.
    """

    outcome: str
    reason: str
    decided: str
    scores: str | None = None

    def as_tags(self) -> dict[str, object]:
        """Tags by name."""
        tags: dict[str, object] = {"gate.outcome": self.outcome, "gate.reason": self.reason}
        return tags | ({} if self.scores is None else {"scores": self.scores})


@dataclass(frozen=True, kw_only=True)
class DecisionRecord:
    """One decision, as stored in its JSON file.

    Attributes:
        format: version of the file format.
        dataset: `data.name`.
        key: file name without extension: the newest batch, or a run key.
        batches: batches whose items are new, in the order of their receipt; the decision judges all of them.
        decided: time of the decision, ISO 8601 in UTC.
        acted: time when registry and runs were updated; None: not yet.
        inputs: hash of all inputs of the decision except the champion.
        champion_version: version of the champion at the time of the decision; None: there was no champion.
        champion_run: MLflow run of that version.
        versions: versions registered by this decision, by alias.
        outcome: promoted, kept, first or refused.
        winner: challenger that becomes champion.
        best: challenger that was registered: the winner, or the one that came closest.
        reason: one sentence with the figures that determined the outcome.
        champion: scores and costs of the champion.
        challengers: scores, costs, rule results and identity of each challenger.
        basis: data and settings on which the figures are based.
        drift: drift of the batch (see segcore/promotion/drift.py); None without a batch.
        approval: answer of a person, where `gate.approval` asks for one; None: not asked, or not answered yet.
    """

    format: int = FORMAT
    dataset: str
    key: str
    batches: Sequence[str] = ()
    decided: str
    acted: str | None = None
    inputs: str
    champion_version: int | None = None
    champion_run: str | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    outcome: str
    winner: str | None
    best: str | None
    reason: str
    champion: CandidateFigures | None
    challengers: list[JudgedModel]
    basis: Basis
    drift: Mapping[str, Any] | None = None
    approval: Approval | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DecisionRecord":
        """The record in a file's content.

        Raises:
            KeyError, TypeError, ValueError: it is not a decision of this format.
        """
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, this version of segflow reads {FORMAT}")
        champion = CandidateFigures.from_json(content["champion"]) if content["champion"] else None
        challengers = [JudgedModel.from_json(one) for one in content["challengers"]]
        basis = Basis(**content["basis"])
        read = {**content, "champion": champion, "challengers": challengers, "basis": basis}
        read["approval"] = Approval(**content["approval"]) if content.get("approval") else None
        batch = read.pop("batch", None)
        # decisions of version 1 name one batch at most
        read.setdefault("batches", [batch] if batch else [])
        record = cls(**read)
        # from a dict, since pydantic does not check instances
        _TYPES.validate_python(asdict(record))
        record._require_names()
        return record

    def as_json(self) -> dict[str, Any]:
        """The content of the file; `batch`, the newest batch, is there for scripts that read decisions of version 1."""
        return asdict(self) | {"batch": self.batches[-1] if self.batches else None}

    def challenger(self, name: str) -> JudgedModel:
        """Figures of one challenger."""
        return next(one for one in self.challengers if one.name == name)

    def weights_of(self, name: str | None) -> str | None:
        """Hash of a challenger's weights; None for None."""
        return None if name is None else self.challenger(name).weights_sha256

    @property
    def best_scores(self) -> dict[str, Any]:
        """Scores of the registered challenger, by name; empty without one."""
        if self.best is None:
            return {}
        one = self.challenger(self.best)
        return {"metric": self.basis.metric, **one.scores, "validation": one.validation}

    def tags(self) -> DecisionTags:
        """The decision as tags of the version that it registered."""
        return DecisionTags(self.outcome, self.reason, self.decided, json.dumps(self.best_scores))

    def _require_names(self) -> None:
        names = {one.name for one in self.challengers}
        for name in (self.winner, self.best):
            if name is not None and name not in names:
                raise ValueError(f"{name!r} is not one of its challengers")


# types of all fields, nested ones included
_TYPES = TypeAdapter(DecisionRecord)


def record_path(root: Path, name: str, key: str) -> Path:
    """Path of the decision on a batch or run.

    Raises:
        DataError: the key is not a valid file name, or is that of the history.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.:+-]*", key) or f"{key}.json" == HISTORY:
        raise DataError(
            f"batch {key!r}: not usable as the file name of a decision",
            "name batches with letters, digits and any of -_.:+",
        )
    return root / DECISIONS / name / f"{key}.json"


def read_record(path: Path) -> DecisionRecord | None:
    """Read a decision; None if the file does not exist.

    Raises:
        DataError: the file is not a decision of this format.
    """
    if not path.exists():
        return None
    try:
        return DecisionRecord.from_json(read_json(path, "decision", _REMEDY))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a readable decision ({_brief(error)})", _REMEDY) from error


def _brief(error: Exception) -> str:
    """A KeyError contains the missing key only, and pydantic's errors have several lines."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return " ".join(line.strip() for line in str(error).splitlines()[:3])


def write_record(path: Path, record: DecisionRecord) -> None:
    """Write a decision; one on other inputs that was already acted upon is first saved under another file name."""
    earlier = read_record(path)
    if earlier and earlier.acted and earlier.inputs != record.inputs:
        write_json(path.with_name(f"{path.stem}.{earlier.inputs[:8]}.json"), earlier.as_json())
    write_json(path, record.as_json())


def latest(root: Path, name: str) -> DecisionRecord | None:
    """The most recent decision; None without decisions."""
    return max(records(root, name), key=lambda record: record.decided, default=None)


def records(root: Path, name: str) -> list[DecisionRecord]:
    """All decisions of a data set."""
    read = [read_record(path) for path in record_files(root, name)]
    return [record for record in read if record]


def record_files(root: Path, name: str) -> list[Path]:
    """Files of all decisions of a data set."""
    return sorted(path for path in (root / DECISIONS / name).glob("*.json") if path.name != HISTORY)


def decided_batches(root: Path, name: str) -> set[str]:
    """Batches on which a decision was made and acted upon."""
    return {batch for record in records(root, name) if record.acted for batch in record.batches}


def looks(root: Path, name: str, inputs: str) -> int:
    """Number of decisions against a champion of a data set that were acted upon, with one on these inputs."""
    acted = [r for r in records(root, name) if r.acted and r.champion and r.challengers]
    return len({record.inputs for record in acted} | {inputs})


def evidence_text(record: DecisionRecord) -> list[str]:
    """Sentences on what the test set can show: smallest improvement, tolerance; and on how often it was used."""
    best = next((one for one in record.challengers if one.name == record.best), None)
    sentences = [smallest_text(best, record.basis), tolerance_text(record.basis)] if best else []
    sentences.append(looks_text(record.basis))
    return [text for text in sentences if text]
