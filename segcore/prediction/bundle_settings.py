"""Settings of a prediction that come from the bundle."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from segcore.data.prepared import neighbouring_planes
from segcore.errors import ModelError, ParamsError, missing_package
from segcore.inference.objects import windows_of
from segcore.models.base.bundle import Bundle
from segcore.models.base.instance import InstanceModel
from segcore.objects.find import FindSettings
from segcore.params import Data, Predict, error_texts
from segcore.params.operations import Output
from segcore.prediction.fit import TRAINING_IMAGES

# words of `predict.outputs` that are made of objects
OBJECT_OUTPUTS = ("objects", "coco", "counts")

if TYPE_CHECKING:
    from segcore.models.base.model import SegmentationModel


def declared_data(bundle: Bundle) -> Data:
    """The `data` parameters for reading pixels, from a bundle's model.json.

    Bundles of older versions have no `input`: all bands are used, unscaled.

    Raises:
        ModelError: an entry of `input` is wrong.
    """
    description = bundle.description
    given = {k: v for k, v in description.get("input", {}).items() if k in Data.model_fields}
    fixed: dict[str, Any] = {"name": "scene", "source": "", "label_values": {}, "background": None}
    classes = {"classes": description["classes"], "colors": description["colors"]}
    try:
        data = Data.model_validate({**given, **fixed, **classes})
    except ValidationError as error:
        raise ModelError(
            f"{bundle.folder}/model.json: input: {error_texts.text(error, {**given, **fixed, **classes})}",
            "train again, or restore the file",
        ) from error
    planes, channels = len(neighbouring_planes(0, data.neighbours, 1)), description["in_channels"]
    values = description.get(TRAINING_IMAGES, {}).get("values")
    for what, is_fitting in (
        ("input.neighbours", channels % planes == 0),
        (f"{TRAINING_IMAGES}.values", values is None or len(values["low"][0]) * planes == channels),
    ):
        if not is_fitting:
            raise ModelError(
                f"{bundle.folder}/model.json: in_channels does not fit {what}",
                "train again, or restore the file",
            )
    return data


def resolved(settings: Predict, bundle: Bundle) -> Predict:
    """Settings with all None resolved.

    Raises:
        ModelError: the bundle has no tile, or no classes that count as foreground, which polygons and DICOM
            segmentations are made of.
        ExportError: the package of the output `dicomseg` is not installed.
    """
    tile, overlap = settings.tile, settings.overlap
    if {"polygons", "dicomseg"} & set(settings.outputs):
        bundle.require("foreground")
    if "dicomseg" in settings.outputs:
        _require_highdicom()
    if tile is None:
        bundle.require("tile")
        tile = int(bundle.description["tile"])
        overlap = min(overlap, tile // 2)
    return settings.model_copy(update={"tile": tile, "overlap": overlap, "flips": bool(settings.flips)})


def _require_highdicom() -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise missing_package("highdicom", "export") from error


def in_windows(settings: Predict, bundle: Bundle, model: "SegmentationModel") -> tuple[Predict, int]:
    """Settings with the tile and overlap in which a bundle's model predicts, and that tile.

    Args:
        settings: from `resolved`; the tile has no effect on a network whose results depend on the place in a window.
        bundle: of the model.
        model: of the bundle.

    Raises:
        ModelError: as of `windows_of`.
        ParamsError: the overlap is more than half a tile.
    """
    tile, overlap = settings.tile, settings.overlap
    assert tile is not None
    if not (isinstance(model, InstanceModel) and model.is_position_dependent):
        # also written in params.yaml, the default is no choice
        if overlap == Predict.model_fields["overlap"].default:
            overlap = min(overlap, tile // 2)
        if overlap * 2 > tile:
            raise ParamsError(
                f"predict.overlap {overlap} is more than half of the window, {tile}",
                "choose a smaller predict.overlap, or a larger predict.tile",
            )
    tile, overlap = windows_of(model, bundle.description, tile, overlap)
    return settings.model_copy(update={"tile": tile, "overlap": overlap}), tile


def find_settings(settings: Predict, bundle: Bundle) -> FindSettings | None:
    """How objects are found; None if a semantic network is asked for no output of objects.

    Raises:
        ModelError: the bundle has no settings for it.
    """
    asked = [word for word in OBJECT_OUTPUTS if word in settings.outputs]
    if not asked and bundle.description.get("kind") != "instance":
        return None
    bundle.require("foreground")
    if "objects" not in bundle.description:
        raise ModelError(
            f"the model was trained on data without objects (data.instances), so it cannot give the outputs "
            f"{', '.join(asked or OBJECT_OUTPUTS)} ({bundle.folder})",
            f"ask for {_without_objects(bundle)}, or train a model with data.instances",
        )
    found = FindSettings.of(bundle.description, settings.objects or "components")
    return found if settings.score == "auto" else replace(found, score=settings.score)


def _without_objects(bundle: Bundle) -> str:
    """The outputs that a model of data without objects can give, as words with commas between."""
    refused = {*OBJECT_OUTPUTS, *(() if "calibration" in bundle.description else ("confidence",))}
    return ", ".join(word for word in get_args(Output) if word not in refused)


def require_outputs(settings: Predict, bundle: Bundle) -> None:
    """Check that a model can give the outputs, without its network.

    Raises:
        ModelError: as of `resolved`, `find_settings` and `temperature_of`.
        ExportError: as of `resolved`.
    """
    chosen = resolved(settings, bundle)
    find_settings(chosen, bundle)
    temperature_of(chosen, bundle)


def temperature_of(settings: Predict, bundle: Bundle) -> float | None:
    """The temperature of the output `confidence`; None if that is not asked for.

    Raises:
        ModelError: the bundle has none.
    """
    if "confidence" not in settings.outputs:
        return None
    calibration = bundle.description.get("calibration")
    if calibration is not None:
        return float(calibration["temperature"])
    others = "choose other predict.outputs, such as probabilities"
    if bundle.description.get("kind") == "instance":
        raise ModelError(
            f"{bundle.folder}: is an instance network, whose scores of objects are not calibrated, so there is no "
            "confidence",
            others,
        )
    raise ModelError(
        f"{bundle.folder}: has no temperature, because an older version trained it or no validation pixel has a "
        "label, so there is no confidence",
        f"train again, or {others}",
    )


def overlap_note(settings: Predict, bundle: Bundle, model: "SegmentationModel") -> str | None:
    """A warning if windows overlap by less than most objects are large; None if they do not, or none are asked for.

    Args:
        settings: with tile and overlap as they are used.
        bundle: of the model.
        model: of the bundle.
    """
    side = bundle.description.get("objects", {}).get("side", 0)
    is_of_objects = model.kind == "instance" or bool(set(OBJECT_OUTPUTS) & set(settings.outputs))
    if not is_of_objects or settings.overlap >= side:
        return None
    remedy = "choose a larger predict.overlap"
    if model.kind == "instance":
        # the overlap is as large as the window allows
        is_fixed = isinstance(model, InstanceModel) and model.is_position_dependent
        remedy = "train with a larger train.common.crop" if is_fixed else "choose a larger predict.tile"
    return (
        f"predict.overlap is {settings.overlap}, and 5 % of the training objects are longer than {side:.0f} pixels: "
        f"the network sees such an object only in parts where windows meet; {remedy}"
    )


def require_finite(model: "SegmentationModel", bundle: Bundle) -> None:
    """Check that the weights are numbers: with others, every pixel would get the first class.

    Raises:
        ModelError: a weight is NaN or infinite, or a standard deviation is not positive.
    """
    wrong = [k for k, v in model.state_dict().items() if v.is_floating_point() and not v.isfinite().all()]
    if not (model.std > 0).all():
        wrong.append("std")
    if wrong:
        raise ModelError(
            f"{bundle.folder}/model.safetensors: the weights cannot be used, {wrong[0]} has values that are not "
            "finite or, of a standard deviation, not positive",
            "train again, or take another version",
        )
