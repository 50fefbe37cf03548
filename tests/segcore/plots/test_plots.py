"""Selection and colours of the gallery, and charts that follow the page's theme."""

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segcore.constants import IGNORE
from segcore.plots import charts, gallery, style
from segcore.plots.calibration import calibration_curves
from segcore.plots.gallery import (
    FALSE_ALARM,
    HIT,
    MISS,
    OVERLOOKED,
    WRONG_CLASS,
    detail_window,
    error_map,
    pixel_iou,
)
from segcore.plots.palette import DARK, PAPER, colours
from segcore.plots.pictures import LEFT_OUT, data_uri, to_rgb
from segcore.plots.style import drawable


def _counts(table: dict[str, tuple[int, int, int]]) -> pd.DataFrame:
    rows = [(item, index, *values) for item, values in table.items() for index in (0, 1)]
    return pd.DataFrame(rows, columns=["item", "class_index", "tp", "fp", "fn"])


def test_image_iou_leaves_out_images_without_foreground() -> None:
    iou = gallery.image_iou(_counts({"a": (2, 1, 1), "empty": (0, 5, 0), "b": (0, 0, 4)}), foreground=[1])
    assert dict(iou) == {"a": 0.5, "b": 0.0}


def test_pick_cases_orders_best_typical_worst_and_repeats_none() -> None:
    scores = pd.Series({f"i{k}": k / 10 for k in range(9)})
    cases = gallery.pick_cases(scores, each=2)
    assert cases[:2] == [("best", "i8"), ("best", "i7")]
    assert cases[-2:] == [("worst", "i1"), ("worst", "i0")]
    assert [kind for kind, _ in cases[2:4]] == ["typical", "typical"]
    assert {item for _, item in cases[2:4]} <= {"i3", "i4", "i5"}
    assert len({item for _, item in cases}) == 6


@pytest.mark.parametrize("images", [0, 1, 2, 3])
def test_pick_cases_of_few_images(images: int) -> None:
    cases = gallery.pick_cases(pd.Series(np.arange(images, dtype=float), [f"i{k}" for k in range(images)]))
    assert len(cases) == images == len({item for _, item in cases})


def test_error_map_colours_each_kind_of_pixel() -> None:
    truth = np.array([[1, 0, 1, 0, IGNORE, 1]], np.uint8)
    prediction = np.array([[1, 1, 0, 0, 1, 1]], np.uint8)
    valid = np.array([[True, True, True, True, True, False]])
    shown = error_map(np.zeros((1, 6, 3), np.uint8), truth, prediction, valid, foreground=[1])
    assert [tuple(p) for p in shown[0, [0, 1, 2, 4, 5]]] == [HIT, FALSE_ALARM, MISS, LEFT_OUT, LEFT_OUT]
    assert len(set(shown[0, 3])) == 1  # background is left grey


def test_error_map_of_several_classes_marks_confusion() -> None:
    truth, prediction = np.array([[1, 2, 2]], np.uint8), np.array([[2, 2, 0]], np.uint8)
    shown = error_map(np.zeros((1, 3, 3), np.uint8), truth, prediction, np.ones((1, 3), bool), [1, 2])
    assert tuple(shown[0, 0]) == WRONG_CLASS
    assert len(set(shown[0, 1])) == 1
    assert tuple(shown[0, 2]) == OVERLOOKED


def test_pixel_iou_equals_the_evaluation_tables() -> None:
    truth, other = np.array([[1, 1, 0, IGNORE]], np.uint8), np.array([[1, 0, 1, 1]], np.uint8)
    valid = np.ones((1, 4), bool)
    assert pixel_iou(truth, other, valid, [1]) == gallery.image_iou(_counts({"a": (1, 1, 1)}), [1])["a"]
    assert pixel_iou(truth * 0, other * 0, valid, [1]) == 1.0


def test_to_rgb_stretches_high_dynamic_range_over_valid_pixels_only() -> None:
    image = np.linspace(1000, 3000, 400, dtype=np.float32).reshape(20, 20, 1)
    image[0, 0] = np.nan
    valid = np.ones((20, 20), bool)
    valid[0, 0] = False
    shown = to_rgb(image, valid)
    assert shown.dtype == np.uint8 and shown.shape == (20, 20, 3)
    assert shown[-1, -1, 0] == 255 and shown[0, 1, 0] == 0
    assert tuple(shown[0, 0]) == LEFT_OUT


