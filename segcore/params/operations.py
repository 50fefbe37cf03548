"""Sections of params.yaml for retraining, promotion, schedule and prediction; none of them changes a training."""

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, create_model, field_validator, model_validator

from segcore.gate_rules import RULES, Ceilings
from segcore.params.data import Section

# in seconds; longer times would not fit the types that timers take
_YEAR = 365 * 24 * 3600


class WarmStart(Section):
    """Start of challengers from the champion's weights, if they have its architecture."""

    enabled: bool = Field(default=False, description="start challengers from the champion's weights")
    steps: int | None = Field(
        default=None, ge=1, description="training steps of such a challenger; null: those of `train`"
    )


class AtLeast(Section):
    """What a round waits for, so that it does not train for every single image."""

    items: int = Field(
        default=1, ge=1, description="new valid items; fewer stay in the inbox until enough have come"
    )
    hours: float = Field(default=0, ge=0, le=_YEAR / 3600, description="hours since the last decision")


class Retrain(Section):
    """Where new images and masks arrive, and what happens to their files."""

    inbox: str = Field(
        default="data/inbox",
        min_length=1,
        description="folder of new files, or an fsspec address such as `s3://bucket/inbox`",
    )
    settle_seconds: float = Field(
        default=60,
        ge=0,
        le=_YEAR,
        description="files changed less than this many seconds ago wait for the next round",
    )
    taken: Literal["move", "delete", "keep"] = Field(
        default="move",
        description="accepted files are moved to `.taken/` in the inbox (`move`), deleted, or kept where they are",
    )
    at_least: AtLeast = Field(default=AtLeast(), description="rounds wait until enough has come")
    warm_start: WarmStart = Field(default=WarmStart(), description="start from the champion's weights")
    replan: bool = Field(
        default=False,
        description="settings that are `auto` follow from batches too; false: from the source alone, so that "
        "they stay",
    )
    push_data: bool = Field(
        default=True, description="push data to the default remote storage, if one is configured"
    )
    push_git: bool = Field(
        default=False, description="push the branch and its tags to the git remote that the branch tracks"
    )


def gate_section() -> type[Section]:
    """The section `gate`: confidence and resamples, and each parameter of the gate rules once."""
    named = {rule.parameter.name: rule for rule in reversed(RULES)}
    fields = {name: (rule.parameter.annotation, rule.parameter.field) for name, rule in named.items()}
    limits = {name: fields[name] for name, rule in named.items() if rule.role == "limit"}
    statistics = {
        "confidence": (float, Field(default=0.95, gt=0.5, lt=1, description="level of the interval")),
        "bootstrap": (
            int,
            Field(default=2000, ge=100, le=1_000_000, description="resamples of the clusters per interval"),
        ),
        "approval": (
            Literal["automatic", "person"],
            Field(
                default="automatic", description="a champion is replaced at once, or after a person agrees"
            ),
        ),
        "approval_hours": (
            float,
            Field(
                default=24,
                gt=0,
                le=_YEAR / 3600,
                description="hours to wait for the person; then the champion stays",
            ),
        ),
    }
    doc = "When a challenger replaces the champion; scores are values of `compare.metric`, 0 to 1 where its unit is %."
    order: dict[str, Any] = {n: fields[n] for n in reversed(fields) if n not in limits} | statistics | limits
    return create_model("Gate", __base__=Section, __doc__=doc, **order)


if TYPE_CHECKING:

    class Gate(Section):
        """Parameters of the section `gate` that are read outside of the gate rules."""

        confidence: float = 0.95
        bootstrap: int = 2000
        floors: dict[str, float] = Field(default={})
        ceilings: Ceilings = Ceilings()
        approval: Literal["automatic", "person"] = "automatic"
        approval_hours: float = 24

else:
    Gate = gate_section()


