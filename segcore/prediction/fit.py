"""Whether a scene fits the training images of a model: bands, units of its values, size of its pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segcore.data.raster import Info, Note, Window, pieces
from segcore.data.resolution import pixel_sizes
from segcore.errors import DataError
from segcore.io.bands import Declared
from segcore.params import Data
from segcore.prediction.units import has_other_units

# entry of model.json with the facts of the training images
TRAINING_IMAGES = "training_images"
# kinds of notes of scenes that `predict.accept` lets pass: other units, other size of pixels
UNLIKE_TRAINING = ("other-range", "other-resolution")
# pieces of a scene that are sampled, pixels of each, and pixels of its sample
_PIECES, _PIECE_PIXELS, _SAMPLES = 32, 2**18, 2**13
# how to convert the values of a file, by its extension
_CONVERSIONS = {
    **dict.fromkeys((".tif", ".tiff", ".vrt", ".jp2", ".img"), " (gdal_translate -ot and -scale)"),
    **dict.fromkeys(
        (".nii", ".gz"), " (nibabel: write them to another file, or correct scl_slope and scl_inter)"
    ),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr"), " (SimpleITK: ShiftScale)"),
    ".dcm": " (for Hounsfield units, RescaleSlope and RescaleIntercept have to be in the file)",
}
# Sizes of pixels that differ by more are refused; a hundredth is allowed for measuring them.
_FACTOR = 1.5 * 1.01


def check_size(info: Info, data: Data, name: str) -> None:
    """Check that a scene has a plausible number of pixels.

    Raises:
        DataError: it has more than data.max_pixels.
    """
    if info.depth * info.height * info.width > data.max_pixels:
        raise DataError(
            f"{name}: declares {info.depth} x {info.height} x {info.width} pixels, more than {data.max_pixels}",
            "restore the file if its header is damaged, or cut it into smaller scenes",
            kind="too-large",
        )


def check_bands(info: Info, bands: int, name: str) -> None:
    """Check that a scene has the number of bands that the model takes.

    Raises:
        DataError: it has not.
    """
    if info.bands != bands:
        raise DataError(
            f"{name}: has {info.bands} {'band' if info.bands == 1 else 'bands'}, the model takes {bands}",
            "give the bands of the training images in their order; arrays as (H, W, C)",
            kind="band-count",
        )


def check_values(
    declared: Declared, stored: str, description: dict[str, Any], accept: Sequence[str], name: str
) -> list[Note]:
    """Check that the values of a scene are in the units of the training images, unless each image is scaled by itself.

    Args:
        declared: the scene.
        stored: data type of its values in the file.
        description: model.json of the model.
        accept: `predict.accept`.
        name: of the scene, for errors.

    Returns:
        A note if `accept` lets other units pass.

    Raises:
        DataError: they are not.
    """
    trained = description.get("input", {}).get("dtype")
    values = description.get(TRAINING_IMAGES, {}).get("values")
    if declared.range is not None:
        problem = ""
    elif values is None:
        problem = _other_dtype(trained, stored)
    else:
        is_byte, is_reduced = trained == stored == "uint8", stored == "uint8" != (trained or stored)
        problem = _other_values(_sampled(declared), values, is_byte, is_reduced)
    if not problem:
        return []
    if "range" in accept:
        return [(UNLIKE_TRAINING[0], f"{problem}; accepted by predict.accept")]
    raise DataError(
        f"{name}: {problem}",
        f"give raw values in the units of the training images{_CONVERSIONS.get(Path(name).suffix.lower(), '')}, or set "
        "predict.accept: [range] to predict them as they are",
        kind="other-dtype",
    )


def _other_dtype(trained: str | None, stored: str) -> str:
    """The problem of another data type, for models whose description has no training values; empty if there is none."""
    if trained and (trained == "uint8") != (stored == "uint8"):
        return f"has {stored} values, the training images have {trained}"
    return ""


def _other_values(values: np.ndarray, trained: dict[str, Any], is_byte: bool, is_reduced: bool) -> str:
    """The problem of values in other units; empty if there is none."""
    if not has_other_units(values, trained, is_byte, is_reduced):
        return ""
    scene = np.quantile(values.astype(np.float64), (0.01, 0.99), axis=0)

    def shown(low: Sequence[float], high: Sequence[float]) -> str:
        bands = [f"{_number_text(a)} to {_number_text(b)}" for a, b in zip(low, high, strict=True)]
        same = len(set(bands)) == 1
        return bands[0] if same else ", ".join(f"band {n}: {text}" for n, text in enumerate(bands[:4], 1))

    return (
        f"its values ({shown(*scene)}) are not in the units of the training images "
        f"({shown(trained['low'][0], trained['high'][1])})"
    )


def _number_text(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _sampled(declared: Declared) -> np.ndarray:
    """(n, C) valid pixels of pieces of the scene, chosen at random, but the same ones each time."""
    info = declared.info
    places = [(plane, window) for plane in range(info.depth) for window in pieces(info, _PIECE_PIXELS)]
    chosen = np.random.default_rng(0).permutation(len(places))[:_PIECES]
    return np.concatenate([_thinned(declared, *places[index]) for index in sorted(chosen)])


def _thinned(declared: Declared, plane: int, window: Window) -> np.ndarray:
    pixels, valid = declared.read(window, plane)
    step = max(1, round((valid.size / _SAMPLES) ** 0.5))
    thinned: np.ndarray = np.moveaxis(pixels[:, ::step, ::step], 0, -1)[valid[::step, ::step]]
    return thinned


def other_sizes(info: Info, description: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Sizes of a scene's pixels that differ by more than a factor of 1.5 from those of all training images.

    Returns:
        By entry of `segcore.data.resolution.pixel_sizes`: that of the scene, and the median of the training images.
        Empty where either has none.
    """
    facts = description.get(TRAINING_IMAGES, {})
    trained = facts.get("pixel_sizes", {})
    # rows and columns are resampled as in the training, whatever their spacing
    resampled = ("mm: rows", "mm: columns") if facts.get("spacing") else ()
    sizes = {name: size for name, size in pixel_sizes(info).items() if name not in resampled}
    return {
        name: (size, trained[name][1])
        for name, size in sizes.items()
        if name in trained and not trained[name][0] / _FACTOR <= size <= trained[name][2] * _FACTOR
    }


