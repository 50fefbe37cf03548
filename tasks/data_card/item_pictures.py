"""Pictures of items for the data card, plain and with masks, read from their packed files and cached between runs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segcore.data.packed import Packed
from segcore.params.data import Data
from segcore.plots.overlays import Look, look
from segcore.plots.pictures import data_uri
from tasks.data_card.facts import parsed
from tasks.data_card.picture_cache import Cell, PictureCache

MOST_PICTURES = 18
# bytes of all inlined pictures of MOST_PICTURES items; noisy pictures are drawn smaller to meet it
BUDGET = 3_200_000
SIDES = (384, 320, 256, 192, 128)


def look_of(row: Any, data: Data, store: Path) -> Look:
    """Pictures of an item, a row of the catalogue, with its foreground classes."""
    colors = {i: data.colors[i] for i in data.foreground}
    return look(Packed(store / row.packed), colors, SIDES[0], parsed(row.spacing))


def inlined(pictures: Sequence[np.ndarray], limit: float) -> list[str]:
    """Data URIs, all at the largest of SIDES at which they take at most `limit` bytes together."""
    for side in SIDES:
        uris = [data_uri(picture, side) for picture in pictures]
        if sum(map(len, uris)) <= limit:
            break
    return uris


class ItemPictures:
    """Draws items that the cache does not have.

    Args:
        good: the accepted items.
        data: the section `data` of params.yaml.
        store: folder of the packed files.
        budget: bytes of the pictures of MOST_PICTURES items.
    """

    def __init__(self, good: pd.DataFrame, data: Data, store: Path, budget: float = BUDGET) -> None:
        self.data, self.store = data, store
        self.limit = budget / max(1, min(len(good), MOST_PICTURES))
        colors = {i: data.colors[i] for i in data.foreground}
        self.cache = PictureCache(store, __file__, [colors, SIDES, self.limit])
        self._used: dict[str, None] = {}

    def draw(self, picked: pd.DataFrame) -> list[Cell]:
        """Cells of the items, in their order: data URIs `image` and `masked`, and `plane`, a text.

        Raises:
            DataError: a packed file is missing.
        """
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._draw, picked.drop_duplicates("packed").itertuples()))
        self._used |= dict.fromkeys(picked["packed"])
        return [self.cache.cells[name] for name in picked["packed"]]

    def _draw(self, item: Any) -> None:
        if item.packed in self.cache:
            return
        drawn = look_of(item, self.data, self.store)
        image, masked = inlined([drawn.image, drawn.masked], self.limit)
        plane = f"plane {drawn.plane + 1} of {drawn.planes}" if drawn.planes > 1 else ""
        self.cache.cells[item.packed] = {"plane": plane, "image": image, "masked": masked}

    def save(self) -> None:
        """Save the pictures of the items that were drawn, and remove all others from the cache."""
        self.cache.save(list(self._used))
