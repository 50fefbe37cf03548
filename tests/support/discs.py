"""Images of numbered discs, many of which touch."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VALUES: dict[str, Any] = {"instances": True, "label_values": {"0": "background", "others": "square"}}


def numbered(seed: int, side: int = 64, count: int = 9) -> np.ndarray:
    """(H, W) uint8: number of each disc."""
    rng, found = np.random.default_rng(seed), np.zeros((side, side), np.uint8)
    rows, cols = np.mgrid[:side, :side]
    for number, (row, col) in enumerate(rng.integers(0, side, (count, 2)), start=1):
        disc = (rows - row) ** 2 + (cols - col) ** 2 <= rng.uniform(4, 9) ** 2
        found[disc & (found == 0)] = number
    return found


def make_discs(folder: Path, count: int = 12) -> Path:
    """images/a<i>.png, bright where there is a disc, and masks/a<i>.png of numbers; read with VALUES."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        numbers = numbered(index)
        grey = np.random.default_rng(index).integers(40, 80, numbers.shape) + 120 * (numbers > 0)
        image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(image).save(folder / "images" / f"a{index}.png")
        Image.fromarray(numbers).save(folder / "masks" / f"a{index}.png")
    return folder
