"""Section `data` of params.yaml: where images and masks are, and what they mean."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segcore.class_colors import default_colors, parsed
from segcore.constants import IGNORE
from segcore.params._data_checks import require_consistent, require_distinct
from segcore.params._label_keys import require_blanks, span_of

Channel = Annotated[int, Field(ge=0, le=255)]


class Section(BaseModel):
    """A part of params.yaml: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Where images and masks are, how they are paired, and what the labels mean.

    Patterns are relative to the source folder. In `images`, `*`, `**` and `?` match any text, and `{word}` matches any
    text and names it. The other patterns may use these words; `{stem}`, `{name}`, `{parent}`, `{parent2}` and
    `{parent3}` of the image's path; and `{cell:500}`, the square of 500 CRS units that contains its centre. Their first
    `*` stands for the text that the first `*` of `images` matched, and so on.
    """

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the dataset, in folders, tags and experiments"
    )
    source: str = Field(
        description="folder of images and masks, or the manifest of a sample (`samples/*.yaml`)"
    )
    batches: str = Field(
        default="data/batches",
        description="folder of later batches: `<batches>/<name>/<batch>/`, laid out as `source`",
    )
    layout: str = Field(
        default="pairs",
        description="how images and masks are found: `pairs` (by `images` and `masks`), `voc`, `cityscapes`, `coco`, "
        "`nnunet` or `listing`; a module of `segcore/io/layouts`",
    )
    listing: str | None = Field(
        default=None,
        description="CSV or Parquet file with columns image and mask, optionally group, split and valid; null: none",
    )
    images: str | Annotated[list[str], Field(min_length=1)] = Field(
        default="images/*",
        description="pattern of the image files; a list where bands are in files of their own: the first pattern "
        "defines the images, and the bands of the others, which use its words, follow",
    )
    masks: str | Annotated[dict[str, str], Field(min_length=1)] = Field(
        default="masks/{stem}.png",
        description="pattern of the mask of an image; a mapping `class: pattern`: files of each class, in "
        "which all values but 0 are the class (where they overlap, the later class counts)",
    )
    valid: str | None = Field(
        default=None,
        description="pattern of a mask of valid pixels (not 0), such as a field of view; null: none",
    )
    view: Literal["nadir", "street", "volume", "microscope"] | None = Field(
        default=None,
        description="how images are taken, for flips and turns in training: from above, from a street, in slices of a "
        "body, or through a microscope; null: `volume` of volumes, `nadir` of images with a position on the earth",
    )
    group: str = Field(
        default="{stem}",
        description="pattern of the group of an image, which is never divided between splits: patient, scene, area",
    )
    splits: dict[str, Literal["train", "validation", "test"]] = Field(
        default={},
        description="split of each text that `{split}` matches, if the dataset defines its own splits",
    )
    baselines: dict[str, str] = Field(
        default={},
        description="patterns of masks to score beside the networks, such as a second annotator's, by name",
    )
    annotators: list[str] = Field(
        default=[],
        description="names in place of `{annotator}` in `masks`, whose masks of each image are all the truth: networks "
        "learn the mean of their labels and are scored against the majority and each; empty: one mask per image",
    )
    classes: list[str] = Field(min_length=2, max_length=254, description="names of the classes, by index")
    background: str | None = Field(
        default="background", description="class that is excluded from foreground means; null: none"
    )
    colors: list[tuple[Channel, Channel, Channel]] = Field(
        default=[],
        description='"#RRGGBB", or red, green and blue (0 to 255), of each class, for pictures; empty: colours that '
        "are told apart with colour blindness, grey for `background`",
    )
    label_values: dict[int | str, int | str] = Field(
        default={},
        description='class (name or index) or `ignore` of each mask value, range of values "0-127", colour "#RRGGBB", '
        "category or property value; the key `others`: all remaining values; only a mapping of `masks` needs none",
    )
    unlabelled: str | None = Field(
        default=None,
        description="class of pixels without a label, or `ignore`: outside of polygons, COCO annotations and segments, "
        "or transparent; null: `background`; required where `background` is null",
    )
    crowds: Literal["ignore", "objects"] | None = Field(
        default=None,
        description="COCO annotations with iscrowd are ignored (`ignore`) or are objects like others (`objects`); "
        "null: ignored, unless all run-length annotations of a file have it, as some exporters write",
    )
    label_property: str | None = Field(
        default=None,
        description="property of polygons, or attribute of shapes of CVAT, whose value is looked up in `label_values`; "
        "null: all polygons are class 1, and labels are looked up",
    )
    instances: bool | Literal["components"] = Field(
        default=False,
        description="objects are counted and scored: `true`, each polygon, shape or DICOM segment is one, and values "
        "of masks are object numbers, except those of the background; `components`, objects are the 4-connected "
        "components of each foreground class, in each plane of a volume",
    )
    objects: str | None = Field(
        default=None,
        description="pattern of the raster of object numbers (0: none) of an image, where `masks` has the classes; "
        "with a listing, the column that has its path; these objects are counted and scored; null: none",
    )
    touching: bool = Field(
        default=False,
        description="train semantic networks with one more output, the pixels within 2 pixels of two objects, so that "
        "objects that touch are separated; needs `instances` or `objects`",
    )
    bands: list[int] | None = Field(default=None, description="bands to read, counted from 1; null: all")
    grey_to_rgb: bool = Field(default=False, description="repeat the band of grey pictures three times")
    nodata: float | None = Field(
        default=None, description="value of missing pixels in files that declare none; null: none"
    )
    scale: Literal["auto", "none", "percentiles", "item"] | tuple[float, float] = Field(
        default="auto",
        description="range that values are clipped to: `auto` (percentiles, except for 8-bit images), `percentiles` "
        "(of the training split, per band), `item` (each image by its own percentiles, for MRI and other values "
        "without a unit), `none`, or `[lowest, highest]`",
    )
    percentiles: tuple[float, float] = Field(
        default=(0.5, 99.5), description="lower and upper percentile (0 to 100) that `scale` uses, per band"
    )
    slices: Literal["auto"] | int = Field(
        default="auto",
        description="axis (0, 1, 2 in RAS orientation) that volumes are cut along; `auto`: that of coarsest spacing",
    )
    pages: Literal["planes", "channels"] | None = Field(
        default=None,
        description="what pages of a TIFF and frames of a GIF or DICOM file are: `planes` of a stack or `channels`; "
        "null: what the file says (OME), else files of several pages are refused",
    )
    trust_shape: bool = Field(
        default=False,
        description="masks without a position, or with another than their image's, are taken by their array if its "
        "shape fits",
    )
    neighbours: int = Field(
        default=0, ge=0, le=4, description="neighbouring planes on each side that are extra channels (2.5D)"
    )
    links_to: list[str] = Field(
        default=[],
        description="folders outside the source that symbolic links may point into, such as a store of data versions",
    )
    max_pixels: int = Field(
        default=2**34,
        ge=1,
        description="largest number of pixels per image, all planes together; a header that declares more is rejected",
    )
    max_quarantined: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="fraction of items (0 to 1) that may be unusable; above it, the ingest fails",
    )

    @field_validator("bands")
    @classmethod
    def _from_one(cls, bands: list[int] | None) -> list[int] | None:
        if bands and min(bands) < 1:
            raise ValueError(
                f"{min(bands)} is no band: bands are counted from 1, so that the first three are [1, 2, 3]"
            )
        return bands

    @field_validator("colors", mode="before")
    @classmethod
    def _of_hex(cls, colors: Any) -> Any:
        return [parsed(color) for color in colors] if isinstance(colors, list) else colors

    @field_validator("label_values", mode="before")
    @classmethod
    def _not_a_comment(cls, values: Any) -> Any:
        if values is None:
            raise ValueError('is empty; put colours in quotes, because # starts a comment: {"#8429F6": land}')
        return values

    @field_validator("label_values", mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """True and false as words, as which boolean properties of polygons are looked up."""

        def word(value: Any) -> Any:
            return str(value).lower() if isinstance(value, bool) else value

        if not isinstance(values, dict):
            if isinstance(values, str) and ":" in values:
                require_blanks({values: None})
            return values
        require_blanks(values)
        if None in values:
            raise ValueError('null without quotes is no value; if the word is meant, write "null"')
        return {word(key): word(value) for key, value in values.items()}

    @model_validator(mode="before")
    @classmethod
    def _annotated(cls, values: Any) -> Any:
        """Masks of annotators are stored as those of `baselines` are, and the majority takes the place of the mask."""
        if not isinstance(values, dict) or not (names := values.get("annotators")):
            return values
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return values
        masks = values.get("masks")
        if isinstance(masks, str) and "{annotator}" in masks:
            if values.get("baselines"):
                raise ValueError("annotators: not possible beside baselines: name all of them in annotators")
            filled = {name: masks.replace("{annotator}", name) for name in names}
            return values | {"masks": filled[names[0]], "baselines": filled}
        if list(values.get("baselines") or {}) != names:
            raise ValueError("annotators: masks needs {annotator}, such as masks/{annotator}/{stem}.png")
        return values

    @model_validator(mode="before")
    @classmethod
    def _colored(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("colors"):
            values = values | {"colors": []}
            classes = values.get("classes")
            if isinstance(classes, list) and len(classes) <= IGNORE:
                background = values.get("background", "background")
                place = classes.index(background) if background in classes else None
                return values | {"colors": default_colors(len(classes), place)}
        return values

    @model_validator(mode="after")
    def _named(self) -> "Data":
        require_distinct("classes", self.classes)
        if "ignore" in self.classes:
            raise ValueError(
                "classes: 'ignore' cannot be the name of a class, because label_values has it for pixels that do not "
                "count; choose another one, or leave the class out and write `ignore` in label_values"
            )
        require_distinct("baselines", self.baselines)
        return self

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        require_consistent(self)
        return self

    @property
    def image_patterns(self) -> tuple[str, ...]:
        """Pattern of the images, followed by those of the files of further bands."""
        return (self.images,) if isinstance(self.images, str) else tuple(self.images)

    @property
    def mask_patterns(self) -> tuple[str, ...]:
        """Pattern of the masks, or those of all classes."""
        return (self.masks,) if isinstance(self.masks, str) else tuple(self.masks.values())

    @property
    def has_objects(self) -> bool:
        """Whether objects are counted and scored."""
        return bool(self.instances) or self.objects is not None

    @property
    def masks_have_numbers(self) -> bool:
        """Whether values of masks are object numbers, and files of masks are objects."""
        return self.instances is True and self.objects is None

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

    @property
    def label_spans(self) -> dict[tuple[int, int], int]:
        """Class index of each range of integers in label_values, by lowest and highest value; 7 is (7, 7)."""
        return {span: index for key, index in self.label_table.items() if (span := span_of(key))}
