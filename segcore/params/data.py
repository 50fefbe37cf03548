"""Sections of params.yaml that say what the data are."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segcore.constants import IGNORE


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Where images and masks are, how they pair, and what the labels mean.

    Patterns are relative to the source folder. In `images`, `*`, `**` and `?` stand for any text and `{word}` for a
    text with a name of its own. The other patterns know those words, `{stem}`, `{name}`, `{parent}`, `{parent2}`,
    `{parent3}` of the image's path, `{cell:500}` (the square of 500 CRS units that its centre lies in), and take the
    text of each `*` from the `*` of `images` in the same place.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    source: str
    batches: str = (
        "data/batches"  # later batches are in its folder `name`, a folder each, laid out as the source
    )
    layout: str = "pairs"  # file name in segcore/io/layouts
    listing: str | None = None  # CSV or Parquet with columns image, mask and perhaps group, split, valid
    images: str = "images/*"
    masks: str = "masks/{stem}.png"
    valid: str | None = None
    group: str = "{stem}"
    splits: dict[str, Literal["train", "validation", "test"]] = {}  # text of {split} -> split
    baselines: dict[str, str] = {}
    classes: list[str] = Field(min_length=2, max_length=254)
    background: str | None = "background"
    colors: list[tuple[int, int, int]]
    # value, "#RRGGBB", category or property value, or "others" -> class index, class name or "ignore"
    label_values: dict[int | str, int | str]
    label_property: str | None = (
        None  # of polygons: the property that label_values speaks of; None: all are class 1
    )
    instances: bool = False  # label values (but those of background) are numbers of objects
    bands: list[int] | None = None  # which ones, counted from 1; None: all
    grey_to_rgb: bool = False  # a picture of one band is repeated to three
    nodata: float | None = None  # for files that do not say so themselves
    # what values are clipped to: auto is percentiles for all but 8-bit images; or the lowest and the highest value;
    # item: each image from its own percentiles to 0..1, for MRI and the like, whose values have no unit
    scale: Literal["auto", "none", "percentiles", "item"] | tuple[float, float] = "auto"
    percentiles: tuple[float, float] = (0.5, 99.5)  # of the training split, or of each item; a band
    slices: Literal["auto"] | int = (
        "auto"  # axis (0, 1, 2 in RAS) that volumes are cut along; auto: the coarsest
    )
    neighbours: int = Field(
        default=0, ge=0, le=4
    )  # planes on either side that a network sees as further bands
    links_to: list[
        str
    ] = []  # folders outside the source that symbolic links may lead into, such as DVC's cache
    max_pixels: int = Field(
        default=2**34, ge=1
    )  # of one image, all planes; more is taken for a damaged header
    max_quarantined: float = Field(default=0.5, ge=0, le=1)  # share of items above which the ingest fails

    @field_validator("label_values", mode="before")
    @classmethod
    def _not_a_comment(cls, values: Any) -> Any:
        if values is None:
            raise ValueError('is empty; colours need quotes, because # begins a comment: {"#8429F6": land}')
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if len(self.colors) != len(self.classes):
            raise ValueError(f"colors has {len(self.colors)} entries for {len(self.classes)} classes")
        if self.background is not None and self.background not in self.classes:
            raise ValueError(
                f"background {self.background!r} is none of the classes {self.classes}; null for none"
            )
        for key in self.label_values:
            if isinstance(key, str) and re.fullmatch(r"(?=.*[A-Fa-f])[0-9A-Fa-f]{6}", key):
                raise ValueError(f'label_values: the colour {key} is written "#{key}", with its quotes')
        for low, high in (self.percentiles, *([self.scale] if isinstance(self.scale, tuple) else [])):
            if low >= high:
                raise ValueError(f"scale and percentiles: {low} is not below {high}")
        for value in self.label_values.values():
            known = value == "ignore" or value in self.classes
            if not known and not (isinstance(value, int) and 0 <= value < len(self.classes)):
                raise ValueError(
                    f"label_values names {value!r}; known: ignore, {', '.join(self.classes)}, "
                    f"or indices 0 to {len(self.classes) - 1}"
                )
        return self

    @property
    def foreground(self) -> list[int]:
        """Indices of the classes that count as foreground."""
        return [i for i, name in enumerate(self.classes) if name != self.background]

    @property
    def label_table(self) -> dict[int | str, int]:
        """label_values with class names and "ignore" as indices; keys "#RRGGBB" in upper case, "7" as 7."""

        def index(value: int | str) -> int:
            if isinstance(value, int):
                return value
            return IGNORE if value == "ignore" else self.classes.index(value)

        def key(word: int | str) -> int | str:
            if isinstance(word, str) and word.removeprefix("-").isdecimal():
                return int(word)
            return word.upper() if isinstance(word, str) and word.startswith("#") else word

        return {key(k): index(v) for k, v in self.label_values.items()}
