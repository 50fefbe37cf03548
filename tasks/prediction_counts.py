"""Counts of objects of the scenes of a prediction: the file of all scenes, and lines to print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.files import atomic_write
from tasks.prediction_record import COUNTS, COUNTS_SUFFIX

if TYPE_CHECKING:
    from segcore.prediction.predictor import Predictor


def write_counts(folder: Path, names: Sequence[str], predictor: "Predictor") -> str:
    """Write counts.csv: the counts of each scene, and of all together in rows without a scene.

    Args:
        folder: with NAME_counts.csv of each scene.
        names: of the scenes, at least one.
        predictor: that predicted them, with outputs of objects.

    Returns:
        The counts of all together as one line.

    Raises:
        DataError: the disk is full or not writable.
    """
    from segcore.prediction.counts import FIELDS, Validation, read_table, summed, write_table

    assert predictor.find is not None
    validation = Validation.of(predictor.description, predictor.find, predictor.settings)
    with atomic_write(folder / COUNTS) as temporary:
        scenes = [(name, read_table(folder / f"{name}{COUNTS_SUFFIX}")) for name in names]
        rows = summed(scenes, validation)
        write_table(temporary, rows, ["scene", *FIELDS])
    return _text([row for row in rows if not row["scene"]])


def count_text(folder: Path, name: str) -> str:
    """The counts of a scene as one line, such as "30 building (estimate 41, 95 %: 30 to 64)"."""
    from segcore.prediction.counts import read_table

    return _text(read_table(folder / f"{name}{COUNTS_SUFFIX}"))


def _text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Counts by class; those of all classes only where there are several."""
    parts = []
    for row in rows[:-1] if len(rows) == 2 else rows:
        facts = [str(row[field]) for field in ("estimate", "low", "high") if row[field] not in (None, "")]
        interval = " (estimate {}, 95 %: {} to {})".format(*facts) if facts else ""
        parts.append(f"{row['objects']} {row['class'] or 'objects in all'}{interval}")
    return "; ".join(parts)
