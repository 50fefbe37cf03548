"""Sections of params.yaml for the stages other than training, for tracking and for the machine."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from segcore.metrics import METRICS, class_metrics
from segcore.params._data_checks import OBJECTS_REMEDY
from segcore.params.data import Section

SPLITS = ("train", "validation", "test")


class Split(Section):
    """Which pixels are for training, checkpoint selection and test.

    With `stratify`, groups are assigned so that splits have similar fractions of each class; without it, by their hash.
    `links` lists the relations that keep groups in one split, in addition to equal content, which always does.
    """

    seed: int = Field(default=0, description="seed of the assignment")
    fractions: dict[Literal["train", "validation", "test"], float] = Field(
        description="fraction of each split; the three sum to 1"
    )
    stratify: bool = Field(
        default=True, description="balance the number of groups and the pixels of each class"
    )
    links: list[Literal["duplicate", "near-duplicate", "same-place"]] = Field(
        default=["duplicate", "near-duplicate", "same-place"],
        description="relations between images that keep their groups in one split",
    )
    block: int | None = Field(
        default=None,
        ge=16,
        description="larger scenes are divided into blocks of this many pixels per side; null: never",
    )
    buffer: int = Field(default=0, ge=0, description="unused pixels between blocks of different splits")
    given: dict[Literal["train", "validation", "test"], list[str]] = Field(
        default={}, description="groups assigned by hand, by split"
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        description="cross-validation: groups are divided into this many test parts, the seeds s train without the "
        "part s mod folds, and each item is tested once per round of seeds; null: one split",
    )

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        if set(self.fractions) != set(SPLITS) or abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"fractions needs {', '.join(SPLITS)} that sum to 1, not {self.fractions}")
        return self

    @model_validator(mode="after")
    def _folds_test_all(self) -> "Split":
        if self.folds and self.given:
            raise ValueError(
                "folds test every group once, so that given is not possible: remove one of the two"
            )
        if self.folds and min(self.fractions["train"], self.fractions["validation"]) <= 0:
            raise ValueError("fractions: with folds, train and validation must be above 0; test is 1 / folds")
        return self


class Prepare(Section):
    """Windows that training crops are cut from, in pixels."""

    window: int = Field(ge=16, description="side of a window; at least `train.*.crop`")
    stride: int = Field(ge=1, description="distance between the origins of neighbouring windows")
    spacing: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="of the rows and of the columns of volumes, in mm, to which they are resampled for networks; "
        "predictions are on their own grid. null: their own",
    )


class Evaluate(Section):
    """Full-resolution tiled inference on the test split, in pixels."""

    tile: int = Field(default=512, ge=32, description="side of a tile; a smaller region is one tile")
    overlap: int = Field(
        default=64, ge=0, description="pixels that neighbouring tiles share; at most half a tile"
    )
    boundary_tolerance: int = Field(
        default=2, ge=0, description="distance up to which boundary pixels match, for the boundary F1 score"
    )
    surface_tolerance: float = Field(
        default=2.0,
        gt=0,
        allow_inf_nan=False,
        description="distance in mm up to which surfaces of volumes match, for the normalised surface Dice (NSD)",
    )
    kept_predictions: int = Field(
        default=64, ge=0, description="number of test regions whose predicted masks are stored for pictures"
    )
    flips: bool = Field(
        default=False,
        description="average over four mirror images: slightly better scores, four times the time",
    )
    ensemble: bool = Field(
        default=False,
        description="also evaluate the mean of the predictions over the seeds of each semantic network, and over all "
        "of them; costs are those of all networks together",
    )
    objects: Literal["components", "watershed", "none"] = Field(
        default="components",
        description="how objects are found in predictions, where the ground truth has objects",
    )

    @model_validator(mode="after")
    def _overlap_fits(self) -> "Evaluate":
        if self.overlap * 2 > self.tile:
            raise ValueError(f"overlap {self.overlap} is more than half of tile {self.tile}")
        return self


class Compare(Section):
    """How architectures are ranked and tested."""

    metric: str = Field(
        default="iou",
        description="metric of the ranking, the tests and the gate; those of objects need `data.instances` or "
        "`data.objects`, those of surfaces (hd95, nsd, assd) volumes with a spacing",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="level of the intervals")
    bootstrap: int = Field(default=2000, ge=10, le=1_000_000, description="bootstrap resamples per interval")
    permutations: int = Field(default=5000, ge=10, le=1_000_000, description="permutations per paired test")
    seed: int = Field(default=0, description="seed of resampling and permutations")

    @field_validator("metric")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        if name not in class_metrics():
            raise ValueError(f"{name!r} is not a metric; known: {', '.join(class_metrics())}")
        return name

    @property
    def is_of_objects(self) -> bool:
        """Whether the metric is one of objects."""
        return METRICS[self.metric].of_objects

    @property
    def is_of_foreground(self) -> bool:
        """Whether the metric has scores of the foreground classes only."""
        return METRICS[self.metric].of_foreground

    @property
    def is_bounded(self) -> bool:
        """Whether scores of the metric are between 0 and 1."""
        return METRICS[self.metric].is_bounded

    def lacks_objects(self, has_objects: bool, evaluate: Evaluate) -> str:
        """Why there are no objects for a metric of objects, with the remedy; empty for other metrics and with objects.

        Args:
            has_objects: whether the ground truth has objects.
            evaluate: settings of the evaluation.
        """
        if not self.is_of_objects or (has_objects and evaluate.objects != "none"):
            return ""
        why, remedy = "evaluate.objects is none", "set it to components or watershed"
        if not has_objects:
            why = "no objects are used"
            remedy = OBJECTS_REMEDY
        pixels = ", ".join(class_metrics("counts"))
        return (
            f"compare.metric: {self.metric} is a metric of objects, but {why}: {remedy}, or choose a metric of pixels "
            f"({pixels})"
        )


class Report(Section):
    """Content of the report."""

    title: str | None = Field(default=None, description="heading of the page; null: `data.name`")
    cases: int = Field(default=2, ge=1, le=8, description="number of best, typical and worst cases each")


class Tracking(Section):
    """Where runs are logged."""

    uri: str | None = Field(
        default=None, description="address of a tracking server; null: an SQLite file in this folder"
    )
    system_metrics: bool = Field(default=True, description="log CPU, GPU and memory use of each training")


class Machine(Section):
    """Use of this machine; it does not affect results."""

    slots: int | None = Field(
        default=None,
        ge=1,
        description="trainings that run at the same time; null: one per GPU, or one without a GPU",
    )
    infrastructure: Literal["local", "workers"] = Field(
        default="local",
        description="`workers`: trainings and evaluations are submitted to a work pool",
    )
    work_pool: str = Field(
        default="segflow", min_length=1, description="name of that work pool and its deployment"
    )