def test_detail_window_contains_the_errors() -> None:
    truth = np.zeros((40, 60), np.uint8)
    prediction = truth.copy()
    prediction[30:36, 50:56] = 1
    case = gallery.Case(
        "a", "worst", np.zeros((40, 60, 3), np.uint8), truth, truth == 0, {"fcn": prediction}, {"fcn": 0.0}
    )
    rows, columns = detail_window(case)
    assert rows.start <= 30 and rows.stop >= 36 and columns.start <= 50 and columns.stop >= 56


def test_gallery_image_has_a_panel_for_image_truth_and_each_architecture() -> None:
    truth = np.eye(8, dtype=np.uint8)
    case = gallery.Case(
        "a",
        "best",
        np.zeros((8, 8, 3), np.uint8),
        truth,
        truth < 2,
        {"fcn": truth, "unet": truth},
        {"fcn": 1.0, "unet": 1.0},
    )
    figure = gallery.gallery_image(case, [[0, 0, 0], [255, 0, 0]], [1], {"fcn": "FCN-8s"})
    assert len(figure.axes) == 4
    assert figure.axes[2].get_title(loc="left").startswith("FCN-8s · IoU 100")


def test_colours_are_stable_and_distinct() -> None:
    palette = colours(["unet", "segformer", "swin"])
    assert palette["unet"] == colours(["unet"])["unet"]
    assert len(set(palette.values())) == len(palette)
    assert set(palette.values()) <= set(DARK)


def _confusion() -> dict[str, pd.DataFrame]:
    names = ["background", "building"]
    return {"unet": pd.DataFrame([[90, 10], [0, 0]], index=names, columns=names)}


def test_svg_follows_the_theme_and_is_deterministic() -> None:
    drawn = [
        style.svg(charts.confusion_matrices(_confusion(), {"unet": "U-Net"}), "confusion") for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert "90.0" in drawn[0] and "U-Net" in drawn[0]  # text is not drawn as paths
    assert not [colour for colour in DARK if re.search(colour, drawn[0], re.IGNORECASE)]
    assert "metadata" not in drawn[0]
    ids = re.findall(r'\bid="([^"]+)"', drawn[0])
    assert ids and all(i.startswith("confusion-") for i in ids)
    assert set(re.findall(r"url\(#([^)]+)\)", drawn[0])) <= set(ids)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_row_of_few_panels_has_no_empty_ones(count: int) -> None:
    names = [f"n{number}" for number in range(count)]
    figure = charts.confusion_matrices({name: _confusion()["unet"] for name in names}, {})
    assert len(figure.axes) == count and all(axes.axison for axes in figure.axes)
    assert figure.get_figwidth() == pytest.approx(10.4 * min(3, count) / 3)


def test_save_png_draws_on_paper(tmp_path) -> None:
    table = {"confidence": [0.6, 0.9], "accuracy": [0.5, 0.9], "count": [0, 10], "ece": 0.02}
    style.save_png(calibration_curves({"unet": table}, {}), tmp_path / "c.png")
    corner = Image.open(tmp_path / "c.png").convert("RGB").getpixel((0, 0))
    assert "#{:02x}{:02x}{:02x}".format(*corner) == PAPER


def test_data_uri_shrinks_and_keeps_thin_colours() -> None:
    picture = np.zeros((300, 200, 3), np.uint8)
    picture[:, 100] = FALSE_ALARM
    assert data_uri(picture, 64).startswith("data:image/jpeg;base64,")
    assert data_uri(np.zeros((4, 4, 4), np.uint8)).startswith("data:image/png;base64,")
    assert len(data_uri(picture, 32)) < len(data_uri(picture, 256))
    assert json.dumps(data_uri(picture))


def test_data_uri_of_noise_that_jpeg_cannot_compress() -> None:
    noise = np.random.default_rng(0).choice([0, 255], (254, 254, 3)).astype(np.uint8)
    assert len(data_uri(noise, 480)) > 254 * 254


NAMES = ["背景", "水体", "лес", "غابة", "$a_{$ b"]


def test_names_of_any_script_are_kept_on_the_page_and_drawn_or_transliterated_in_pictures(
    tmp_path: Path,
) -> None:
    table = pd.DataFrame(np.eye(5), index=NAMES, columns=NAMES)
    with warnings.catch_warnings():
        # matplotlib warns of glyphs that its font lacks
        warnings.simplefilter("error")
        page = style.svg(charts.confusion_matrices({"unet": table}, {"unet": "U-Net"}), "c")
        figure = charts.confusion_matrices({"unet": table}, {"unet": "U-Net"})
        style.save_png(figure, tmp_path / "c.png")
    assert all(name in page for name in NAMES)
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert drawn == ["BeiJing", "ShuiTi", "лес", "ghbh", "$a_{$ b"]
    assert drawable("cafe\u0301 水体 dry") == "café ShuiTi dry"
