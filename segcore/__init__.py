"""Compare segmentation networks; this package is usable without the pipeline around it.

Rooms, in the order of the pipeline. A room imports only rooms above it and the base modules; `params` also reads the
names of metrics and the parameters of the gate's rules:

    params      params.yaml as typed values
    data        what all stages store and read: rasters, packed items, prepared data, volumes
    objects     objects of an image: index, components, watershed, pairs with the truth, stitching
    io          readers of images, annotations and layouts, one plug-in per file
    ingest      checks images and masks, and makes the catalogue of items
    splits      divides groups among training, validation and test, and prepares the data
    models      the architectures, one per file; `base` has what they share and the bundle, `instance` the parts of
                instance networks
    inference   device, tiling, test-time augmentation, calibration, and post-processing
    training    the training loop
    tables      evaluation tables
    evaluation  predicts the test regions and counts their pixels; complexity of networks
    metrics     scores from evaluation tables
    comparison  intervals, paired tests, verdict and leaderboard
    prediction  new images, as arrays or files
    export      trained models as files of other formats
    planning    section data guessed from a folder, settings from the data, learning-rate range test
    promotion   the gate between challenger and champion; drift of new data
    plots       figures

Base modules: cache, class_colors, constants, cpu, downloads, errors, files, gate_rules, geo_libraries, latency, names,
parts, plugins.

    import segcore
    prediction = segcore.load("models/unet-0").predict(array)

The names below are imported when they are first used, so that `import segcore` is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segcore import cpu, geo_libraries

if TYPE_CHECKING:
    from segcore.models.base.bundle import load_bundle
    from segcore.models.base.factory import build_model
    from segcore.params import load as load_params
    from segcore.prediction.arrays import Prediction
    from segcore.prediction.predictor import Predictor, load

__all__ = ["Prediction", "Predictor", "build_model", "load", "load_bundle", "load_params"]

# before rasterio and pyogrio are imported, which read these variables then
geo_libraries.keep_own()
# before torch is imported: every module that imports it imports this package before
cpu.spin_briefly()

# module and name within it
_SOURCES = {
    "Prediction": ("segcore.prediction.arrays", "Prediction"),
    "Predictor": ("segcore.prediction.predictor", "Predictor"),
    "build_model": ("segcore.models.base.factory", "build_model"),
    "load": ("segcore.prediction.predictor", "load"),
    "load_bundle": ("segcore.models.base.bundle", "load_bundle"),
    "load_params": ("segcore.params", "load"),
}


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module 'segcore' has no attribute {name!r}")
    module, attribute = _SOURCES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
