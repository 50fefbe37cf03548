"""How far several annotators agree, for the data card."""

from typing import Any

import numpy as np
import pandas as pd

from segcore.class_colors import hex_color
from segcore.ingest.agreement import AGREEMENT
from segcore.params.data import Data
from tasks.data_card.facts import parsed


def agreement(good: pd.DataFrame, data: Data) -> dict[str, Any] | None:
    """Shares of the pixels of all accepted items; None for data of one annotator.

    Returns:
        all: share of pixels on which all annotators agree; annotators: name and share of the labelled pixels with the
        class of the majority; rows: per class its name, colour, share on which all agree of the pixels to which any
        annotator gave it (None: there is none), and of each annotator the share of labelled pixels with it.
    """
    if not data.annotators or AGREEMENT not in good or not len(good):
        return None
    items = [parsed(text) for text in good[AGREEMENT]]
    total = {name: np.sum([item[name] for item in items], axis=0) for name in items[0]}
    labelled = np.maximum(total["pixels"].sum(axis=1), 1)
    shares = total["pixels"] / labelled[:, None]
    return {
        "all": float(total["all"].sum() / max(1, int(total["several"]))),
        "annotators": list(zip(data.annotators, (total["as_majority"] / labelled).tolist(), strict=True)),
        "rows": [
            {
                "name": name,
                "colour": hex_color(data.colors[index]),
                "all": float(total["all"][index] / total["any"][index]) if total["any"][index] else None,
                "shares": shares[:, index].tolist(),
            }
            for index, name in enumerate(data.classes)
        ],
    }
