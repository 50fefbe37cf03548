"""An untrained model, ready for the training loop."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from segcore.data.prepared import PreparedData
from segcore.errors import DataError, ModelError, ParamsError
from segcore.models.base.factory import build_model, check_keywords, defaults, fitted, kind
from segcore.models.base.model import SegmentationModel
from segcore.models.base.object_sizes import QUANTILES, ObjectSizes
from segcore.models.base.pretrained import imagenet_normalization
from segcore.models.base.semantic import SemanticModel
from segcore.params import TrainSettings
from segcore.training.losses import build_loss

# whether a network can be built does not depend on it
_USUAL_BANDS = 3


def class_weights(settings: TrainSettings, data: PreparedData) -> list[float] | None:
    """Median-frequency class weights of the training split (Eigen and Fergus 2015), (K,); None if not set."""
    if settings.class_weights == "none":
        return None
    pixels = np.asarray(data.statistics["class_pixels"], dtype=float)
    weights = np.where(pixels > 0, np.median(pixels[pixels > 0]) / np.maximum(pixels, 1), 0)
    return [float(w) for w in weights]


def normalization(
    encoder: str, weights: str, data: PreparedData, choice: str = "imagenet"
) -> tuple[list[float], list[float]]:
    """Mean and std per channel: of the training split, or for 8-bit RGB those that pretrained encoders expect.

    Args:
        encoder: name.
        weights: of the encoder; "none" has no expected normalisation.
        data: prepared data.
        choice: "data" for the training split; "imagenet" for what ImageNet weights of the encoder expect, where that
            applies, else as "data".

    Raises:
        ModelError: the encoder is one of timm, which is not installed.
    """
    if choice == "data":
        return data.of_channels(data.statistics["mean"]), data.of_channels(data.statistics["std"])
    whole_range = data.statistics["range"] is None and (data.items["dtype"] == "uint8").all()
    if weights != "none" and data.channels == 3 and whole_range:
        return imagenet_normalization(encoder)
    return normalization(encoder, weights, data, "data")


def new_model(
    architecture: str,
    settings: TrainSettings,
    data: PreparedData,
    seed: int,
    known: Mapping[str, Any] | None = None,
) -> SegmentationModel:
    """Build an untrained model with encoder weights, normalisation and loss.

    Args:
        architecture: name.
        settings: of the training.
        data: prepared data.
        seed: of the initialisation.
        known: settings of an instance network that take the place of "auto", such as the anchors of a network whose
            weights are loaded afterwards; None: they are fitted to the objects of the training split.

    Raises:
        ModelError: unknown keywords, or weights that cannot be loaded; DataError: an instance network, and the data or
            their training split have no objects.
    """
    torch.manual_seed(seed)
    # here, because names of `build_model` itself, such as magnify, are none
    check_keywords(architecture, settings.model)
    keywords = _keywords(settings)
    if kind(architecture) == "instance":
        keywords = _for_objects(architecture, keywords, settings, data, known or {})
    else:
        keywords["touching"] = data.training_classes > len(data.classes)
    model = build_model(architecture, data.channels, len(data.classes), **keywords)
    model.set_normalization(
        *normalization(keywords["encoder"], keywords["weights"], data, settings.normalization)
    )
    if data.statistics["range"] is not None:
        model.set_range(*(data.of_channels(limit) for limit in data.statistics["range"]))
    if not isinstance(model, SemanticModel):
        return model
    by_class = class_weights(settings, data)
    if by_class and model.touching:
        # pixels near two objects are rarer than those of any class
        by_class.append(max(by_class))
    model.criterion = build_loss(settings.loss, by_class, soft=bool(data.annotators))
    return model


def check_network(
    architecture: str, settings: TrainSettings, num_classes: int, foreground: Sequence[int]
) -> None:
    """Check that `new_model` can build a network of these settings, without memory, data or downloads.

    Args:
        architecture: name.
        settings: of the training.
        num_classes: classes of the data.
        foreground: indices of the classes that have objects.

    Raises:
        ModelError: a keyword, the encoder, its weights or the loss are impossible.
    """
    check_keywords(architecture, settings.model)
    keywords = _keywords(settings)
    if kind(architecture) == "instance":
        keywords["foreground"] = foreground
    else:
        try:
            build_loss(settings.loss)
        except ParamsError as error:
            raise ModelError(error.what, error.remedy, "loss") from error
    # its tensors have shapes and no values
    with torch.device("meta"):
        build_model(architecture, _USUAL_BANDS, num_classes, **keywords)


def _keywords(settings: TrainSettings) -> dict[str, Any]:
    """Those of `build_model` that the settings have."""
    return {
        "encoder": settings.encoder,
        "weights": settings.weights,
        "magnify": settings.magnify,
        **settings.model,
    }


def _for_objects(
    architecture: str,
    keywords: dict[str, Any],
    settings: TrainSettings,
    data: PreparedData,
    known: Mapping[str, Any],
) -> dict[str, Any]:
    """Keywords of an instance network, fitted to the objects of the training split."""
    if data.truth_of_objects == "none":
        raise DataError(
            f"{architecture} finds objects, and the data have none",
            "set data.instances and run the steps ingest and prepare again, or remove this architecture",
        )
    if not len(_training_objects(data)):
        raise DataError(
            f"{architecture} learns from objects, and the training split has none",
            "add images with objects, or name groups that have some under split.given.train in params.yaml, and run "
            "the steps ingest and prepare again; or remove this architecture",
        )
    own = {key: value for key, value in keywords.items() if key != "magnify"}
    asked = {**defaults(architecture), **own}
    own |= {key: known[key] for key, value in asked.items() if value == "auto" and key in known}
    sizes = object_sizes(data, settings)
    return {**fitted(architecture, own, sizes), "magnify": settings.magnify, "foreground": data.foreground}


def _training_objects(data: PreparedData) -> pd.DataFrame:
    """Rows of `PreparedData.objects` in training regions."""
    training = data.regions.loc[data.regions["split"] == "train", "id"]
    return data.objects[data.objects["region"].isin(training)]


def object_sizes(data: PreparedData, settings: TrainSettings) -> ObjectSizes:
    """Sizes of the objects of the training split, of which there is at least one."""
    objects = _training_objects(data)
    tall, wide = objects["height"].to_numpy(float), objects["width"].to_numpy(float)
    sides = np.quantile(np.sqrt(tall * wide), QUANTILES) * settings.magnify
    ratios = np.quantile(tall / wide, (0.1, 0.5, 0.9))
    cell = objects[["item"]].assign(
        row=objects["center_row"] // settings.crop, col=objects["center_col"] // settings.crop
    )
    most = int(cell.value_counts().max())
    return ObjectSizes(
        tuple(round(float(side), 1) for side in sides),
        tuple(round(float(ratio), 2) for ratio in ratios),
        most,
        round(settings.crop * settings.magnify),
    )
