"""Tables of volumes with a box of class 1, whose predictions are the box moved by some planes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from segcore.tables.counts import count, counts_table
from segcore.tables.surfaces import SUMS, surface_sums

CLASSES = ["background", "building"]
# planes are 2 mm apart
SPACING = (2.0, 1.0, 1.0)
SHAPE = (12, 10, 10)


def box(start: int | None) -> np.ndarray:
    """A volume with a box whose first plane is `start`; None: without."""
    label = np.zeros(SHAPE, np.uint8)
    if start is not None:
        label[start : start + 3, 2:6, 2:7] = 1
    return label


def tables(
    moved: Mapping[str, Sequence[int | None]], tolerance: float = 2.0, absent: Sequence[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Counts and surfaces: patient -> planes by which each of its volumes is moved; None: nothing is predicted.

    Patients of `absent` have no organ; what is predicted there is a box in a plane.
    """
    images, rows = [], []
    for patient, steps in moved.items():
        for index, step in enumerate(steps):
            label = box(None if patient in absent else 4)
            prediction = box(None if step is None else 4 + step)
            volume = f"{patient}_{index}"
            regions = [f"{volume}_z{plane:03d}" for plane in range(len(label))]
            images += [
                (region, patient, count(p, t, 2))
                for region, p, t in zip(regions, prediction, label, strict=True)
            ]
            sums = surface_sums(prediction, label, [1], np.diag(SPACING), tolerance)[0]
            where = {
                "volume": volume,
                "item": regions[0],
                "cluster": patient,
                "class_index": 1,
                "class_name": "building",
            }
            rows.append(where | dict(zip(SUMS, sums, strict=True)))
    return counts_table(images, CLASSES), pd.DataFrame(rows)
