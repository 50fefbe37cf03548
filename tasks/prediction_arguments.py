"""Arguments that the command `predict` and its flow share."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from segcore.errors import ParamsError
from segcore.params import Params, Predict
from tasks.exported import add_runtime
from tasks.prediction_record import OBJECT_OUTPUTS
from tasks.project import PREDICTIONS
from tasks.tracking.fetch import CHAMPION

# words of `predict.outputs`
_OUTPUTS = ("classes", "probabilities", "confidence", "polygons", "dicomseg", *OBJECT_OUTPUTS)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Parser of the arguments that the command and the flow share."""
    arguments = argparse.ArgumentParser(
        prog=name, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "scenes", nargs="+", metavar="SCENES", help="files, folders, or patterns in quotes"
    )
    arguments.add_argument(
        "--model",
        default=CHAMPION,
        metavar="ADDRESS",
        help="folder of a bundle such as models/unet-0, models:/NAME@ALIAS, models:/NAME/3, "
        "or champion: that of data.name (default: %(default)s)",
    )
    arguments.add_argument(
        "--output", type=Path, default=PREDICTIONS, help="output folder (default: %(default)s)"
    )
    arguments.add_argument(
        "--outputs",
        type=_words,
        metavar="LIST",
        help=f"files to write per scene: {', '.join(_OUTPUTS)}, with commas between them "
        "(default: predict.outputs)",
    )
    arguments.add_argument(
        "--accept",
        type=_words,
        metavar="LIST",
        help="range, resolution: scenes unlike the training images that are predicted (default: predict.accept)",
    )
    arguments.add_argument(
        "--count-by",
        metavar="FILE",
        help="polygons in which objects are counted, with the output `counts` (default: predict.count_by)",
    )
    arguments.add_argument(
        "--delete-others",
        action="store_true",
        help="delete files of earlier predictions of these scenes that are no wanted output",
    )
    add_runtime(arguments)
    arguments.add_argument("--params", default="params.yaml", help="parameters file (default: %(default)s)")
    return arguments


def _words(text: str) -> list[str]:
    return [word for word in text.replace(",", " ").split() if word]


def chosen(
    p: Params,
    outputs: Sequence[str] | None,
    accept: Sequence[str] | None,
    count_by: str | None = None,
) -> Params:
    """The parameters with the outputs, accepted scenes and zones of the command line; None: those of params.yaml.

    Raises:
        ParamsError: an unknown word, or none, or zones without counts.
    """
    if count_by is not None:
        if "counts" not in (p.predict.outputs if outputs is None else outputs):
            raise ParamsError(
                f"--count-by: {count_by} has no effect, because the outputs have no counts",
                "add counts to --outputs (OUTPUTS=counts of make) or to predict.outputs",
            )
        p = p.model_copy(update={"predict": p.predict.model_copy(update={"count_by": count_by})})
    given = {"outputs": outputs, "accept": accept}
    values = {**p.predict.model_dump(), **{name: list(v) for name, v in given.items() if v is not None}}
    try:
        return p.model_copy(update={"predict": Predict.model_validate(values)})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "too_short":
            raise ParamsError(
                f"--{first['loc'][0]}: is empty", f"use words of: {', '.join(_OUTPUTS)}"
            ) from error
        raise ParamsError(
            f"--{first['loc'][0]}: {first['input']!r} is unknown", f"use words of: {first['ctx']['expected']}"
        ) from error


def windows_note(p: Params, description: Mapping[str, Any], tile: int) -> str | None:
    """A note on an instance network that predicts in other windows than were evaluated; None for others.

    Args:
        p: parameters.
        description: model.json.
        tile: side of the windows in pixels.
    """
    validated = description.get("tile")
    if (
        description.get("kind") != "instance"
        or p.predict.tile is None
        or tile in (p.evaluate.tile, validated)
    ):
        return None
    return (
        f"predict.tile is {tile}, the validation had windows of {validated} pixels and the evaluation of "
        f"{p.evaluate.tile}: masks and scores change a little with the windows, and the operating score and the "
        "intervals of counts were not found in these; set predict.tile to null for those of the evaluation"
    )
