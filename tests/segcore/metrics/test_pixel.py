"""Metrics on small maps, and against torchmetrics as an independent reference."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.constants import IGNORE
from segcore.errors import DataError
from segcore.inference.calibration import Calibration
from segcore.metrics import EMPTY_RATE, METRICS, class_metrics, pixel
from segcore.metrics.scores import scores
from segcore.tables.counts import COUNTS, confusion, count, counts_table, require_all

CLASSES = ["background", "building", "water"]
FOREGROUND = [1, 2]


def table(
    predictions: list[np.ndarray], labels: list[np.ndarray], classes: list[str] = CLASSES
) -> pd.DataFrame:
    images = (
        (f"image-{i}", f"cluster-{i}", count(prediction, label, len(classes)))
        for i, (prediction, label) in enumerate(zip(predictions, labels, strict=True))
    )
    return counts_table(images, classes)


def four_images() -> list[np.ndarray]:
    """4 images, 3 classes: class 2 absent everywhere, the last image without foreground."""
    labels = [np.zeros((20, 20), dtype=np.uint8) for _ in range(4)]
    for i, label in enumerate(labels[:3]):
        label[2 : 8 + i, 3:12] = 1
    return labels


def random_pair(
    seed: int, shape: tuple[int, int] = (12, 17), ignored: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.5, label, rng.integers(0, 3, shape)).astype(np.uint8)
    label[rng.random(shape) < ignored] = IGNORE
    return prediction, label


def test_perfect_prediction_scores_one_with_absent_classes() -> None:
    labels = four_images()
    labels[0][:, 15:] = IGNORE
    for key, score in scores(table(labels, labels), FOREGROUND).items():
        assert score == (0.0 if key == EMPTY_RATE else 1.0), key


def test_perfect_prediction_scores_one_without_any_foreground() -> None:
    empty = [np.zeros((5, 5), dtype=np.uint8)] * 2
    result = scores(table(empty, empty), FOREGROUND)
    assert result.pop(EMPTY_RATE) == 0.0
    assert set(result.values()) == {1.0}


def test_hallucination_on_empty_image_lowers_scores_and_has_its_own_rate() -> None:
    labels = four_images()
    predictions = [label.copy() for label in labels]
    predictions[3][4:9, 4:9] = 1
    result = scores(table(predictions, labels), FOREGROUND)
    for metric in class_metrics("counts"):
        for aggregate in ("dataset", "image"):
            if (metric, aggregate) != ("recall", "dataset"):  # pooled recall ignores false positives
                assert result[f"{metric}/{aggregate}/building"] < 1, (metric, aggregate)
    assert result["iou/image/building"] == 0.75
    assert result[EMPTY_RATE] == 1.0
    assert EMPTY_RATE not in scores(table(predictions[:3], labels[:3]), FOREGROUND)


def test_hallucination_of_an_absent_class_lowers_scores() -> None:
    labels = four_images()
    predictions = [label.copy() for label in labels]
    predictions[0][:3, :3] = 2
    result = scores(table(predictions, labels), FOREGROUND)
    for metric in class_metrics("counts"):
        assert result[f"{metric}/dataset/water"] == 0 and result[f"{metric}/image/water"] == 0.75


def test_both_empty_has_one_policy_for_every_metric() -> None:
    nothing = {name: np.zeros(1, dtype=np.int64) for name in COUNTS}
    pixel_metrics = {name: metric for name, metric in METRICS.items() if metric.tables == ("counts",)}
    assert {name: metric.function(nothing).item() for name, metric in pixel_metrics.items()} == dict.fromkeys(
        pixel_metrics, 1.0
    )
    missed = nothing | {"fn": np.array([9]), "boundary_true": np.array([8])}
    invented = nothing | {"fp": np.array([9]), "boundary_predicted": np.array([8])}
    covered = nothing | {"fp": np.array([9])}  # the whole image, without a boundary
    for counts in (missed, invented, covered):
        assert all(metric.function(counts).item() == 0 for metric in class_metrics("counts").values())


def test_foreground_and_all_class_means_are_both_reported() -> None:
    pairs = [random_pair(seed) for seed in range(3)]
    result = scores(table(*map(list, zip(*pairs, strict=True))), FOREGROUND)
    for metric in class_metrics("counts"):
        for aggregate in ("dataset", "image"):
            by_class = [result[f"{metric}/{aggregate}/{name}"] for name in CLASSES]
            assert result[f"{metric}/{aggregate}/foreground_mean"] == pytest.approx(np.mean(by_class[1:]))
            assert result[f"{metric}/{aggregate}/all_mean"] == pytest.approx(np.mean(by_class))


def test_dataset_pools_pixels_and_image_averages_images() -> None:
    large, small = np.zeros((2, 30, 30), dtype=np.uint8)
    large[:20, :20], small[:2, :2] = 1, 1
    result = scores(table([large, small * 0], [large, small]), [1])
    assert result["iou/dataset/building"] == 400 / 404
    assert result["iou/image/building"] == 0.5
    assert result["pixel_accuracy/dataset"] == 1796 / 1800
    assert all(key.split("/")[1] in ("dataset", "image") for key in result if key != EMPTY_RATE)


def test_scores_do_not_depend_on_the_order_of_images_or_tiles() -> None:
    pairs = [random_pair(seed) for seed in range(7)]
    rows = table(*map(list, zip(*pairs, strict=True)))
    expected = scores(rows, FOREGROUND)
    for seed in range(5):
        assert scores(rows.sample(frac=1, random_state=seed), FOREGROUND) == expected
    prediction, label = pairs[0]
    tiles = [confusion(prediction[:, a:b], label[:, a:b], 3) for a, b in ((0, 5), (5, 6), (6, 17))]
    assert np.array_equal(sum(tiles), confusion(prediction, label, 3))


def test_item_counted_twice_is_refused() -> None:
    rows = table([np.zeros((3, 3), dtype=np.uint8)] * 2, [np.zeros((3, 3), dtype=np.uint8)] * 2)
    padded = pd.concat([rows, rows[rows["item"] == "image-1"]])
    with pytest.raises(DataError, match="counted twice: image-1"):
        require_all(padded, ["image-0", "image-1"])
    with pytest.raises(DataError, match="one row per image and class"):
        scores(padded, FOREGROUND)


def test_missing_prediction_is_an_error() -> None:
    rows = table([np.zeros((3, 3), dtype=np.uint8)], [np.zeros((3, 3), dtype=np.uint8)])
    require_all(rows, ["image-0"])
    with pytest.raises(DataError, match="1 of 2 images have no prediction: image-7"):
        require_all(rows, ["image-0", "image-7"])
    with pytest.raises(DataError, match="do not belong to the scored set"):
        require_all(rows, [])
    with pytest.raises(DataError, match="one row per image and class"):
        scores(rows.iloc[1:], FOREGROUND)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_ignored_pixels_change_no_score(seed: int) -> None:
    prediction, label = random_pair(seed)
    other = np.where(label == IGNORE, np.random.default_rng(seed).integers(0, 256, label.shape), prediction)
    pd.testing.assert_frame_equal(count(prediction, label, 3), count(other.astype(np.uint8), label, 3))


def test_image_of_nodata_changes_no_score() -> None:
    prediction, label = random_pair(0)
    nothing = np.full_like(label, IGNORE)
    assert scores(table([prediction, prediction], [label, nothing]), FOREGROUND) == scores(
        table([prediction], [label]), FOREGROUND
    )
    with pytest.raises(DataError, match="no valid pixel"):
        scores(table([nothing], [nothing]), FOREGROUND)


def test_prediction_at_another_resolution_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 2\).*\(4, 4\)"):
        count(np.zeros((2, 2), dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8), 2)


def test_hand_example_of_dice_holds() -> None:
    prediction, label = (
        np.array([[1, 0, 0, 1, 0, 0]], dtype=np.uint8),
        np.array([[1, 0, 1, 1, 0, 0]], dtype=np.uint8),
    )
    counts = count(prediction, label, 2).to_dict("list")
    counts = {name: np.array(values) for name, values in counts.items()}
    assert (counts["tp"][1], counts["fp"][1], counts["fn"][1]) == (2, 0, 1)
    assert pixel.dice(counts)[1] == 0.8
    assert pixel.iou(counts)[1] == pytest.approx(2 / 3)


def test_value_that_is_not_a_class_is_refused() -> None:
    label = np.zeros((2, 2), dtype=np.uint8)
    with pytest.raises(DataError, match="label has values 0 to 7"):
        count(label, np.array([[0, 7], [0, 0]], dtype=np.uint8), 2)
    with pytest.raises(DataError, match="prediction has values 0 to 255"):
        count(np.array([[0, 255], [0, 0]], dtype=np.uint8), label, 2)


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_scores_equal_torchmetrics(seed: int) -> None:
    # imported here, because it takes seconds
    import torchmetrics.classification as tm

    pairs = [random_pair(seed + i) for i in range(2)]
    rows = table(*map(list, zip(*pairs, strict=True)))
    ours = scores(rows, FOREGROUND)
    predicted, label = (
        torch.from_numpy(np.stack(maps).astype(np.int64)) for maps in zip(*pairs, strict=True)
    )
    common = {"num_classes": 3, "ignore_index": IGNORE, "average": "none"}
    for name, metric in {
        "iou": tm.MulticlassJaccardIndex(**common),
        "dice": tm.MulticlassF1Score(**common),
        "precision": tm.MulticlassPrecision(**common),
        "recall": tm.MulticlassRecall(**common),
    }.items():
        theirs = metric(predicted, label)
        assert [ours[f"{name}/dataset/{c}"] for c in CLASSES] == pytest.approx(theirs.tolist(), abs=1e-6)
    accuracy = tm.MulticlassAccuracy(num_classes=3, ignore_index=IGNORE, average="micro")
    assert ours["pixel_accuracy/dataset"] == pytest.approx(accuracy(predicted, label).item(), abs=1e-6)
    matrix = tm.MulticlassConfusionMatrix(num_classes=3, ignore_index=IGNORE)(predicted, label)
    assert np.array_equal(matrix.numpy(), sum(confusion(p, t, 3) for p, t in pairs))


def square(row: int, column: int, size: int = 8) -> np.ndarray:
    mask = np.zeros((30, 30), dtype=np.uint8)
    mask[row : row + size, column : column + size] = 1
    return mask


@pytest.mark.parametrize(("shift", "tolerance", "expected"), [(2, 2, 1.0), (3, 3, 1.0), (1, 0, 14 / 28)])
def test_boundary_f1_forgives_shifts_up_to_the_tolerance(shift: int, tolerance: int, expected: float) -> None:
    counts = count(square(5, 5 + shift), square(5, 5), 2, boundary_tolerance=tolerance)
    assert counts.loc[1, "boundary_true"] == 28  # the outline of an 8 x 8 square
    assert pixel.boundary_f1({name: counts[name].to_numpy() for name in counts})[1] == pytest.approx(expected)


@given(seed=st.integers(0, 2**31), tolerance=st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_boundary_matches_equal_a_search_over_all_pairs(seed: int, tolerance: int) -> None:
    prediction, label = random_pair(seed, (9, 11))
    counts = count(prediction, label, 3, boundary_tolerance=tolerance)

    def outline(image: np.ndarray, index: int) -> np.ndarray:
        pixels = []
        for row, column in np.argwhere((image == index) & (label != IGNORE)):
            for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
                if inside and label[y, x] != IGNORE and image[y, x] != index:
                    pixels.append((row, column))
                    break
        return np.array(pixels).reshape(-1, 2)

    for index in range(3):
        predicted, true = outline(prediction, index), outline(label, index)
        near = ((predicted[:, None] - true[None]) ** 2).sum(-1) <= tolerance**2
        row = counts.loc[index]
        assert (row["boundary_predicted"], row["boundary_true"]) == (len(predicted), len(true))
        assert row["boundary_predicted_matched"] == near.any(1).sum()
        assert row["boundary_true_matched"] == near.any(0).sum()


def test_borders_of_image_and_nodata_are_not_boundaries() -> None:
    label = np.ones((6, 6), dtype=np.uint8)
    label[:, 3:] = IGNORE
    counts = count(np.ones((6, 6), dtype=np.uint8), label, 2)
    assert counts.loc[1, ["boundary_predicted", "boundary_true", "pixels", "ignored"]].tolist() == [
        0,
        0,
        18,
        18,
    ]


def test_calibration_updated_by_tile_equals_torchmetrics() -> None:
    import torchmetrics.classification as tm

    _, label = random_pair(4, (40, 50))
    logits = torch.randn(3, 40, 50, generator=torch.Generator().manual_seed(0)) * 2
    probabilities = logits.softmax(0).numpy()
    calibration = Calibration()
    for columns in (slice(0, 20), slice(20, 50)):
        calibration.update(probabilities[:, :, columns], label[:, columns])
    result = calibration.result()
    theirs = tm.MulticlassCalibrationError(3, n_bins=15, ignore_index=IGNORE)
    expected = theirs(torch.from_numpy(probabilities)[None], torch.from_numpy(label.astype(np.int64))[None])
    assert result["ece"] == pytest.approx(expected.item(), abs=1e-5)
    assert sum(result["count"]) == (label != IGNORE).sum()
    assert len(result["confidence"]) == len(result["accuracy"]) == 15


def test_calibration_of_nothing_but_ignored_pixels_is_finite() -> None:
    calibration = Calibration()
    calibration.update(np.full((2, 3, 3), 0.5), np.full((3, 3), IGNORE, dtype=np.uint8))
    assert calibration.result()["ece"] == 0 and np.isfinite(calibration.result()["accuracy"]).all()
