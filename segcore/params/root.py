"""All of params.yaml as typed values; an unknown key is an error that lists the known ones."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from segcore import plugins
from segcore.errors import ParamsError
from segcore.params.data import Data, Section
from segcore.params.operations import Gate, Predict, Retrain, Schedule
from segcore.params.stages import Compare, Evaluate, Machine, Prepare, Report, Split, Tracking
from segcore.params.training import TrainSettings

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
        min_length=1, description="networks to compare: modules of `segcore/models`"
    )
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(
        min_length=1, description="each architecture is trained once per seed"
    )
    data: Data = Field(description="images and masks")
    split: Split = Field(description="training, validation and test parts")
    prepare: Prepare = Field(description="training windows")
    train: dict[str, dict[str, Any]] = Field(
        description="`common`: settings of all architectures; `<architecture>`: what differs for one"
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
                raise ValueError(f"train.{name} is unknown; known: common, {', '.join(known)}")
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
    def _floors_are_of_classes_or_slices(self) -> "Params":
        for key in self.gate.floors:
            # The texts of slices are known once the data are prepared.
            if key not in self.data.classes and "=" not in key:
                raise ValueError(
                    f"gate.floors: {key!r} is neither a class nor a slice (word=text); "
                    f"classes: {', '.join(self.data.classes)}"
                )
        return self

    def for_architecture(self, name: str) -> TrainSettings:
        """`train.common` overridden by `train.<name>`; nested sections are merged key by key.

        Raises:
            ParamsError: an unknown or mistyped key.
        """
        merged = merge(self.train.get("common", {}), self.train.get(name, {}))
        return _validated(TrainSettings, merged, f"train.{name}")


def architecture_names() -> list[str]:
    """Sorted names of the architectures, from the files of segcore/models; torch is not imported."""
    return list(plugins.names("segcore.models"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`; nested sections are merged key by key."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merge(base[key], value) if both else value
    return result


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
    likely = [SYNONYMS[key]] if SYNONYMS.get(key) in names else get_close_matches(key, names, n=1)
    hint = f", did you mean {likely[0]}?" if likely else ";"
    return f"unknown key {location!r}{hint} known keys there: {', '.join(names)}"


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, BaseModel)
        ):
            break
        model = field.annotation
    return sorted(model.model_fields)


def _validated(model: type[T], values: Any, where: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            location = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(_unknown_key(location, _known_keys(model, problem["loc"])))
            else:
                message = problem["msg"].removeprefix("Value error, ")
                lines.append(f"{location}: {message}" if location else message)
        raise ParamsError(f"{where}: " + "; ".join(lines), "correct params.yaml and run again") from error


class _Unique(yaml.SafeLoader):
    """A safe loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"duplicate key {twice!r}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: the file is missing, is not valid YAML, or has an unknown key or an invalid value.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Unique)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: no such file", "run from the project's folder, or restore it with git"
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"{path}: is not UTF-8 text (byte {error.start})", "save it as UTF-8, or restore it with git"
        ) from error
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror})",
            "give this user the right to read it, or restore it with git",
        ) from error
    # ValueError: a day such as 2026-13-45, or a number of thousands of digits; RecursionError: thousands of brackets
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParamsError(
            f"{path}: is not valid YAML: {error}", "correct the indentation or quoting"
        ) from error
    keys = (values.get("data") or {}).get("label_values") if isinstance(values, dict) else None
    if isinstance(keys, dict) and len({isinstance(key, str) for key in keys}) > 1:
        raise ParamsError(
            f"{path}: data.label_values mixes numbers and texts as keys, which cannot be sorted",
            'put the numbers in quotes: {"0": background, others: thing}',
        )
    return _validated(Params, values, str(path))
