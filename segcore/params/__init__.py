"""params.yaml as typed values."""

from segcore.params.data import Data
from segcore.params.root import (
    SPLITS,
    Evaluate,
    Params,
    Prepare,
    Speed,
    Split,
    TrainSettings,
    architecture_names,
    load,
    merge,
)

__all__ = [
    "SPLITS",
    "Data",
    "Evaluate",
    "Params",
    "Prepare",
    "Speed",
    "Split",
    "TrainSettings",
    "architecture_names",
    "load",
    "merge",
]
