"""Counts of objects over all scenes of a prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from segcore.files import atomic_write
from tasks.prediction_record import COUNTS

if TYPE_CHECKING:
    from segcore.prediction.predictor import Predictor


def write_counts(folder: Path, names: Sequence[str], predictor: "Predictor") -> None:
    """Write counts.csv: the counts of each scene, and of all together in rows without a scene.

    Args:
        folder: with NAME_counts.csv of each scene.
        names: of the scenes.
        predictor: that predicted them, with outputs of objects.

    Raises:
        DataError: the disk is full or not writable.
    """
    from segcore.prediction.counts import FIELDS, Validation, read_table, summed, write_table

    assert predictor.find is not None
    validation = Validation.of(predictor.description, predictor.find, predictor.settings.min_area)
    with atomic_write(folder / COUNTS) as temporary:
        scenes = [(name, read_table(folder / f"{name}_counts.csv")) for name in names]
        write_table(temporary, summed(scenes, validation), ["scene", *FIELDS])
