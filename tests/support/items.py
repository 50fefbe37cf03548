"""Tables of items, and their split assignment, regions and windows."""

import json

import numpy as np
import pandas as pd

from segcore.params import Prepare, Split
from segcore.splits import assignment
from segcore.splits.regions import assign
from segcore.splits.windows import index_item, tabulated

FRACTIONS = {"train": 0.5, "validation": 0.2, "test": 0.3}
SPLIT = Split(fractions=FRACTIONS, block=64, buffer=8)
WHOLE = Split(fractions=FRACTIONS)
WINDOWS = Prepare(window=40, stride=8)
NO_LINKS = pd.DataFrame(columns=["a", "b", "kind", "detail"])


def items(names, groups=None, size=48):
    return pd.DataFrame(
        {
            "id": names,
            "group": groups or names,
            "height": size,
            "width": size,
            "sha256": [f"{i:064d}" for i in range(len(names))],
        }
    )


def placed(table, origins, crs="EPSG:32633"):
    """The items placed at (row, col) pixels of one map with pixels of 0.5 m."""
    transforms = [json.dumps([0.5, 0, 500000 + c / 2, 0, -0.5, 5000000 - r / 2]) for r, c in origins]
    return table.assign(crs=crs, transform=transforms)


def link(a, b, kind="near-duplicate"):
    return pd.DataFrame([[*sorted((a, b)), kind, "as the test says"]], columns=NO_LINKS.columns)


def decided(table, split, links=NO_LINKS):
    decision = assignment.decide(table, links, split, {})
    return decision, assign(table, split, decision)


def assigned(table, split, links=NO_LINKS):
    return decided(table, split, links)[1]


def indexed(table, split, decision, label=None, prepare=WINDOWS):
    parts = []
    for row in table.itertuples():
        zeros = np.zeros((row.height, row.width), np.uint8)
        parts.append(index_item(row, zeros if label is None else label, 2, prepare, split, decision))
    return tabulated(list(table["id"]), parts, 2)