def resampling_steps(
    info: Info, description: dict[str, Any], resample: bool
) -> tuple[float, float, float] | None:
    """Pixels of a scene per pixel that the network sees, along planes, rows and columns.

    Args:
        info: header of the scene.
        description: model.json of the model.
        resample: whether a scene is resampled whose pixels have another size than those of the training images.

    Returns:
        None if the network sees the scene's own pixels.
    """
    differing, sizes = other_sizes(info, description) if resample else {}, pixel_sizes(info)
    trained = description.get(TRAINING_IMAGES, {}).get("pixel_sizes", {})
    spacing = description.get(TRAINING_IMAGES, {}).get("spacing")
    if spacing and "mm: rows" in sizes and "mm: columns" in sizes:
        planes = trained["mm: planes"][1] / sizes["mm: planes"] if "mm: planes" in differing else 1.0
        steps = (planes, spacing[0] / sizes["mm: rows"], spacing[1] / sizes["mm: columns"])
        return None if steps == (1.0, 1.0, 1.0) else steps
    if not differing:
        return None
    of_axes = {name: trained[name][1] / sizes[name] for name in sizes if name in trained}
    if "m" in of_axes:
        return 1.0, of_axes["m"], of_axes["m"]
    planes = of_axes["mm: planes"] if "mm: planes" in differing else 1.0
    if differing.keys() <= {"mm: planes"}:
        return planes, 1.0, 1.0
    return planes, of_axes["mm: rows"], of_axes["mm: columns"]


def check_resolution(
    info: Info, description: dict[str, Any], accept: Sequence[str], resample: bool, name: str
) -> list[Note]:
    """Check that a scene's pixels have the size of those of the training images.

    Args:
        info: header of the scene.
        description: model.json of the model.
        accept: `predict.accept`.
        resample: whether the scene is resampled, `predict.resample`.
        name: of the scene, for errors.

    Returns:
        A note if the sizes differ and the scene is predicted all the same.

    Raises:
        DataError: the sizes differ by more than a factor of 1.5.
    """
    differing = other_sizes(info, description)
    if not differing:
        return []
    problem = "; ".join(_size_text(axis, *sizes) for axis, sizes in differing.items())
    if resample:
        return [("resampled", f"{problem}: resampled to the training images for the prediction")]
    if "resolution" in accept:
        return [(UNLIKE_TRAINING[1], f"{problem}; accepted by predict.accept")]
    raise DataError(
        f"{name}: {problem}: more than a factor of 1.5",
        "set predict.resample: true to resample it for the prediction, or predict.accept: [resolution] to predict it "
        "as it is",
    )


def _size_text(name: str, scene: float, trained: float) -> str:
    unit, _, axis = name.partition(": ")
    what = f"distance of its {axis}" if axis else "side of a pixel on the ground"
    return f"{what} is {scene:.3g} {unit}, that of the training images {trained:.3g} {unit}"
