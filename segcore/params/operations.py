"""Sections of params.yaml for unattended work: new data, promotion, schedule, prediction. None changes a training."""

from typing import Literal

from pydantic import Field, model_validator

from segcore.params.data import Section


class WarmStart(Section):
    """Challengers that begin with the champion's weights; each architecture from its own, where it has them."""

    enabled: bool = False
    steps: int | None = Field(default=None, ge=1)  # its own budget; None: that of train.common


class Retrain(Section):
    """Where new items with masks arrive, and what becomes of their files."""

    inbox: str = "data/inbox"  # a folder, or any fsspec address such as s3://bucket/inbox
    settle_seconds: float = Field(
        default=60, ge=0
    )  # a file that changed less long ago may still be on its way
    taken: Literal["move", "delete", "keep"] = (
        "move"  # files of accepted items: to .taken/ of the inbox, away, stay
    )
    warm_start: WarmStart = WarmStart()
    push_data: bool = True  # to DVC's default remote, where one is configured
    push_git: bool = False  # the branch and its tags, to the remote that it follows


class Ceilings(Section):
    """What a champion may cost at most; None for no limit. Measured on the machine that decides."""

    latency_ms: float | None = Field(default=None, gt=0)  # one tile
    memory_mb: float | None = Field(default=None, gt=0)
    size_mb: float | None = Field(default=None, gt=0)  # of the bundle


class Gate(Section):
    """When a challenger takes the champion's place; scores are shares in [0, 1] of compare.metric."""

    margin: float = Field(default=0.0, ge=0, lt=1)  # the interval's lower end must be above this to be better
    not_worse: float = Field(
        default=0.01, ge=0, lt=1
    )  # its lower end must be above minus this to be no worse
    cheaper: float = Field(default=0.8, gt=0, lt=1)  # cost at most this share of the champion's
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    bootstrap: int = Field(default=2000, ge=100)
    floors: dict[str, float] = Field(default={})  # class -> lowest score on the frozen test set
    ceilings: Ceilings = Ceilings()


class Schedule(Section):
    """When the retraining runs under `make serve`; at most one of cron and interval."""

    cron: str | None = None  # such as "0 2 * * *"
    timezone: str = "UTC"
    interval_minutes: float | None = Field(default=None, gt=0)
    on_arrival: bool = False  # also as soon as the inbox holds new files that have settled
    watch_seconds: float = Field(default=60, gt=0)

    @model_validator(mode="after")
    def _one_of_them(self) -> "Schedule":
        if self.cron is not None and self.interval_minutes is not None:
            raise ValueError("cron and interval_minutes exclude each other; set one of them to null")
        return self


class Predict(Section):
    """Prediction over new scenes."""

    tile: int | None = Field(default=None, ge=32)  # pixels a side of a window; None: that of evaluate
    overlap: int = Field(default=64, ge=0)  # pixels shared by neighbouring windows
    flips: bool | None = None  # mean over mirror images; None: as evaluate
    blend: Literal["probabilities", "logits"] = "probabilities"  # what is averaged where windows overlap
    outputs: list[Literal["classes", "probabilities", "polygons"]] = Field(default=["classes"])
