"""Default colours of classes."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

Color = tuple[int, int, int]

BACKGROUND: Color = (38, 50, 56)
# palette of Okabe and Ito, distinguishable with colour blindness
_FIRST: tuple[Color, ...] = (
    *((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66)),
    *((0, 114, 178), (213, 94, 0), (204, 121, 167)),
)
_LEVELS = (0, 36, 73, 109, 146, 182, 219, 255)


def default_colors(classes: int, background: int | None) -> list[Color]:
    """Red, green and blue (0 to 255) of up to 254 classes, all different; the first seven are those of Okabe and Ito.

    Args:
        classes: number of classes.
        background: index of the background, which is dark grey; None: there is none.
    """
    colors = list(_ordered(classes))
    if background is not None:
        colors = colors[: classes - 1]
        colors.insert(background, BACKGROUND)
    return colors


def parsed(color: Any) -> Any:
    """Red, green and blue of "#RRGGBB"; lists are returned as they are.

    Raises:
        ValueError: it is another text or type.
    """
    if isinstance(color, list | tuple):
        return color
    if not isinstance(color, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", color):
        raise ValueError(
            f'{color!r} is no colour: write "#RRGGBB" in quotes, or [red, green, blue], each 0 to 255'
        )
    return tuple(bytes.fromhex(color[1:]))


@cache
def _ordered(number: int) -> tuple[Color, ...]:
    """Colours: after the first ones, each is the one of a grid that is farthest from all before it."""
    chosen = list(_FIRST)
    if number <= len(chosen):
        return tuple(chosen[:number])
    distance = {
        color: min(_distance(color, other) for other in (BACKGROUND, *chosen))
        for color in product(_LEVELS, _LEVELS, _LEVELS)
        if color not in chosen
    }
    while len(chosen) < number:
        farthest = max(distance, key=lambda color: (distance[color], color))
        chosen.append(farthest)
        del distance[farthest]
        for color in distance:
            distance[color] = min(distance[color], _distance(color, farthest))
    return tuple(chosen)


def _distance(a: Color, b: Color) -> float:
    """Squared distance in lightness, yellow to blue and, with little weight, red to green, which many confuse."""
    red, green, blue = (x - y for x, y in zip(a, b, strict=True))
    light, yellow = 0.3 * red + 0.6 * green + 0.1 * blue, (red + green) / 2 - blue
    return 2 * light**2 + yellow**2 + 0.2 * (red - green) ** 2


def hex_color(color: Sequence[int]) -> str:
    """A colour such as "#ffb300"."""
    return "#" + "".join(f"{int(value):02x}" for value in color)
