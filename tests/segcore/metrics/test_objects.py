"""Scores of objects on constructed images, against pycocotools, and against literal loops over masks."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segcore.errors import DataError
from segcore.metrics import class_metrics
from segcore.metrics.object_sums import ObjectRun
from segcore.metrics.scores import scores
from segcore.tables.objects import objects_table
from tests.support import object_tables
from tests.support.object_tables import Mask
from tests.support.scored_objects import (
    counts_of,
    fast_image,
    iou,
    literal_aji,
    literal_matches,
    random_masks,
    rectangle,
)

CLASSES = ["background", "building", "tree"]
Image = tuple[list[Mask], list[Mask]]


def scored(images: Sequence[Image], score: float = 0.0) -> dict[str, float]:
    """Scores of images by their true and predicted masks, named in their order."""
    names = [f"{index:03d}" for index in range(len(images))]
    tables = [fast_image(*masks, name) for masks, name in zip(images, names, strict=True)]
    counts = counts_of([(name, name) for name in names], CLASSES)
    return scores(counts, [1, 2], objects_table(tables), score)


def random_images(seed: int, number: int, crowds: bool = False) -> list[Image]:
    """Images with overlaps, several classes, empty images, and some without truth or without predictions."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(number):
        true = random_masks(rng, int(rng.choice([0, 0, 1, 3, 8])))
        # true objects that overlap each other, so that a prediction may have several partners
        true += random_masks(rng, int(rng.choice([0, 4])), true)
        if crowds:
            true = [replace(m, crowd=bool(rng.random() < 0.2)) for m in true]
        images.append((true, random_masks(rng, int(rng.choice([0, 1, 4, 12])), true)))
    return images


def example() -> list[Image]:
    """One image with two objects, one with a false prediction only, and one with nothing."""
    first, second = rectangle(0, 0, 10, 10), rectangle(15, 0, 10, 10)
    half, false = rectangle(15, 0, 5, 10), rectangle(0, 20, 8, 8)
    a = ([Mask(first), Mask(second)], [Mask(first, score=0.9), Mask(half, score=0.8), Mask(false, score=0.7)])
    return [a, ([], [Mask(false, score=0.95)]), ([], [])]


def test_the_constructed_example_has_its_known_values() -> None:
    result = scored(example())
    expected = {
        "ap/dataset": 0.294,
        "ap_50/dataset": 0.667,
        "ap_75/dataset": 0.253,
        "ap_coco/dataset": 0.294,
        "ap_dsb/image": 0.417,
        "f1_50/dataset": 0.333,
        "pq/dataset": 0.333,
        "sq/dataset": 1.0,
        "rq/dataset": 0.333,
        # the first image alone is .568, the second 0, the third 1
        "aji/image": (0.5682 + 0 + 1) / 3,
        "count_error/dataset": 1.0,
        "count_bias/dataset": 1.0,
        "false_objects/dataset": 0.5,
        "object_precision_50/dataset": 0.25,
        "object_recall_50/dataset": 0.5,
    }
    assert {key: result[f"{key}/building"] for key in expected} == pytest.approx(expected, abs=6e-4)
    without_b = scored(example()[::2])
    assert without_b["ap/dataset/building"] == pytest.approx(0.555, abs=6e-4)
    assert without_b["ap_50/dataset/building"] == 1


def _side(image: Image) -> int:
    return next((len(mask.pixels) for mask in [*image[0], *image[1]]), 32)


