import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.constants import IGNORE
from segcore.objects import pairs as module
from segcore.objects.found import Objects, from_numbers
from segcore.objects.pairs import Pairs, pairs
from segcore.tables.objects import objects_table
from tests.support.object_tables import Mask, as_objects, image, label_of, masks


def index_of(
    numbers: np.ndarray, classes: dict[int, int] | None = None, full: dict[int, int] | None = None
) -> pd.DataFrame:
    """Index of the objects of a number map, by default all of class 1 and complete in it."""
    classes, full = classes or {}, full or {}
    ids, areas = np.unique(numbers[numbers > 0], return_counts=True)
    rows = [(i, classes.get(i, 1), full.get(i, n)) for i, n in zip(ids.tolist(), areas.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=["id", "class_index", "area"])


def as_table(result: Pairs) -> pd.DataFrame:
    kinds = {"truth": result.truths, "prediction": result.predictions, "pair": result.pairs}
    rows = [frame.assign(kind=kind) for kind, frame in kinds.items()]
    return objects_table([frame.assign(item="a", cluster="a") for frame in rows])


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    by = ["kind", "truth", "prediction"]
    pd.testing.assert_frame_equal(
        left.sort_values(by, ignore_index=True), right.sort_values(by, ignore_index=True)
    )


@st.composite
def regions(draw: st.DrawFn) -> dict[str, object]:
    """Random small regions: true number map with gaps, overlapping predictions, ignored pixels, full areas."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def rectangle() -> tuple[slice, slice]:
        r, c = rng.integers(0, height), rng.integers(0, width)
        return slice(r, r + rng.integers(1, 6)), slice(c, c + rng.integers(1, 6))

    numbers = np.zeros((height, width), np.uint32)
    for _ in range(draw(st.integers(0, 6))):
        numbers[rectangle()] = rng.choice([1, 2, 3, 70_000, 2**32 - 1])
    predicted = []
    for _ in range(draw(st.integers(0, 6))):
        pixels = np.zeros((height, width), bool)
        pixels[rectangle()] = True
        pixels[rectangle()] ^= rng.random() < 0.3
        predicted.append(Mask(pixels, int(rng.integers(1, 3)), float(rng.choice([0.25, 0.5, 0.75]))))
    ids = [int(i) for i in np.unique(numbers) if i]
    return {
        "numbers": numbers,
        "predicted": [m for m in predicted if m.pixels.any()],
        "scored": rng.random((height, width)) >= draw(st.sampled_from([0, 0.1, 0.6, 1])),
        "classes": {i: int(rng.integers(1, 3)) for i in ids},
        "full": {i: int((numbers == i).sum()) * int(rng.integers(1, 5)) for i in ids},
        "tolerance": draw(st.integers(0, 3)),
        "at_once": draw(st.sampled_from([1, 20, 2**19])),
    }


@settings(deadline=None, max_examples=150)
@given(regions())
def test_the_rows_equal_those_of_a_literal_loop_over_masks(region):
    numbers, scored, shape = region["numbers"], region["scored"], region["numbers"].shape
    true = [
        Mask(m.pixels, m.class_index, area_full=region["full"][int(numbers[m.pixels][0])])
        for m in masks(numbers, region["classes"])
    ]
    expected = image(true, region["predicted"], shape, scored=scored, tolerance=region["tolerance"])
    expected = expected[expected["kind"] != "image"]
    at_once, module._AT_ONCE = module._AT_ONCE, region["at_once"]
    try:
        result = pairs(
            numbers,
            label_of(scored),
            index_of(numbers, region["classes"], region["full"]),
            as_objects(region["predicted"], shape),
            region["tolerance"],
        )
    finally:
        module._AT_ONCE = at_once
    assert_same(as_table(result), expected)


def _squares(count: int) -> np.ndarray:
    """Squares of 3 x 3 that touch in pairs, 60 in a row."""
    numbers = np.zeros((7 * (count // 60 + 1), 60 * 4), np.uint32)
    for number in range(count):
        r, c = 1 + 7 * (number // 60), 4 * (number % 60) + number % 2
        numbers[r : r + 3 + number % 3, c : c + 3] = number + 1
    return numbers


def _perfect(numbers: np.ndarray) -> Objects:
    ids = np.arange(1, int(numbers.max()) + 1)
    return from_numbers(numbers, np.ones(len(ids)), np.ones(len(ids)))


@pytest.mark.parametrize("count", [0, 1, 150, 3000])
def test_predictions_equal_to_the_truth_overlap_fully(count):
    numbers = _squares(count)
    found = pairs(numbers, np.zeros(numbers.shape, np.uint8), index_of(numbers), _perfect(numbers), 0)
    assert len(found.truths) == len(found.predictions) == len(found.pairs) == count
    assert found.pairs["truth"].tolist() == found.pairs["prediction"].tolist() == list(range(1, count + 1))
    areas = found.truths["area"].to_numpy()
    for other in (found.predictions["area"], found.pairs["intersection"], found.truths["area_full"]):
        assert (areas == other).all()
    boundaries = found.pairs.filter(like="boundary").to_numpy()
    assert (boundaries == boundaries[:, :1]).all() and (boundaries[:, 0] > 0).all()


def assert_equal(left: Pairs, right: Pairs) -> None:
    for name in ("truths", "predictions", "pairs"):
        pd.testing.assert_frame_equal(getattr(left, name), getattr(right, name))


def test_other_numbers_of_the_true_objects_change_nothing():
    numbers, label = _squares(150), np.zeros(_squares(150).shape, np.uint8)
    others = np.append(0, np.random.default_rng(0).permutation(1000)[:150] * 4_000_000 + 1).astype(np.uint32)
    found = from_numbers(np.roll(numbers, 1, 1), np.ones(150), np.linspace(0, 1, 150))
    shuffled = found.select(np.random.default_rng(1).permutation(150))
    first = pairs(numbers, label, index_of(numbers), found, 2)
    assert_equal(first, pairs(others[numbers], label, index_of(others[numbers])[::-1], shuffled, 2))


def test_pixels_and_objects_that_are_ignored_change_no_row():
    numbers, rng = _squares(150), np.random.default_rng(0)
    label = np.where(rng.random(numbers.shape) < 0.3, IGNORE, 0).astype(np.uint8)
    label[:, 100:140] = IGNORE
    found = from_numbers(np.roll(numbers, 1, 1), np.ones(150), rng.random(150))
    first = pairs(numbers, label, index_of(numbers), found, 2)

    changed = np.where(label == IGNORE, rng.integers(0, 300, numbers.shape), numbers).astype(np.uint32)
    ignored = np.zeros((*numbers.shape, 2), bool)
    ignored[:8, 101:139, 0] = ignored[3, 120, 1] = True
    more = as_objects([Mask(ignored[..., i]) for i in (0, 1)], numbers.shape)
    both = Objects(
        *numbers.shape,
        np.append(more.classes, found.classes),
        np.append(more.scores, found.scores),
        np.concatenate([more.boxes, found.boxes]),
        [*more.masks, *found.masks],
    )
    assert len(first.predictions) < 150 and first.predictions["out"].any()
    assert_equal(first, pairs(changed, label, index_of(numbers), both, 2))


def test_numbers_without_a_row_in_the_index_are_no_objects():
    numbers = _squares(2)
    found = pairs(numbers, np.zeros(numbers.shape, np.uint8), index_of(numbers)[1:], _perfect(numbers), 2)
    assert found.truths["truth"].tolist() == [1]
    assert found.pairs[["truth", "prediction"]].to_numpy().tolist() == [[1, 2]]


def test_an_object_with_half_of_its_area_in_each_of_two_regions_is_required_in_neither():
    numbers = np.zeros((4, 9), np.uint32)
    # divided at column 4: the first 2 and 2 columns, the second 2 and 3
    numbers[1, 2:6], numbers[3, 2:7] = 1, 2
    index = index_of(numbers)
    halves = [numbers[:, :4], numbers[:, 4:]]
    out = []
    for half in halves:
        label = np.zeros(half.shape, np.uint8)
        out.append(pairs(half, label, index, _perfect(half), 2).truths["out"].tolist())
    assert out == [[True, True], [True, False]]
