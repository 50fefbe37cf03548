"""model.json, the description of a bundle: read with checks of its content, written with a hash of itself."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segcore.errors import ModelError
from segcore.files import digest

# 2: written by older versions, which did not record a hash of model.json
_FORMATS = (2, 3)
# entry with the sha256 of the file's bytes without this value
_OWN_HASH = "content_sha256"
# in bytes; the largest that a training writes have some 20 kB
_LARGEST = 2**20
_REMEDY = "train again, or restore the file"

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Color = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(min_length=3, max_length=3)]
_Positive = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Normalization(_Part):
    mean: list[float]
    std: list[_Positive]


class _Range(_Part):
    low: list[float]
    high: list[float]


# smallest and largest of a fact, each per band
_Limits = Annotated[list[Annotated[list[float], Field(min_length=1)]], Field(min_length=2, max_length=2)]


class _Values(_Part):
    low: _Limits
    high: _Limits
    spread: _Limits
    level: _Limits
    negative: _Limits
    whole: bool

    @model_validator(mode="after")
    def _consistent(self) -> "_Values":
        limits = (self.low, self.high, self.spread, self.level, self.negative)
        if len({len(values) for pair in limits for values in pair}) > 1:
            raise ValueError("numbers of bands differ")
        return self


class _TrainingImages(_Part):
    """As `segcore.data.training_images` makes it; older versions wrote none."""

    values: _Values | None = None
    pixel_sizes: dict[str, Annotated[list[_Positive], Field(min_length=3, max_length=3)]] = {}
    spacing: Annotated[list[_Positive], Field(min_length=2, max_length=2)] | None = None


class _Parameters(_Part):
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    augment: dict[str, Any] = {}


_Share = Annotated[float, Field(ge=0, le=1)]
# true and predicted number of objects of a cluster
_Pair = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]


class _Scored(_Part):
    score: _Share
    counts: dict[str, list[_Pair]] = {}


class _Watershed(_Scored):
    seeds: Literal["distance", "probability"]
    depth: _Positive


class _Objects(_Part):
    """As `segcore.training.object_settings` makes it; absent where the training data have no objects."""

    touching: bool = False
    components: _Scored | None = None
    watershed: _Watershed | None = None
    network: _Scored | None = None
    side: Annotated[float, Field(ge=0)] = 0


class _Calibration(_Part):
    """As `segcore.training.temperature` makes it; absent for instance networks and in bundles of older versions."""

    temperature: _Positive
    ece_before: _Share | None = None
    ece_after: _Share | None = None


class _Step(_Part):
    operation: Literal["largest", "min_area", "holes"]
    class_index: Annotated[int, Field(ge=0)]
    area: Annotated[int, Field(ge=0)] = 0


class _Postprocess(_Part):
    """As `segcore.training.postprocess_settings` makes it; absent where none was asked for."""

    background: Annotated[int, Field(ge=0)]
    steps: list[_Step]


class _Description(_Part):
    """Types and limits of the entries that are used; only the hash of the weights is required everywhere."""

    architecture: str | None = None
    # absent for semantic networks
    kind: Literal["instance"] | None = None
    title: str = ""
    seed: int | None = None
    in_channels: Annotated[int, Field(ge=1)] | None = None
    # class rasters have one byte per pixel
    num_classes: Annotated[int, Field(ge=1, le=254)] | None = None
    settings: dict[str, Any] = {}
    classes: list[str] | None = None
    colors: list[_Color] | None = None
    foreground: list[Annotated[int, Field(ge=0)]] | None = None
    tile: Annotated[int, Field(ge=16, le=2**16)] | None = None
    input: dict[str, Any] = {}
    normalization: _Normalization | None = None
    range: _Range | None = None
    training_images: _TrainingImages = _TrainingImages()
    parameters: _Parameters = _Parameters()
    training: dict[str, Any] = {}
    objects: _Objects | None = None
    calibration: _Calibration | None = None
    postprocess: _Postprocess | None = None
    weights_sha256: _Sha256
    files: dict[str, _Sha256] = {}

    @model_validator(mode="after")
    def _consistent(self) -> "_Description":
        normalization, limits = self.normalization, self.range
        lists = [normalization.mean, normalization.std] if normalization else []
        lists += [limits.low, limits.high] if limits else []
        for values, expected, what in (
            *((values, self.in_channels, "normalization and range") for values in lists),
            (self.classes, self.num_classes, "classes"),
            (self.colors, self.num_classes, "colors"),
        ):
            if values is not None and expected is not None and len(values) != expected:
                raise ValueError(f"{what}: {len(values)} values instead of {expected}")
        if self.num_classes and self.foreground and max(self.foreground) >= self.num_classes:
            raise ValueError(f"foreground: there is no class {max(self.foreground)}")
        if self.objects and self.objects.touching != (self.settings.get("touching") is True):
            raise ValueError("objects: touching is not as in settings")
        if self.objects and (self.objects.network is None) == (self.kind == "instance"):
            raise ValueError("objects: only an instance network has an entry network, and needs it")
        if self.kind and self.foreground and self.foreground != self.settings.get("foreground"):
            raise ValueError("foreground: is not as in settings")
        if self.kind and self.postprocess:
            raise ValueError("postprocess: is for semantic networks")
        if self.num_classes and self.postprocess:
            used = [self.postprocess.background, *(step.class_index for step in self.postprocess.steps)]
            if max(used) >= self.num_classes:
                raise ValueError(f"postprocess: there is no class {max(used)}")
        if any(Path(name).name != name for name in self.files):
            raise ValueError("files: names with a folder")
        return self


def values_of(settings: Mapping[str, Any], keyword: str) -> list[str]:
    """The value of a keyword of a network, such as that of `weights`; of an ensemble those of its networks, each once.

    Args:
        settings: of the description.
        keyword: its name; "none" where a network has no such keyword.
    """
    members = settings.get("members", [{"settings": settings}])
    return list(dict.fromkeys(str(member["settings"].get(keyword, "none")) for member in members))


def serialized(description: dict[str, Any]) -> bytes:
    """Content of model.json: the description with its format and the hash of the file itself."""

    def text(own: str) -> str:
        entries = {**description, "format": _FORMATS[-1], _OWN_HASH: own}
        return json.dumps(entries, indent=2, sort_keys=True) + "\n"

    return text(digest(text(""))).encode()


def read_bytes(folder: Path, shown: Path | str) -> bytes:
    """Content of model.json in a folder.

    Args:
        folder: the bundle.
        shown: location of the bundle in error messages.

    Raises:
        ModelError: missing, not readable, or larger than any description.
    """
    path = folder / "model.json"
    try:
        if path.exists() and not path.is_file():
            raise ModelError(f"{shown}/model.json: is not a file", _REMEDY)
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{shown}: holds no model bundle", "train it first, or name the folder of a bundle"
        ) from error
    except (OSError, ValueError) as error:
        # ValueError: the name cannot be that of a file
        raise ModelError(
            f"{shown}/model.json: cannot be read ({error})",
            "correct the path, or give this user the right to read it",
        ) from error
    if len(content) > _LARGEST:
        raise ModelError(
            f"{shown}/model.json: has more than {_LARGEST} bytes, so it is no description", _REMEDY
        )
    return content


def parse(content: bytes, path: str) -> dict[str, Any]:
    """The description in the content of model.json, with its entries checked.

    Args:
        content: of the file.
        path: of the file, for error messages.

    Raises:
        ModelError: not JSON, altered after it was written, of another format, or an entry has a wrong type or value.
    """
    try:
        description: Any = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite
        )
        # fails for half a surrogate pair, which JSON can contain and no output file can
        json.dumps(description, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is damaged ({error})", _REMEDY) from error
    if not isinstance(description, dict):
        raise ModelError(f"{path}: is not the description of a model", _REMEDY)
    form = description.get("format")
    if isinstance(form, bool) or form not in _FORMATS:
        raise ModelError(
            f"{path}: has format {str(form)[:40]}, this version of segflow reads {' and '.join(map(str, _FORMATS))}",
            "use the version of segflow that wrote it",
        )
    if form != 2 or _OWN_HASH in description:
        _check_own_hash(content, description.get(_OWN_HASH), path)
    if "weights_sha256" not in description:
        raise ModelError(f"{path}: lacks weights_sha256", _REMEDY)
    try:
        _Description.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise ModelError(f"{path}: {where[:80]}: {first['msg'][:200]}", _REMEDY) from error
    return description


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{repeated[:80]!r} stands there more than once")
    return entries


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:80]} is not a finite number")
    return value


def _check_own_hash(content: bytes, own: Any, path: str) -> None:
    if isinstance(own, str) and re.fullmatch("[0-9a-f]{64}", own):
        # of the text with an empty value
        without = content.decode("utf-8").replace(own, "", 1)
        if digest(without) == own:
            return
    raise ModelError(f"{path}: was altered after it was written, its hash is another one", _REMEDY)
