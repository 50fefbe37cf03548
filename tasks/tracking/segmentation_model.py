"""A bundle as an MLflow model: MLflow runs the copy of this file that each logged model contains.

The copy has the package segcore beside it, and nothing of tasks, so this file must not import from tasks.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import ValidationError

from segcore.errors import DataError, ParamsError, SegflowError
from segcore.models.base.bundle import read_bundle
from segcore.params import Predict, error_texts

# MLflow runs this file also when a model is logged, after each training, which need not wait for these
if TYPE_CHECKING:
    from segcore.prediction.arrays import Prediction
    from segcore.prediction.predictor import Predictor

# words of the parameter `output`
OUTPUTS = ("classes", "probabilities", "objects")
# of the table of objects; boxes in pixels, right and bottom exclusive
COLUMNS = ("image", "plane", "class", "score", "area", "left", "top", "right", "bottom")
# words in remedies of segcore, which name settings that a model here does not have, and their replacement
_REMEDIES = (
    (r"set predict\.resample: true to resample it for the prediction, or (?=predict)", "resample it, or "),
    (r"(?:set )?predict\.accept: \[(\w+)\]", r'give params={"accept": ["\1"]}'),
    (r"correct data\.images and data\.masks", "give the path of an image"),
)
_MASKED = ("input: is a masked array", "fill it with the nodata value of the training images, or with NaN")
# makes the result of the arrays of all images
Assemble = Callable[[list[np.ndarray]], Any]


class SegmentationModel(PythonModel):
    """Predicts arrays or files with the bundle that is stored in the same folder."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read and verify the bundle.

        Raises:
            MlflowException: it is missing or damaged.
        """
        self.predictors: dict[tuple[str, ...], Predictor] = {}
        with _mlflow_errors():
            self.bundle = read_bundle(context.artifacts["bundle"])
            self._predictor(OUTPUTS[0], [])

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: Mapping[str, Any] | None = None
    ) -> Any:
        """Predict images.

        Args:
            context: not used.
            model_input: (N, H, W, C) raw pixels, one image (H, W, C) or (H, W), volumes (N, D, H, W, C), or (N,) paths
                of files or images of different sizes.
            params: `output`: "classes", "probabilities" or "objects"; `accept`: as of `segcore.params.Predict`.

        Returns:
            classes: (N, H, W) uint8 class indices, 255 where there is no data; probabilities: (N, H, W, K) float32;
            both without N for one image, and a list of N arrays for paths and images of different sizes.
            objects: a DataFrame with `COLUMNS` and one row per object.

        Raises:
            MlflowException: the input does not fit the model, or a parameter is wrong.
        """
        params = params or {}
        output = str(params.get("output", OUTPUTS[0]))
        with _mlflow_errors():
            predictor = self._predictor(output, [str(word) for word in params.get("accept", [])])
            trained = self.bundle.description.get("input", {}).get("dtype")
            images, assemble = _images(_array(model_input), trained)
            _require_planes(images, predictor)
            names = ["input"] if len(images) == 1 else [f"image {index}" for index in range(len(images))]
            made = [_predicted(predictor, image, name) for image, name in zip(images, names, strict=True)]
        if output == "objects":
            return _table(made, predictor.classes)
        if output == "probabilities":
            return assemble([np.moveaxis(one.probabilities, 0, -1) for one in made])
        return assemble([one.classes for one in made])

    def _predictor(self, output: str, accept: list[str]) -> "Predictor":
        """The predictor of an output; classes and probabilities have the same."""
        from segcore.prediction.predictor import Predictor

        if output not in OUTPUTS:
            raise ParamsError(f"params: output {output!r} is unknown", f"choose one of {', '.join(OUTPUTS)}")
        settings = {"outputs": ["objects" if output == "objects" else "classes"], "accept": accept}
        key = (*settings["outputs"], *sorted(accept))
        if key not in self.predictors:
            try:
                chosen = Predict.model_validate(settings)
            except ValidationError as error:
                raise ParamsError(f"params: {error_texts.text(error, settings)}", "correct params") from error
            self.predictors[key] = Predictor(self.bundle, chosen)
        return self.predictors[key]


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    """Raise errors of segcore as those whose text MLflow's server answers."""
    try:
        yield
    except SegflowError as error:
        raise MlflowException.invalid_parameter_value(f"{error.what}; {error.remedy}") from error


