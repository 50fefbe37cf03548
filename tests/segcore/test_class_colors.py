"""Default colours of classes: all different, the background dark grey, the first ones safe with colour blindness."""

import pytest

from segcore.class_colors import BACKGROUND, default_colors


def test_up_to_254_classes_have_different_colours() -> None:
    colors = default_colors(254, 0)
    assert len(set(colors)) == 254 and colors[0] == BACKGROUND
    assert all(0 <= value <= 255 for color in colors for value in color)
    nearest = min(
        max(abs(x - y) for x, y in zip(a, b, strict=True)) for a in colors for b in colors if a != b
    )
    assert nearest >= 17


@pytest.mark.parametrize("classes", [2, 8, 9, 40])
def test_a_class_keeps_its_colour_when_classes_are_added(classes: int) -> None:
    assert default_colors(classes, None) == default_colors(100, None)[:classes]


def test_the_background_is_grey_wherever_it_is() -> None:
    colors = default_colors(3, 2)
    assert colors[2] == BACKGROUND and colors[:2] == default_colors(2, None)
