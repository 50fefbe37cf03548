"""Outlines of objects over a picture: their place, their colours, and which objects get one."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from segcore.plots.object_gallery import (
    STATUS_COLOURS,
    ObjectCase,
    Outcome,
    case_columns,
    detail_of,
    object_gallery_image,
    pick_object_cases,
)
from segcore.plots.outlines import Layer, draw_outlines
from segcore.plots.style import save_png

RED, GREEN = (255, 0, 0), (0, 255, 0)
# linear RGB of what people with protanopia, deuteranopia and tritanopia see (Machado et al. 2009, severity 1)
DEFICIENT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    "none": np.eye(3).tolist(),
}  # fmt: skip


def _is(picture: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    return (np.abs(picture.astype(int) - colour) < 60).all(-1)


def test_outlines_are_inside_their_objects_and_do_not_hide_those_of_neighbours() -> None:
    numbers = np.zeros((20, 20), int)
    numbers[4:16, 2:10], numbers[4:16, 10:18] = 1, 7
    picture = np.full((20, 20, 3), 90, np.uint8)
    shown = draw_outlines(picture, [Layer(numbers, {1: RED, 7: GREEN}, 3 / 160)], 160)
    assert shown.shape == (160, 160, 3)
    rows, cols = np.nonzero(_is(shown, RED))
    assert (
        32 <= rows.min() < 35 and 125 <= rows.max() < 128 and 16 <= cols.min() < 19 and 77 <= cols.max() < 80
    )
    rows, cols = np.nonzero(_is(shown, GREEN))
    assert 80 <= cols.min() < 83 and 141 <= cols.max() < 144
    # the inside is the picture, and beside the line there is a dark rim
    assert (shown[60:100, 30:65] == 90).all() and (shown[60:100, 15] < 60).all() and (shown[:28] == 90).all()


def test_an_object_of_one_pixel_in_a_large_picture_is_drawn() -> None:
    numbers = np.zeros((900, 900), int)
    numbers[451, 333] = 2
    shown = draw_outlines(np.zeros((900, 900, 3), np.uint8), [Layer(numbers, {2: RED}, 0.01)], 300)
    places = np.argwhere(shown[..., 0] > 60)
    assert len(places) and places.mean(0) == pytest.approx([150, 111], abs=1)


def test_objects_without_a_colour_or_a_pixel_are_not_drawn() -> None:
    picture, numbers = np.full((8, 8, 3), 50, np.uint8), np.ones((8, 8), int)
    assert (draw_outlines(picture, [Layer(numbers, {}, 0.02)], 80) == 50).all()
    assert (draw_outlines(picture, [Layer(numbers, {9: RED}, 0.02)], 80) == 50).all()


def test_a_window_shows_its_part_without_a_line_where_it_cuts_an_object() -> None:
    numbers = np.zeros((40, 40), int)
    numbers[10:30, 10:30] = 1
    layers = [Layer(numbers, {1: RED}, 3 / 160)]
    part = draw_outlines(np.zeros((40, 40, 3), np.uint8), layers, 160, (slice(20, 40), slice(20, 40)))
    assert part.shape == (160, 160, 3)
    red = _is(part, RED)
    assert set(np.flatnonzero(red[30])) <= {77, 78, 79} and red[30].any()
    assert not red[:70, :70].any() and not red[90:].any()


@pytest.mark.parametrize("vision", DEFICIENT)
def test_the_five_colours_differ_for_every_kind_of_vision(vision: str) -> None:
    linear = (np.array(list(STATUS_COLOURS.values())) / 255) ** 2.2 @ np.array(DEFICIENT[vision]).T
    seen = rgb2lab(np.clip(linear, 0, 1) ** (1 / 2.2))
    assert min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(seen, 2)) > 14


def _case() -> ObjectCase:
    truth, predicted = np.zeros((30, 60), np.int32), np.zeros((30, 60), np.int32)
    truth[5:15, 5:15], truth[5:15, 40:50], predicted[5:15, 5:15], predicted[20:28, 20:28] = 1, 2, 1, 2
    outcome = Outcome(predicted, {1: "found", 2: "missed"}, {1: "found", 2: "false"}, 0.5)
    image, valid = np.full((30, 60, 3), 200, np.uint8), np.ones((30, 60), bool)
    return ObjectCase("a", "best", image, valid, truth, {1: True, 2: True}, {"unet": outcome})


def test_each_object_has_the_colour_of_its_status() -> None:
    columns = case_columns(_case(), 300, 300)
    assert list(columns) == ["image", "truth", "unet"] and (columns["image"] == 200).all()
    outlines = columns["truth"][columns["truth"].max(-1) > 140]
    assert len(outlines) and (outlines.max(-1) == outlines.min(-1)).all(), (
        "the truth has no colour of a status"
    )
    shown = columns["unet"]
    for status, (top, left) in {"found": (5, 5), "missed": (5, 40), "false": (20, 20)}.items():
        around = shown[5 * top : 5 * top + 50, 5 * left : 5 * left + 50]
        assert _is(around, STATUS_COLOURS[status]).any(), status
    counts = {"found": 1, "missed": 1, "false": 1, "merged": 0, "split": 0}
    assert _case().outcomes["unet"].counts({1: True, 2: True}) == counts
    assert _case().outcomes["unet"].counts({1: False, 2: True}) == counts | {"found": 0}


def test_a_prediction_without_a_true_object_is_false_also_if_it_joins_objects_or_is_a_part() -> None:
    predictions = {1: "found", 2: "false", 3: "merged", 4: "split", 5: "split"}
    outcome = Outcome(np.zeros((1, 1), np.int32), {1: "found", 2: "split", 3: ""}, predictions, 2 / 7)
    counts = outcome.counts({1: True, 2: True, 3: False})
    assert counts == {"found": 1, "missed": 0, "false": 4, "merged": 0, "split": 1}


@pytest.mark.parametrize("width", [150, 260, 346])
def test_lines_are_at_least_a_pixel_and_a_half_wide_as_shown(width: int) -> None:
    shown = case_columns(_case(), 480, width)["unet"]
    # across the left edge of the found object, which is 5 of 60 pixels from that of the picture
    inside = shown[80, 40:60, 1].astype(float)
    line = ((inside - inside[-1]) / (255 - inside[-1])).sum()
    assert line * width / shown.shape[1] >= 1.5


def test_the_detail_shows_faulty_objects() -> None:
    rows, cols = detail_of(_case())
    # the missed object is larger than the false one
    assert rows.start <= 5 and rows.stop >= 15 and cols.start <= 40 and cols.stop >= 50


def test_the_case_with_most_merges_is_shown_once() -> None:
    f1 = pd.Series({f"i{k}": k / 10 for k in range(6)})
    merged = pd.Series({"i5": 2, "i4": 2, "i2": 3, "gone": 99})
    assert pick_object_cases(f1, merged, 1) == [
        ("best", "i5"), ("typical", "i3"), ("worst", "i0"), ("most merges", "i2")
    ]  # fmt: skip
    assert pick_object_cases(f1, pd.Series({"i0": 9, "i2": 3}), 1) == [
        ("best", "i5"), ("typical", "i3"), ("worst and most merges", "i0")
    ]  # fmt: skip
    assert len(pick_object_cases(f1, merged * 0, 1)) == 3


def test_the_figure_has_a_legend_of_all_five(tmp_path: Path) -> None:
    figure = object_gallery_image(_case(), {"unet": "U-Net"})
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["found", "missed", "false", "merged with another", "split into parts"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Image", "Truth", "U-Net · F1 50.0%"]
    save_png(figure, tmp_path / "a.png")