def _predicted(predictor: "Predictor", image: np.ndarray | Path, name: str) -> "Prediction":
    """The prediction of an image.

    Args:
        predictor: that predicts it.
        image: array or path.
        name: of an array in errors; a file has its path.

    Raises:
        SegflowError: as that of the predictor, in words of the input and of `params`.
    """
    try:
        return predictor.predict(image)
    except SegflowError as error:
        short, whole = (image.name, str(image)) if isinstance(image, Path) else ("array", name)
        what, remedy = error.what, error.remedy
        if what.startswith(f"{short}:"):
            what = whole + what.removeprefix(short)
        for words, own in _REMEDIES:
            remedy = re.sub(words, own, remedy)
        raise DataError(what, remedy) from error


def _array(given: Any) -> np.ndarray:
    """The input as an array, whose mask, if it has one, must not get lost.

    Raises:
        DataError: a masked array.
    """
    if isinstance(given, np.ma.MaskedArray):
        raise DataError(*_MASKED)
    return np.asarray(given)


def _images(values: np.ndarray, trained: str | None) -> tuple[list[np.ndarray | Path], Assemble]:
    """Images of the input, and how their results are put together.

    Args:
        values: as of `predict`; those of JSON are objects without a data type.
        trained: data type of the training images.

    Raises:
        DataError: neither images nor paths.
    """
    if values.dtype.kind in "OSU":
        items = np.atleast_1d(values).tolist()
        if items and all(isinstance(item, str | Path) for item in items):
            return [_path(item) for item in items], list
        if any(isinstance(item, np.ma.MaskedArray) for item in items):
            raise DataError(*_MASKED)
        whole = _numbers(items, trained)
        if whole is None:
            images = [image for item in items if (image := _numbers(item, trained)) is not None]
            if len(images) < len(items):
                raise DataError("input: has rows of unequal length", "give images (H, W, C) as nested lists")
            return [*images], list
        values = whole
    if values.ndim in (4, 5) and len(values):
        return list(values), np.stack
    if values.ndim in (2, 3):
        return [values], itemgetter(0)
    raise DataError(
        f"input: has shape {values.shape}",
        "give images (N, H, W, C) or (H, W, C), volumes (N, D, H, W, C), or paths of files (N,)",
    )


def _path(given: str | Path) -> Path:
    """A path of the input.

    Raises:
        DataError: it is empty, which would be the working folder, or has a character that no path has.
    """
    text = str(given)
    if not text.strip() or text == "." or "\0" in text:
        what = "no path is" if "\0" in text else "empty path"
        raise DataError(f"input: {what} {text!r}", "give the path of a file")
    return Path(given)


def _numbers(items: Any, trained: str | None) -> np.ndarray | None:
    """Nested lists as an array of the training images' data type, where that can represent all numbers.

    Returns:
        None if lists of one level have unequal lengths.

    Raises:
        DataError: there is something other than numbers.
    """
    try:
        values = np.array(items)
    except ValueError:
        return None
    if values.dtype.kind not in "uif":
        raise DataError(
            "input: is neither images nor paths",
            "give numbers alone, or paths of files alone, as text or pathlib.Path and not bytes",
        )
    if trained is None:
        return values
    with np.errstate(invalid="ignore"):
        cast = values.astype(trained)
    return cast if cast.dtype.kind == "f" or np.array_equal(cast, values) else values


def _require_planes(images: list[np.ndarray | Path], predictor: "Predictor") -> None:
    """Check that a model that takes neighbouring planes gets no single ones, which would have no neighbours."""
    if predictor.data.neighbours and any(isinstance(one, np.ndarray) and one.ndim < 4 for one in images):
        raise DataError(
            f"input: has single planes, and the model takes {predictor.channels_per_band} neighbouring ones together",
            "give volumes (N, D, H, W, C), or paths of files",
        )


def _table(made: "list[Prediction]", classes: list[str]) -> pd.DataFrame:
    """One row per object; `image` and `plane` are counted from 0."""
    rows: list[tuple[Any, ...]] = []
    for image, prediction in enumerate(made):
        objects = prediction.objects
        assert objects is not None
        for plane, found in enumerate(objects if isinstance(objects, list) else [objects]):
            for index, area in enumerate(found.areas.tolist()):
                top, left, height, width = found.boxes[index].tolist()
                name, score = classes[found.classes[index]], float(found.scores[index])
                rows.append((image, plane, name, score, area, left, top, left + width, top + height))
    return pd.DataFrame(rows, columns=list(COLUMNS))


set_model(SegmentationModel())