def coco_ap(images: Sequence[Image], most: int) -> dict[int, np.ndarray]:
    """Average precision of pycocotools by class, (10,) by threshold; classes without truth are left out."""
    annotations, detections = [], []
    for image, (true, predicted) in enumerate(images, 1):
        for mask in true:
            code = rle.encode(np.asfortranarray(mask.pixels.astype(np.uint8)))
            common = {"image_id": image, "category_id": mask.class_index, "segmentation": code}
            area = int(mask.pixels.sum())
            annotations.append(
                common | {"id": len(annotations) + 1, "iscrowd": int(mask.crowd), "area": area}
            )
        for mask in predicted:
            code = rle.encode(np.asfortranarray(mask.pixels.astype(np.uint8)))
            detections.append(
                {
                    "image_id": image,
                    "category_id": mask.class_index,
                    "segmentation": code,
                    "score": mask.score,
                }
            )
    truth = COCO()
    truth.dataset = {
        "images": [
            {"id": index, "height": side, "width": side}
            for index, side in enumerate((_side(image) for image in images), 1)
        ],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
        evaluation.params.maxDets = [1, 10, most]
        evaluation.evaluate()
        evaluation.accumulate()
    # (T, R, K, A, M)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {k + 1: precision[:, :, k].mean(1) for k in range(2) if precision[0, 0, k] > -1}


def dense(seed: int) -> Image:
    """An image with more than 100 objects of a class."""
    rng = np.random.default_rng(seed)
    places = [(row, col) for row in range(0, 60, 4) for col in range(0, 60, 4)]
    true = [Mask(rectangle(row, col, 3, 3, 60)) for row, col in places]
    predicted = [
        Mask(rectangle(row + int(rng.random() < 0.2), col, 3, 3, 60), 1, float(rng.random()))
        for row, col in places
    ]
    return true, predicted


@pytest.mark.parametrize("seed", [0, 1])
def test_average_precision_equals_pycocotools(seed: int) -> None:
    images = [*random_images(seed, 200, crowds=True), dense(seed), dense(seed + 5)]
    result = scored(images)
    for name, most in (("ap", 10_000), ("ap_coco", 100)):
        theirs = coco_ap(images, most)
        assert len(theirs) == 2
        for k, values in theirs.items():
            assert result[f"{name}/dataset/{CLASSES[k]}"] == pytest.approx(values.mean(), abs=1e-9)
            if name == "ap":
                assert result[f"ap_50/dataset/{CLASSES[k]}"] == pytest.approx(values[0], abs=1e-9)
                assert result[f"ap_75/dataset/{CLASSES[k]}"] == pytest.approx(values[5], abs=1e-9)
    assert result["ap/dataset/building"] > result["ap_coco/dataset/building"] + 0.01


def test_average_precision_of_each_image_equals_pycocotools_of_that_image_alone() -> None:
    images = [one for one in random_images(2, 30, crowds=True) if any(m.class_index == 1 for m in one[0])]
    values = []
    for image in images:
        theirs = coco_ap([image], 10_000) if image[1] else {1: np.zeros(10)}
        values.append(theirs[1].mean() if 1 in theirs else np.nan)
        if np.isnan(values[-1]):
            # only crowds of the class
            values[-1] = scored([image])["ap/dataset/building"]
    assert scored(images)["ap/image/building"] == pytest.approx(np.mean(values), abs=1e-9)


@pytest.mark.parametrize("percent", [50, 75, 95])
def test_counts_and_panoptic_quality_equal_literal_loops(percent: int) -> None:
    images, score = random_images(3, 60), 0.3
    result = scored(images, score)
    for k in (1, 2):
        tp = fp = fn = quality = gap = 0
        for true, predicted in images:
            true = [m for m in true if m.class_index == k]
            predicted = [m for m in predicted if m.class_index == k and m.score >= score]
            pairs = literal_matches(true, predicted, percent / 100)
            tp, fp, fn = tp + len(pairs), fp + len(predicted) - len(pairs), fn + len(true) - len(pairs)
            quality += sum(iou(true[t], predicted[p]) for t, p in pairs)
            gap += abs(len(predicted) - len(true))
        name = CLASSES[k]
        assert result[f"f1_{percent}/dataset/{name}"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert result[f"object_precision_{percent}/dataset/{name}"] == pytest.approx(tp / (tp + fp))
        assert result[f"object_recall_{percent}/dataset/{name}"] == pytest.approx(tp / (tp + fn))
        assert result[f"count_error/dataset/{name}"] == pytest.approx(gap / (tp + fn))
        assert result[f"count_bias/dataset/{name}"] == pytest.approx((fp - fn) / (tp + fn))
        if percent == 50:
            assert result[f"pq/dataset/{name}"] == pytest.approx(quality / (tp + (fp + fn) / 2))
            assert result[f"sq/dataset/{name}"] == pytest.approx(quality / tp)
            assert result[f"rq/dataset/{name}"] == result[f"f1_50/dataset/{name}"]


def test_the_aggregated_jaccard_index_equals_the_loop_of_its_paper() -> None:
    images = random_images(4, 60)
    result = scored(images)
    for k in (1, 2):
        sums = np.array(
            [
                literal_aji(
                    [m for m in true if m.class_index == k], [m for m in predicted if m.class_index == k]
                )
                for true, predicted in images
            ]
        )
        pooled, each = sums.sum(0), np.where(sums[:, 1] > 0, sums[:, 0] / np.maximum(sums[:, 1], 1), 1.0)
        assert result[f"aji/dataset/{CLASSES[k]}"] == pytest.approx(pooled[0] / pooled[1])
        assert result[f"aji/image/{CLASSES[k]}"] == pytest.approx(each.mean())


@pytest.mark.parametrize("number", [0, 1, 150, 3000])
def test_predictions_that_are_the_truth_are_perfect_in_every_metric(number: int) -> None:
    side = 4 * int(np.ceil(np.sqrt(max(number, 1)))) + 4
    numbers = np.zeros((side, side), np.uint32)
    for index in range(number):
        row, col = divmod(index, side // 4 - 1)
        numbers[4 * row + 1 : 4 * row + 4, 4 * col + 1 : 4 * col + 3 + index % 2] = index + 1
    areas = np.bincount(numbers.ravel(), minlength=number + 1)[1:]
    places = np.arange(1, number + 1)
    rows = {"class_index": 1, "area": areas, "area_full": areas}
    tables = [
        pd.DataFrame({"kind": ["image"], "pixels": [side**2]}),
        pd.DataFrame({"kind": "truth", "truth": places, **rows}),
        pd.DataFrame({"kind": "prediction", "prediction": places, "score": 0.9, **rows}),
        pd.DataFrame({"kind": "pair", "truth": places, "prediction": places, "intersection": areas}).assign(
            boundary_truth=8, boundary_prediction=8, boundary_truth_matched=8, boundary_prediction_matched=8
        ),
    ]
    table = objects_table([one.assign(item="a", cluster="a") for one in tables])
    result = scores(counts_of([("a", "a")], CLASSES), [1, 2], table)
    for name, metric in class_metrics("objects").items():
        for aggregate in ("dataset", "image"):
            for target in ("building", "tree", "foreground_mean"):
                perfect = 1.0 if metric.higher_is_better else 0.0
                if name == "ap_coco" and number > 100 and target != "tree":
                    # its limit of 100 detections, which makes the other metric necessary
                    perfect = pytest.approx({150: 0.6634, 3000: 0.0396}[number], abs=1e-4)
                    perfect = perfect if target == "building" else None
                if perfect is not None:
                    assert result[f"{name}/{aggregate}/{target}"] == perfect, (name, aggregate, target)


def test_a_prediction_on_an_empty_image_is_worse_in_every_metric_that_it_concerns() -> None:
    mask = Mask(rectangle(2, 2, 6, 6), score=0.5)
    false = Mask(rectangle(20, 20, 5, 5), score=0.9)
    clean, spoilt = scored([([mask], [mask]), ([], [])]), scored([([mask], [mask]), ([], [false])])
    # of the objects that are found, or of the true ones
    untouched = ("sq", "object_recall_", "recall_", "object_boundary_f1", "merged", "split")
    for name, metric in class_metrics("objects").items():
        for aggregate in ("dataset", "image"):
            key = f"{name}/{aggregate}/building"
            gain = metric.sign * (metric.compared(spoilt[key]) - metric.compared(clean[key]))
            is_left_out = aggregate == "image" and metric.images.startswith("true")
            if is_left_out or (aggregate == "dataset" and name.startswith(untouched)):
                assert gain == 0, key
            else:
                assert gain < 0, key


def test_images_without_such_true_objects_are_left_out_of_means_of_images() -> None:
    large, small = Mask(rectangle(0, 0, 8, 8)), Mask(rectangle(20, 20, 2, 2))
    false = [Mask(rectangle(10, 4 * n, 3, 3)) for n in range(5)]
    # two true objects and one prediction, one true object and two predictions, none and five
    images = [([large, small], [large]), ([large], [large, false[0]]), ([], false)]
    result = scored(images)
    expected = {"count_error": (0.5 + 1) / 2, "count_bias": (-0.5 + 1) / 2, "merged": 0, "false_objects": 5}
    expected |= {"recall_small": 0, "recall_medium": 1}
    assert {name: result[f"{name}/image/building"] for name in expected} == pytest.approx(expected)
    assert result["count_bias/dataset/building"] == pytest.approx((8 - 3) / 3)
    # without such images, the score is that of all images together
    assert result["recall_large/image/building"] == result["recall_large/dataset/building"] == 1
    nothing = scored([([], false), ([], [])])
    assert nothing["count_error/image/building"] == nothing["count_error/dataset/building"] == 5


def test_errors_of_classes_of_opposite_sign_do_not_cancel() -> None:
    masks = [[Mask(rectangle(4 * n, 16 * k, 3, 3), k + 1) for n in range(4)] for k in range(2)]
    result = scored([([*masks[0], masks[1][0]], [masks[0][0], *masks[1]])])
    for aggregate in ("dataset", "image"):
        bias = {name: result[f"count_bias/{aggregate}/{name}"] for name in ("building", "tree")}
        assert bias == {"building": -0.75, "tree": 3}
        assert result[f"count_bias/{aggregate}/foreground_mean"] == 1.875
    # with one class it has a sign
    one = object_tables.image(masks[0], masks[0][:1], (32, 32))
    of_one = scores(counts_of([("a", "a")], CLASSES), [1], one)
    assert of_one["count_bias/dataset/foreground_mean"] == -0.75 == of_one["count_bias/image/building"]


def test_a_class_without_truth_that_is_predicted_scores_zero() -> None:
    mask, tree = Mask(rectangle(2, 2, 6, 6)), Mask(rectangle(20, 20, 5, 5), 2)
    result = scored([([mask], [mask, tree])])
    for name, metric in class_metrics("objects").items():
        if metric.higher_is_better:
            assert result[f"{name}/dataset/tree"] == 0, name
            assert result[f"{name}/dataset/building"] == 1, name
            assert result[f"{name}/dataset/foreground_mean"] == 0.5, name


def test_the_order_and_numbers_of_objects_change_nothing() -> None:
    images, rng = random_images(5, 40, crowds=True), np.random.default_rng(0)
    mixed = [
        (
            [true[i] for i in rng.permutation(len(true))],
            [predicted[i] for i in rng.permutation(len(predicted))],
        )
        for true, predicted in images
    ]
    assert scored(mixed) == pytest.approx(scored(images), abs=1e-12)


def test_objects_that_are_out_or_ignored_count_neither_as_right_nor_as_wrong() -> None:
    kept, gone = Mask(rectangle(2, 2, 6, 6)), rectangle(20, 20, 6, 6)
    half_seen = replace(Mask(gone), area_full=100)
    scored_pixels = np.ones((32, 32), bool)
    alone = object_tables.image([kept], [kept], (32, 32))
    expected = scores(counts_of([("a", "a")], CLASSES), [1], alone)
    required = class_metrics("objects").keys() - {"count_error_area"}
    # a truth that is not required: missed, and found; a prediction mostly under ignored pixels; one in a crowd
    scored_pixels[20:24] = False
    crowd = replace(Mask(rectangle(14, 14, 18, 18)), crowd=True)
    cases = [
        object_tables.image([kept, half_seen], [kept], (32, 32)),
        object_tables.image([kept, half_seen], [kept, Mask(gone)], (32, 32)),
        object_tables.image([kept], [kept, Mask(gone)], (32, 32), scored=scored_pixels),
        object_tables.image([kept, crowd], [kept, Mask(gone), Mask(rectangle(15, 15, 4, 4))], (32, 32)),
    ]
    for table in cases:
        result = scores(counts_of([("a", "a")], CLASSES), [1], table)
        for name in required:
            for aggregate in ("dataset", "image"):
                key = f"{name}/{aggregate}/building"
                assert result[key] == expected[key], key


def test_a_score_equal_to_the_operating_score_counts_as_it_does_where_objects_are_found() -> None:
    for score in (0.05 * step for step in range(1, 20)):
        score = round(score, 2)
        pixels = rectangle(1, 1, 4, 4)
        objects = object_tables.as_objects([Mask(pixels, 1, score)], pixels.shape)
        table = object_tables.image([Mask(pixels)], [Mask(pixels, 1, score)], pixels.shape)
        found = objects.select(objects.scores >= score)
        run = ObjectRun(table, ["a"], 2, score)
        assert run["tp_50"].sum() == len(found) == 1
        assert ObjectRun(table, ["a"], 2, score + 1e-6)["tp_50"].sum() == 0


def test_only_predictions_of_at_least_the_operating_score_count_except_in_average_precision() -> None:
    mask, false = Mask(rectangle(2, 2, 6, 6), score=0.9), Mask(rectangle(20, 20, 5, 5), score=0.4)
    low, high = scored([([mask], [mask, false])], 0.4), scored([([mask], [mask, false])], 0.41)
    assert low["object_precision_50/dataset/building"] == 0.5
    assert high["object_precision_50/dataset/building"] == 1
    ahead = Mask(false.pixels, score=0.95)
    assert scored([([mask], [mask, ahead])], 0.99)["ap_50/dataset/building"] == 0.5


def test_merged_and_split_objects() -> None:
    left, right = Mask(rectangle(2, 2, 6, 6)), Mask(rectangle(2, 8, 6, 6))
    both = Mask(rectangle(2, 2, 6, 12))
    result = scored([([left, right], [both]), ([both], [left, right])])
    assert result["merged/dataset/building"] == pytest.approx(2 / 3)
    assert result["split/dataset/building"] == pytest.approx(1 / 3)
    assert result["f1_50/dataset/building"] == 0
    # more than half of only one of two
    result = scored([([left, right], [Mask(rectangle(2, 2, 6, 8))])])
    assert result["merged/dataset/building"] == 0


def test_recall_by_size_is_of_thirds_of_the_true_objects() -> None:
    places = [Mask(rectangle(0, 4 * index, 2 + index, 3)) for index in range(6)]
    result = scored([(places, places[2:])])
    assert [result[f"recall_{size}/dataset/building"] for size in ("small", "medium", "large")] == [0, 1, 1]


def test_boundaries_of_found_objects_are_pooled() -> None:
    true, near = Mask(rectangle(5, 5, 10, 10)), Mask(rectangle(5, 6, 10, 10))
    for tolerance in (0, 1):
        table = object_tables.image([true], [near], (32, 32), tolerance=tolerance)
        result = scores(counts_of([("a", "a")], CLASSES), [1], table)["object_boundary_f1/dataset/building"]
        assert result == 1 if tolerance else 0.4 < result < 0.7
    missed = object_tables.image([true], [], (32, 32))
    assert scores(counts_of([("a", "a")], CLASSES), [1], missed)["object_boundary_f1/dataset/building"] == 0


def test_a_damaged_object_table_is_refused() -> None:
    counts = counts_of([("a", "a")], CLASSES)
    table = fast_image([Mask(rectangle(2, 2, 6, 6))], [Mask(rectangle(2, 2, 6, 6))], "a")
    for damaged, words in (
        (table[table["kind"] != "image"], "images are missing"),
        (table[table["kind"] != "truth"], "pairs of objects that it does not have"),
        (pd.concat([table, table[table["kind"] == "truth"]]), "twice in the object table"),
        (table.assign(class_index=7), "classes beyond"),
    ):
        with pytest.raises(DataError, match=words):
            scores(counts, [1], damaged)
