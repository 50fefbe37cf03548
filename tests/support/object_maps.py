"""Maps of connected objects of awkward shapes."""

import numpy as np
from skimage.measure import label

CLASSES = (1, 2, 3)


def scene_of(kind: str, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) numbers of connected objects, from 1 by first pixel, and the class of each."""
    rng = np.random.default_rng(seed)
    numbers = np.zeros((height, width), np.uint32)
    if kind == "snake":
        # one object that fills the scene, with gaps of a pixel, and another one inside a gap
        numbers[::2] = 1
        for turn, row in enumerate(range(1, height - 1, 2)):
            numbers[row, -1 if turn % 2 == 0 else 0] = 1
        numbers[1, 1 : width // 2 :] = 2
    elif kind == "rings":
        for turn in range(0, min(height, width) // 2, 2):
            numbers[turn : height - turn, turn : width - turn] = turn // 2 + 1
            numbers[turn + 1 : height - turn - 1, turn + 1 : width - turn - 1] = 0
    elif kind == "us":
        for number, col in enumerate(range(0, width - 4, 6), start=1):
            numbers[1:-1, col : col + 5] = number
            numbers[1:-2, col + 1 : col + 4] = 0
            numbers[1:-4, col + 2] = number + 1000
    else:
        # touching squares and lines; what others cut off is another object
        for number in range(1, int(rng.integers(2, 30))):
            r, c = rng.integers(0, height), rng.integers(0, width)
            h, w = rng.integers(1, height // 2 + 2), rng.integers(1, width // 2 + 2)
            numbers[r : r + h, c : c + w] = number
    numbers = label(numbers.astype(np.int32), background=0, connectivity=2).astype(np.uint32)
    return numbers, rng.choice(CLASSES, numbers.max()).astype(np.uint8)
