"""Sections of params.yaml that one stage reads, and where it runs."""

from typing import Literal

from pydantic import Field, model_validator

from segcore.params.data import Section

SPLITS = ("train", "validation", "test")


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
