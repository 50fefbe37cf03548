"""params.yaml as typed values: an unknown or mistyped key is an error that lists the known ones."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from segcore.errors import ParamsError
from segcore.params.data import Data, Section
from segcore.params.operations import Gate, Predict, Retrain, Schedule

__all__ = ["Data", "Params", "load", "merge"]

T = TypeVar("T", bound=BaseModel)

SPLITS = ("train", "validation", "test")
ARCHITECTURES_FOLDER = Path(__file__).parents[1] / "models"


class Split(Section):
    """Which pixels train, select and test.

    With `stratify` groups are balanced by class pixels and number; without it, each goes where its hash falls. `links`
    says what keeps groups together besides equal content, which always does.
    """

    seed: int = 0
    fractions: dict[Literal["train", "validation", "test"], float]
    stratify: bool = True
    links: list[Literal["duplicate", "near-duplicate", "same-place"]] = Field(
        default=["duplicate", "near-duplicate", "same-place"]
    )
    block: int | None = Field(default=None, ge=16)
    buffer: int = Field(default=0, ge=0)
    given: dict[Literal["train", "validation", "test"], list[str]] = Field(default={})

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        if set(self.fractions) != set(SPLITS) or abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"fractions needs {', '.join(SPLITS)} that sum to 1, not {self.fractions}")
        return self


class Prepare(Section):
    """Windows that training crops are drawn from, in pixels."""

    window: int = Field(ge=16)
    stride: int = Field(ge=1)


class Augment(Section):
    """Joint augmentation of image and mask; every value 0 or false switches it off."""

    flip: bool = True
    rotate90: bool = True
    scale: float = Field(default=1.25, ge=1.0, le=4.0)
    brightness: float = Field(default=0.2, ge=0, lt=1)
    contrast: float = Field(default=0.2, ge=0, lt=1)


class Speed(Section):
    """How a training uses its machine; `auto` is decided when it begins (segcore/training/runtime.py), and told."""

    channels_last: Literal["auto"] | bool = "auto"
    fused: Literal["auto"] | bool = Field(default="auto", description="one kernel for the optimiser's step")
    compile: Literal["auto"] | bool = Field(default="auto", description="torch.compile")
    hold_data: Literal["auto"] | bool = Field(default="auto", description="on the device, augmented there")
    keep_memory: Literal["auto"] | bool = Field(
        default="auto", description="freed memory stays with the process"
    )
    threads: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto", description="threads that make batches ahead; 0: each is made when its step begins"
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="items that pass the network at once; gradients are accumulated"
    )


class TrainSettings(Section):
    """Training of one architecture; the same for all but for what its own section overrides."""

    encoder: str = "mobilenet_v2"
    weights: str = "sample"
    model: dict[str, Any] = Field(default={})
    magnify: float = Field(default=1, ge=0.25, le=4, description="times that images are enlarged")
    normalization: Literal["imagenet", "data"] = "imagenet"
    loss: str = "dice_cross_entropy"
    class_weights: Literal["none", "balanced"] = "none"
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    crop: int = Field(ge=16)
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    augment: Augment = Augment()
    learning_rate: float = Field(default=1e-3, gt=0)
    encoder_learning_rate: float = Field(default=0.3, gt=0, description="relative to learning_rate")
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_steps: int = Field(default=10, ge=0)
    schedule: Literal["cosine", "poly"] = "cosine"
    ema: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] | None = None
    freeze_encoder: int = Field(default=0, ge=0, description="steps in which the encoder rests")
    validate_every: int = Field(ge=1)
    patience: int | None = Field(default=None, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    deterministic: bool = True
    speed: Speed = Speed()

    @field_validator("magnify")
    @classmethod
    def _whole_factor(cls, factor: float) -> float:
        if factor % 1 and (1 / factor) % 1:
            raise ValueError(
                f"magnify is a whole number or one divided by one, such as 2 or 0.5, not {factor}"
            )
        return factor


class Evaluate(Section):
    """Full-resolution tiled inference on the test split, in pixels."""

    tile: int = Field(default=512, ge=32)
    overlap: int = Field(default=64, ge=0)
    boundary_tolerance: int = Field(default=2, ge=0)
    kept_predictions: int = Field(default=64, ge=0)
    flips: bool = Field(default=False, description="mean over mirror images; four times the time")

    @model_validator(mode="after")
    def _overlap_fits(self) -> "Evaluate":
        if self.overlap * 2 > self.tile:
            raise ValueError(f"overlap {self.overlap} is more than half of tile {self.tile}")
        return self


class Compare(Section):
    """How architectures are ranked and told apart."""

    metric: Literal["iou", "dice", "precision", "recall", "boundary_f1"] = "iou"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    bootstrap: int = Field(default=2000, ge=10)
    permutations: int = Field(default=5000, ge=10)
    seed: int = 0


class Report(Section):
    """What the report shows."""

    title: str | None = None
    cases: int = Field(default=2, ge=1, le=8, description="best, typical and worst cases, this many each")


class Tracking(Section):
    """MLflow; no address means the embedded store of this folder."""

    uri: str | None = None
    system_metrics: bool = True


class Machine(Section):
    """What of this machine may be used; changes no result."""

    slots: int | None = Field(
        default=None, ge=1, description="trainings side by side; null: one a GPU, or one"
    )
    infrastructure: Literal["local", "workers"] = Field(
        default="local", description="workers: trainings and evaluations go to a Prefect work pool"
    )
    work_pool: str = Field(default="segflow", min_length=1, description="its deployment is named after it")


class Params(Section):
    """All of params.yaml."""

    architectures: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    data: Data
    split: Split
    prepare: Prepare
    train: dict[str, dict[str, Any]]
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    report: Report = Report()
    tracking: Tracking = Tracking()
    machine: Machine = Machine()
    retrain: Retrain = Retrain()
    gate: Gate = Gate()
    schedule: Schedule = Schedule()
    predict: Predict = Predict()

    @model_validator(mode="after")
    def _architectures_are_known(self) -> "Params":
        known = architecture_names()
        for name in self.architectures:
            if name not in known:
                raise ValueError(f"architectures: {name!r} is unknown; known: {', '.join(known)}")
        for name in self.train:
            if name != "common" and name not in known:
                raise ValueError(f"train.{name} is unknown; known: common, {', '.join(known)}")
        unknown = sorted(set(self.train.get("common", {})) - set(TrainSettings.model_fields))
        if unknown:
            listed = ", ".join(sorted(TrainSettings.model_fields))
            raise ValueError(f"unknown key 'train.common.{unknown[0]}'; known keys there: {listed}")
        for name in self.architectures:
            settings = self.for_architecture(name)
            if settings.crop > self.prepare.window:
                raise ValueError(
                    f"train crop {settings.crop} is larger than prepare.window {self.prepare.window}"
                )
        return self

    def for_architecture(self, name: str) -> TrainSettings:
        """train.common overridden by train.<name>; nested sections merge key by key.

        Raises:
            ParamsError: an unknown or mistyped key.
        """
        merged = merge(self.train.get("common", {}), self.train.get(name, {}))
        return _validated(TrainSettings, merged, f"train.{name}")


def architecture_names() -> list[str]:
    """Architectures there are: the files of segcore/models without a leading underscore."""
    return sorted(p.stem for p in ARCHITECTURES_FOLDER.glob("*.py") if not p.stem.startswith("_"))


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on top, sections merged key by key."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merge(base[key], value) if both else value
    return result


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
                known = ", ".join(_known_keys(model, problem["loc"]))
                lines.append(f"unknown key {location!r}; known keys there: {known}")
            else:
                lines.append(f"{location or 'file'}: {problem['msg']}")
        raise ParamsError(f"{where}: " + "; ".join(lines), "correct params.yaml and run again") from error


class _Unique(yaml.SafeLoader):
    """A safe loader to which a key that is there twice is an error, as it is to DVC."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice!r} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        ParamsError: the file is missing, is no YAML, or has an unknown or mistyped key or value.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Unique)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: no such file", "run from the project's folder, or restore it with git"
        ) from error
    except yaml.YAMLError as error:
        raise ParamsError(
            f"{path}: is no valid YAML: {error}", "correct the indentation or quoting"
        ) from error
    keys = (values.get("data") or {}).get("label_values") if isinstance(values, dict) else None
    if isinstance(keys, dict) and len({isinstance(key, str) for key in keys}) > 1:
        raise ParamsError(
            f"{path}: data.label_values mixes numbers and words, which DVC cannot put in order",
            'write the numbers in quotes: {"0": background, others: thing}',
        )
    return _validated(Params, values, str(path))
