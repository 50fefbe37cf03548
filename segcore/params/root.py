"""All of params.yaml as typed values; an unknown key is an error that lists the known ones."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from segcore.errors import ParamsError
from segcore.names import ENSEMBLE
from segcore.params import consistency, planned, yaml_file
from segcore.params._data_checks import did_you_mean, require_distinct
from segcore.params.architectures import architecture_names, semantic_networks
from segcore.params.data import Data, Section
from segcore.params.error_texts import Location, by_location, in_yaml, sentence
from segcore.params.operations import Gate, Predict, Retrain, Schedule
from segcore.params.stages import Compare, Evaluate, Machine, Prepare, Report, Split, Tracking
from segcore.params.training import TrainSettings
from segcore.params.yaml_file import Unquoted

__all__ = ["Data", "Params", "load", "merge"]

T = TypeVar("T", bound=BaseModel)

# names of these keys in other programs
SYNONYMS = {
    "backbone": "encoder",
    "batch_size": "batch",
    "crop_size": "crop",
    "epochs": "steps",
    "iterations": "steps",
    "lr": "learning_rate",
    "max_epochs": "steps",
    "num_workers": "workers",
    "patch_size": "crop",
    "pretrained": "weights",
    "tta": "flips",
}


class Params(Section):
    """All of params.yaml."""

    architectures: list[str] = Field(
        default=["fcn", "unet", "deeplab"],
        min_length=1,
        description="networks to compare: modules of `segcore/models`",
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        default=[0, 1], min_length=1, description="each architecture is trained once per seed"
    )
    data: Data = Field(description="images and masks")
    split: Split = Field(description="training, validation and test parts")
    prepare: Prepare = Field(description="training windows")
    train: dict[str, dict[str, Any]] = Field(
        description="`common`: settings of all architectures; `<architecture>`: what differs for one; null: as in "
        "`common`"
    )
    evaluate: Evaluate = Field(default=Evaluate(), description="inference on the test split")
    compare: Compare = Field(default=Compare(), description="ranking and statistical tests")
    report: Report = Field(default=Report(), description="the report")
    tracking: Tracking = Field(default=Tracking(), description="where runs are logged")
    machine: Machine = Field(default=Machine(), description="use of this machine")
    retrain: Retrain = Field(default=Retrain(), description="new data")
    gate: Gate = Field(default=Gate(), description="conditions of a promotion")
    schedule: Schedule = Field(default=Schedule(), description="times of unattended retraining")
    predict: Predict = Field(default=Predict(), description="prediction of new scenes")
    # keys that are `auto` in params.yaml, and whether their values are those of a plan
    _auto: tuple[str, ...] = ()
    _has_plan: bool = False
    # keys of `PLANNED` that params.yaml lacks, in sections that are set by hand
    _defaults: tuple[str, ...] = ()

    @property
    def auto(self) -> tuple[str, ...]:
        """Dotted keys that are `auto` in params.yaml."""
        return self._auto

    @property
    def defaults(self) -> tuple[str, ...]:
        """Dotted keys that the plan could decide and params.yaml lacks, in sections that are set by hand."""
        return self._defaults

    @property
    def is_planned(self) -> bool:
        """Whether no value is provisional: there is a plan, or nothing is `auto`."""
        return self._has_plan or not self._auto

    def require_plan(self) -> None:
        """Check that no value is provisional.

        Raises:
            ParamsError: params.yaml has settings that are `auto`, and there is no plan.
        """
        if not self.is_planned:
            raise ParamsError(
                f"params.yaml: {self._auto[0]} is auto, but there is no plan", "run the command plan first"
            )

    def require_one_split(self) -> None:
        """Check that there is one test split, which retraining and promotion compare models on.

        Raises:
            ParamsError: split.folds is set.
        """
        if self.split.folds:
            raise ParamsError(
                f"split.folds: {self.split.folds}: retraining and promotion compare models on one test split, and with "
                "folds each model has another one",
                "set split.folds: null in params.yaml, remove the split file of the folds, and compare again",
            )

    @field_validator("train", mode="before")
    @classmethod
    def _sections_of_training(cls, train: Any) -> Any:
        """A setting without `common` or an architecture above it is named as such, not by the type of its value."""
        if isinstance(train, dict):
            for name, value in train.items():
                is_section = name in ("common", *architecture_names())
                if isinstance(name, str) and not isinstance(value, dict) and not is_section:
                    raise ValueError(_unknown_training(name, architecture_names()))
        return train

    @model_validator(mode="after")
    def _architectures_are_known(self) -> "Params":
        for key, values in (("architectures", self.architectures), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key}: {values} has one of them twice")
        known = architecture_names()
        for name in self.architectures:
            if name not in known:
                raise ValueError(f"architectures: {name!r} is unknown; known: {', '.join(known)}")
        for name in self.train:
            if name != "common" and name not in known:
                raise ValueError(_unknown_training(name, known))
        require_distinct("architectures and data.baselines", [*self.architectures, *self.data.baselines])
        unknown = sorted(set(self.train.get("common", {})) - set(TrainSettings.model_fields))
        if unknown:
            raise ValueError(_unknown_key(f"train.common.{unknown[0]}", TrainSettings.model_fields))
        for name in self.architectures:
            settings = self.for_architecture(name)
            if settings.crop > self.prepare.window:
                raise ValueError(
                    f"train crop {settings.crop} is larger than prepare.window {self.prepare.window}"
                )
        return self

    @model_validator(mode="after")
    def _sections_agree(self) -> "Params":
        consistency.check(self)
        return self

    @property
    def ensembles(self) -> dict[str, list[tuple[str, int]]]:
        """Architecture and seed of the networks of each ensemble, by its name; empty without `evaluate.ensemble`.

        Semantic networks only: one ensemble over the seeds of each architecture, if there are several seeds, and one
        over all of them, if there are several architectures.
        """
        if not self.evaluate.ensemble:
            return {}
        semantic = [name for name in self.architectures if name in semantic_networks()]
        found = {f"{ENSEMBLE}-{name}": [(name, seed) for seed in self.seeds] for name in semantic}
        found = found if len(self.seeds) > 1 else {}
        if len(semantic) > 1:
            found[ENSEMBLE] = [(name, seed) for name in semantic for seed in self.seeds]
        return found

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Architecture and seed of each model that is compared; an ensemble is one, with the first seed."""
        trained = [(name, seed) for name in self.architectures for seed in self.seeds]
        return [*trained, *((name, self.seeds[0]) for name in self.ensembles)]

    def for_architecture(self, name: str) -> TrainSettings:
        """`train.common` overridden by `train.<name>`; nested sections are merged key by key.

        null in `train.<name>` means the value of `train.common`, except for settings whose own value it can be.

        Raises:
            ParamsError: an unknown or mistyped key.
        """
        merged = merge(self.train.get("common", {}), self._own(name))
        return _validated(
            TrainSettings, merged, f"train.{name}", lambda location: self.section_of(name, location)
        )

    def section_of(self, name: str, location: Location) -> str:
        """`train.<name>` if the architecture's own section has a setting, else `train.common`."""
        return f"train.{name}" if _has(self._own(name), location) else "train.common"

    def _own(self, name: str) -> dict[str, Any]:
        """Settings of `train.<name>`, without those that are null and therefore as in `train.common`."""
        fields = TrainSettings.model_fields
        inherited = {key for key in fields if type(None) not in get_args(fields[key].annotation)}
        return {k: v for k, v in self.train.get(name, {}).items() if v is not None or k not in inherited}


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`; nested sections are merged key by key."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merge(base[key], value) if both else value
    return result


def _has(values: Any, location: Location) -> bool:
    """Whether nested settings have a key, or a value in place of one of its sections."""
    for part in location:
        if not isinstance(values, dict):
            break
        if part not in values:
            return False
        values = values[part]
    return True


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys: {"a": {"b": 1}} is {"a.b": 1}."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def _unknown_key(location: str, known: Iterable[str]) -> str:
    """Error text for a key, given as `section.key`, with the key that was probably meant."""
    key = location.rpartition(".")[2].lower()
    names = sorted(known)
    synonym = SYNONYMS.get(key, key)
    likely = synonym if synonym in names else _in_other_section(synonym)
    hint = f", did you mean {likely}?" if likely else did_you_mean(key, names) or ";"
    return f"unknown key {location!r}{hint} known keys there: {', '.join(names)}"


def _in_other_section(key: str) -> str | None:
    """A key of this name as `section.key`; None if no section has one."""
    sections: dict[str, Any] = {"train.common": TrainSettings}
    sections |= {
        f"train.common.{name}": TrainSettings.model_fields[name].annotation for name in ("speed", "augment")
    }
    sections |= {name: field.annotation for name, field in Params.model_fields.items()}
    for section, model in sections.items():
        if _is_section(model) and key in model.model_fields:
            return f"{section}.{key}"
    return None


def _unknown_training(name: str, architectures: list[str]) -> str:
    if name in TrainSettings.model_fields or name in SYNONYMS:
        return _unknown_key(f"train.{name}", ["common", *architectures])
    known = ["common", *architectures]
    hint = did_you_mean(name, known).removeprefix(", ")
    return f"train.{name} is unknown; known: {', '.join(known)}" + (f" ({hint})" if hint else "")


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not _is_section(field.annotation):
            break
        model = cast("type[BaseModel]", field.annotation)
    return sorted(model.model_fields)


def _validated(model: type[T], values: Any, where: str, of: Callable[[Location], str] | None = None) -> T:
    """Values as a model.

    Args:
        model: the model.
        values: as read from params.yaml.
        where: file or section, for messages.
        of: the section that a setting is from, by its location, in place of `where`.

    Raises:
        ParamsError: a value is wrong or missing.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines: dict[str, list[str]] = {}
        for location, problems in by_location(error, values).items():
            name = ".".join(map(str, location))
            unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
            if unknown:
                text = _unknown_key(name, _known_keys(model, unknown[0]["loc"]))
            else:
                text = f"{name}: {sentence(problems)}" if name else sentence(problems)
            lines.setdefault(of(location) if of else where, []).append(text)
        texts = [f"{section}: {'; '.join(found)}" for section, found in lines.items()]
        raise ParamsError("; ".join(texts), "correct params.yaml and run again") from error


def _require_quotes(path: Path, data: Any) -> None:
    """Check that no name and no label value is written in a way that readers of YAML take for different values.

    Raises:
        ParamsError: one is.
    """
    if not isinstance(data, dict):
        return
    labels = data.get("label_values")
    words = [("name", data.get("name")), ("source", data.get("source"))]
    words += [("label_values", key) for key in labels] if isinstance(labels, dict) else []
    for key, word in words:
        if isinstance(word, Unquoted):
            raise ParamsError(
                f"{path}: data.{key}: {word} without quotes is a number to some readers of YAML and a word to others",
                f'write the number in decimals without leading zeros, or the word in quotes: "{word}"',
            )
    # {0:background} is a text without a value, for which Data has an error.
    keys = labels if isinstance(labels, dict) and None not in labels.values() else {}
    if len({isinstance(key, str | bool) for key in keys}) > 1 and None not in keys:
        quoted = {in_yaml(key).strip('"'): value for key, value in keys.items()}
        line = yaml.safe_dump(
            quoted, default_flow_style=True, sort_keys=False, allow_unicode=True, width=9999
        )
        raise ParamsError(
            f"{path}: data.label_values has both numbers and words as keys, which cannot be sorted",
            f"put the numbers in quotes: label_values: {line.strip()}",
        )


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: the file is missing, is not valid YAML, or has an unknown key or an invalid value.
    """
    path = Path(path)
    values = yaml_file.read(path)
    if values is None:
        raise ParamsError(f"{path}: is empty", "restore it with git")
    if not isinstance(values, dict):
        return _validated(Params, values, str(path))
    _require_quotes(path, values.get("data"))
    plan = planned.read_plan(path.parent / planned.PLAN, planned.get(values, "data.name"))
    values, auto = planned.filled(values, plan)
    p = _validated(Params, values, str(path))
    p._auto, p._has_plan = auto, plan is not None
    p._defaults = tuple(
        key for key in planned.PLANNED if planned.get(values, key, planned.AUTO) == planned.AUTO
    )
    return p
