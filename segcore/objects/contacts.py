"""Pixels near two objects, which networks learn as a class of their own so that objects that touch are separated."""

import numpy as np

# largest distance in pixels
RADIUS = 2


def near_two(numbers: np.ndarray) -> np.ndarray:
    """Pixels with two different objects within RADIUS pixels (Euclidean); the object of the pixel itself counts.

    Args:
        numbers: (H, W) uint32 object numbers, 0 for none. Of a part of a plane, only pixels that have RADIUS rows and
            columns around them are right.

    Returns:
        (H, W) bool.
    """
    height, width = numbers.shape
    # with 0 as the highest number, the lowest number in reach is that of an object, if there is one
    lowest, highest = numbers - np.uint32(1), numbers.copy()
    less_one, own = lowest.copy(), numbers
    for row in range(-RADIUS, RADIUS + 1):
        for col in range(-RADIUS, RADIUS + 1):
            if not 0 < row * row + col * col <= RADIUS * RADIUS or abs(row) >= height or abs(col) >= width:
                continue
            to = slice(max(0, -row), height - max(0, row)), slice(max(0, -col), width - max(0, col))
            at = slice(max(0, row), height - max(0, -row)), slice(max(0, col), width - max(0, -col))
            np.minimum(lowest[to], less_one[at], out=lowest[to])
            np.maximum(highest[to], own[at], out=highest[to])
    # without an object in reach, lowest is the number before 0 and highest is 0
    near: np.ndarray = (highest > 0) & (lowest != highest - np.uint32(1))
    return near