def _checked_cron(cron: str) -> str:
    """The expression, if it has five fields, is valid and fires at some time."""
    fields = cron.split()
    if len(fields) != 5:
        raise ValueError(
            f"{cron!r}: five fields are needed (minute, hour, day of month, month, day of week), not {len(fields)}"
        )
    # schedulers differ in what they read in these two: last weekday, last Friday
    if any("W" in field.upper() for field in fields[:3]) or "L" in re.sub("JUL", "", fields[4].upper()):
        raise ValueError(f"{cron!r}: W, and L in the day of week, are not supported")
    try:
        next(CronSim(cron.upper(), datetime.now(UTC)))
    except CronSimError as error:
        raise ValueError(f"{cron!r}: {str(error).lower()}") from error
    except StopIteration as error:
        raise ValueError(f"{cron!r} never fires: there is no such day") from error
    return cron


class Schedule(Section):
    """When the retraining runs unattended; at most one of `cron` and `interval_minutes`."""

    cron: str | None = Field(default=None, description='five fields such as "0 2 * * *"; null: none')
    timezone: str = Field(default="UTC", description="time zone of `cron`, such as `Europe/Berlin`")
    interval_minutes: float | None = Field(
        default=None,
        ge=0.01,
        le=_YEAR / 60,
        description="minutes between rounds, counted from the start of the service; null: none",
    )
    on_arrival: bool = Field(
        default=False, description="also retrain when the inbox contains new files that have settled"
    )
    watch_seconds: float = Field(
        default=60, ge=0.01, le=_YEAR, description="seconds between checks of the inbox"
    )

    @field_validator("cron")
    @classmethod
    def _fires(cls, cron: str | None) -> str | None:
        return cron if cron is None else _checked_cron(cron)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        # the list is read from disk
        if name != "UTC" and name not in available_timezones():
            known = {zone.lower(): zone for zone in available_timezones()}
            similar = get_close_matches(name.lower(), known, n=1)
            meant = f"did you mean {known[similar[0]]}?" if similar else "write UTC or such as Europe/Berlin"
            raise ValueError(f"unknown time zone {name!r}; {meant}")
        return name

    @model_validator(mode="after")
    def _one_of_them(self) -> "Schedule":
        if self.cron is not None and self.interval_minutes is not None:
            raise ValueError("cron and interval_minutes exclude each other; set one of them to null")
        return self


# words of `predict.outputs`
Output = Literal[
    "classes", "probabilities", "confidence", "polygons", "dicomseg", "objects", "coco", "counts"
]
# words of `predict.accept`
Unlike = Literal["range", "resolution"]


class Predict(Section):
    """Prediction of new scenes."""

    tile: int | None = Field(
        default=None,
        ge=32,
        description="side of a window in pixels; null: `evaluate.tile`. Networks whose results depend on the place in "
        "a window have windows as large as their training crops",
    )
    overlap: int = Field(
        default=64,
        ge=0,
        description="pixels that neighbouring windows share; of instance networks at least the side of most training "
        "objects, as far as half a window goes",
    )
    flips: bool | None = Field(
        default=None, description="average over four mirror images; null: `evaluate.flips`"
    )
    blend: Literal["probabilities", "logits"] = Field(
        default="probabilities",
        description="values that are averaged where windows overlap, before the argmax",
    )
    outputs: list[Output] = Field(
        default=["classes"], min_length=1, description="files to write per scene, at least one"
    )
    objects: Literal["components", "watershed"] | None = Field(
        default=None,
        description="how objects of a semantic network are found; null: `evaluate.objects`. Instance networks find "
        "their own",
    )
    score: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        default="auto",
        description="objects of a lower score are left out; `auto`: the score chosen on the validation split",
    )
    min_area: int = Field(default=0, ge=0, description="objects and polygons of fewer pixels are left out")
    simplify: float = Field(
        default=0,
        ge=0,
        description="tolerance in pixels by which outlines of polygons are simplified; 0: not",
    )
    count_by: str | None = Field(
        default=None,
        description="file of polygons, such as GeoPackage: objects are counted in each; null: none",
    )
    accept: list[Unlike] = Field(
        default=[],
        description="scenes predicted although they do not fit the training images: with values in other units "
        "(`range`), with pixels of another size (`resolution`)",
    )
    resample: bool = Field(
        default=False,
        description="scenes whose pixels differ in size by more than a factor of 1.5 from those of the training images "
        "are resampled for the network; outputs are on the scene's own grid",
    )
