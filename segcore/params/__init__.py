"""params.yaml as typed values."""

from segcore.params.architectures import architecture_names
from segcore.params.data import Data
from segcore.params.operations import Predict
from segcore.params.root import Params, flat, load, merge
from segcore.params.stages import SPLITS, Evaluate, Prepare, Report, Split
from segcore.params.training import Speed, TrainSettings

__all__ = [
    "SPLITS",
    "Data",
    "Evaluate",
    "Params",
    "Predict",
    "Prepare",
    "Report",
    "Speed",
    "Split",
    "TrainSettings",
    "architecture_names",
    "flat",
    "load",
    "merge",
]
