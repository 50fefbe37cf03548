"""Objects of overlapping windows: exactly those of the scene, whatever the windows and their order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segcore.objects.canvas import Canvas, SceneObjects
from segcore.objects.components import components
from segcore.objects.found import Objects, from_numbers
from segcore.objects.stitching import Stitcher, Whole
from segcore.objects.windows import Windows
from tests.support.object_maps import scene_of


def clipped(numbers: np.ndarray, classes: np.ndarray, windows: Windows, i: int, j: int) -> Objects:
    """The objects of a scene as a perfect network sees them in a window, in some order."""
    row, col = windows.rows[i], windows.cols[j]
    part = numbers[row : row + windows.tall, col : col + windows.wide]
    present = np.unique(part[part > 0])
    new = np.zeros(numbers.max() + 1, np.uint32)
    new[present] = np.arange(1, len(present) + 1)
    objects = from_numbers(new[part], classes[present - 1], np.full(len(present), 0.5))
    return objects.select(np.random.default_rng(i * 31 + j).permutation(len(objects)))


def stitched(windows: Windows, find, order, least_shared: float = 0.5) -> SceneObjects:
    canvas = Canvas(np.zeros((windows.height, windows.width), np.uint32))
    stitcher = Stitcher(windows, canvas.paint, least_shared)
    for i, j in order:
        stitcher.add(i, j, find(i, j))
    stitcher.finish()
    return canvas.finish()


def in_some_order(windows: Windows, seed: int, by_rows: bool) -> list[tuple[int, int]]:
    """Windows row by row, each row in any order; or in any order at all."""
    rng = np.random.default_rng(seed)
    order = list(itertools.product(range(len(windows.rows)), range(len(windows.cols))))
    order = [order[n] for n in rng.permutation(len(order))]
    return sorted(order, key=lambda pair: pair[0]) if by_rows else order


scenes = st.tuples(
    st.sampled_from(["snake", "rings", "us", "squares"]),
    st.integers(8, 40),
    st.integers(8, 40),
    st.integers(0, 2**16),
)


@st.composite
def windows_of(draw, height: int, width: int) -> Windows:
    side = draw(st.integers(4, 24))
    return Windows.over(height, width, side, draw(st.integers(2, side // 2)))


@settings(max_examples=300, deadline=None)
@given(scenes, st.data(), st.booleans())
def test_windows_that_see_the_truth_give_exactly_the_truth(scene, data, by_rows):
    numbers, classes = scene_of(*scene)
    windows = data.draw(windows_of(*numbers.shape))
    order = in_some_order(windows, data.draw(st.integers(0, 99)), by_rows)
    found = stitched(windows, lambda i, j: clipped(numbers, classes, windows, i, j), order)
    assert np.array_equal(found.numbers, numbers)
    assert np.array_equal(found.classes, classes)
    assert np.array_equal(found.areas, np.bincount(numbers.ravel(), minlength=len(classes) + 1)[1:])
    assert np.allclose(found.scores, 0.5)
    whole = from_numbers(numbers, classes, np.ones(len(classes)))
    assert np.array_equal(found.boxes, whole.boxes)
    for index in range(len(found)):
        assert np.array_equal(found.mask(index), whole.masks[index])
        assert numbers[tuple(found.points[index])] == index + 1, "the point is a pixel of the object"


@settings(max_examples=150, deadline=None)
@given(st.integers(6, 40), st.integers(6, 40), st.floats(0.3, 0.8), st.integers(0, 2**16), st.data())
def test_components_of_windows_give_the_components_of_the_whole(height, width, share, seed, data):
    rng = np.random.default_rng(seed)
    classes = np.where(rng.random((height, width)) < share, rng.integers(1, 3, (height, width)), 0)
    classes[rng.random((height, width)) < 0.02] = 255
    windows = data.draw(windows_of(height, width))

    def find(i: int, j: int) -> Objects:
        row, col = windows.rows[i], windows.cols[j]
        part = classes[row : row + windows.tall, col : col + windows.wide]
        numbers = components(part, [1, 2])
        first = np.unique(numbers, return_index=True)[1][int((numbers == 0).any()) :]
        return from_numbers(numbers, part.ravel()[first], np.zeros(len(first)))

    order = in_some_order(windows, seed, by_rows=True)
    found = stitched(windows, find, order, least_shared=0)
    assert np.array_equal(found.numbers, components(classes, [1, 2]))


def rectangles(windows: Windows, boxes: dict[tuple[int, int], list[tuple]]) -> callable:
    """Objects given as (class, score, row, col, height, width) in pixels of the scene, for each window."""

    def find(i: int, j: int) -> Objects:
        given_here = boxes.get((i, j), [])
        return Objects(
            windows.tall,
            windows.wide,
            np.array([b[0] for b in given_here], np.uint8),
            np.array([b[1] for b in given_here], np.float32),
            np.array(
                [(b[2] - windows.rows[i], b[3] - windows.cols[j], b[4], b[5]) for b in given_here], np.int32
            ).reshape(-1, 4),
            [np.ones((b[4], b[5]), bool) for b in given_here],
        )

    return find


# columns 0 to 20 and 12 to 32; the first window owns those before 16
TWO = Windows(20, 32, [0], [0, 12], 20, 20)


def of_two(left: list[tuple], right: list[tuple]) -> list[tuple]:
    """Class, score to one decimal, and box of each stitched object; the same for both orders of the windows."""
    results = []
    for order in ([(0, 0), (0, 1)], [(0, 1), (0, 0)]):
        found = stitched(TWO, rectangles(TWO, {(0, 0): left, (0, 1): right}), order)
        results.append(
            [
                (int(c), round(float(s), 3), *map(int, box))
                for c, s, box in zip(found.classes, found.scores, found.boxes, strict=True)
            ]
        )
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        pytest.param(
            [(1, 0.6, 2, 13, 4, 4)], [(1, 0.9, 2, 13, 4, 4)], [(1, 0.6, 2, 13, 4, 4)], id="owned-stays"
        ),
        # centres 16.5 of the left one and 15.5 of the right one: neither window owns its own
        pytest.param(
            [(1, 0.6, 2, 14, 4, 5)], [(1, 0.9, 2, 13, 4, 5)], [(1, 0.9, 2, 13, 4, 5)], id="unowned-seen-twice"
        ),
        pytest.param([], [(1, 0.9, 2, 13, 4, 3)], [], id="unowned-seen-once"),
        pytest.param([(1, 0.6, 2, 17, 4, 3)], [], [], id="unowned-part-seen-once"),
        pytest.param([(1, 0.6, 2, 13, 4, 3)], [], [(1, 0.6, 2, 13, 4, 3)], id="owned-seen-once"),
        pytest.param(
            [(1, 0.4, 2, 14, 4, 6)],
            [(1, 0.9, 2, 14, 4, 12)],
            [(1, 0.9, 2, 14, 4, 12)],
            id="whole-replaces-part",
        ),
        # 40 and 60 pixels
        pytest.param(
            [(1, 0.4, 2, 10, 4, 10)], [(1, 0.9, 2, 12, 4, 15)], [(1, 0.7, 2, 10, 4, 17)], id="open-parts-join"
        ),
        pytest.param(
            [(1, 0.4, 2, 10, 4, 10)],
            [(1, 0.9, 5, 12, 4, 15)],
            [(1, 0.4, 2, 10, 4, 10), (1, 0.9, 5, 12, 4, 15)],
            id="open-parts-that-share-a-row-of-four-stay",
        ),
        # both are owned
        pytest.param(
            [(1, 0.9, 2, 13, 6, 5)],
            [(1, 0.6, 3, 16, 2, 2)],
            [(1, 0.9, 2, 13, 6, 5)],
            id="whole-in-a-better-one",
        ),
        pytest.param(
            [(1, 0.6, 2, 13, 6, 5)],
            [(1, 0.9, 3, 16, 2, 2)],
            [(1, 0.9, 3, 16, 2, 2)],
            id="whole-in-a-worse-one",
        ),
        # 4 of 8 pixels
        pytest.param(
            [(1, 0.9, 2, 13, 6, 5)],
            [(1, 0.6, 7, 16, 2, 2), (1, 0.5, 2, 15, 2, 4)],
            [(1, 0.9, 2, 13, 6, 5), (1, 0.6, 8, 16, 1, 2)],
            id="whole-half-in-another-one-stays",
        ),
        pytest.param(
            [(1, 0.6, 2, 13, 4, 2)],
            [(2, 0.9, 2, 14, 4, 8)],
            [(1, 0.6, 2, 13, 4, 1), (2, 0.9, 2, 14, 4, 8)],
            id="classes-are-not-compared",
        ),
    ],
)
def test_what_two_windows_have_of_one_object_becomes_one(left, right, expected):
    assert of_two(left, right) == expected


def test_a_pixel_is_of_the_object_of_higher_score_and_of_equal_ones_of_the_first():
    def numbers_of(*objects: tuple) -> np.ndarray:
        results = [
            stitched(one, rectangles(one, {(0, 0): list(order)}), [(0, 0)]).numbers
            for order in itertools.permutations(objects)
        ]
        assert all(np.array_equal(results[0], other) for other in results)
        return results[0]

    one = Windows(10, 10, [0], [0], 10, 10)
    stronger = numbers_of((1, 0.5, 0, 0, 4, 4), (1, 0.9, 2, 2, 4, 4), (2, 0.7, 3, 0, 4, 4))
    assert stronger[2, 2] == 2 and stronger[3, 1] == 3 and stronger[0, 0] == 1
    equal = numbers_of((1, 0.5, 0, 0, 4, 4), (1, 0.5, 2, 2, 4, 4))
    assert equal[3, 3] == 1 and equal[4, 4] == 2
    # nothing is left of the weaker one, and numbers have no gap
    hidden = numbers_of((1, 0.5, 2, 2, 2, 2), (1, 0.9, 1, 1, 4, 4), (1, 0.9, 6, 6, 2, 2))
    assert set(np.unique(hidden)) == {0, 1, 2}


def test_facts_of_objects_that_lost_pixels_are_of_what_they_have():
    one = Windows(12, 12, [0], [0], 12, 12)
    found = stitched(one, rectangles(one, {(0, 0): [(1, 0.5, 0, 0, 6, 4), (2, 0.9, 0, 0, 3, 4)]}), [(0, 0)])
    assert found.areas.tolist() == [12, 12]
    assert found.boxes.tolist() == [[0, 0, 3, 4], [3, 0, 3, 4]]
    assert found.classes.tolist() == [2, 1] and found.cut.tolist() == [True, True]


@given(st.integers(1, 300), st.integers(4, 60), st.data())
def test_windows_are_spread_evenly_and_share_the_least_overlap(length, side, data):
    overlap = data.draw(st.integers(2, side // 2))
    windows = Windows.over(length, 50, side, overlap)
    rows, tall = windows.rows, windows.tall
    assert tall <= side and rows[0] == 0 and rows[-1] + tall == length
    steps = np.diff(rows)
    assert ((steps > 0) & (tall - steps >= overlap)).all()
    # windows that are one pixel smaller do not cover the scene
    assert (tall - 1 - overlap) * len(rows) + overlap < length
    assert len(rows) == 1 or (side - overlap) * (len(rows) - 1) + overlap < length


def test_an_object_waits_only_while_a_later_window_can_touch_it():
    windows = Windows.over(400, 40, 40, 8)
    done = []
    stitcher = Stitcher(windows, done.append)
    numbers = np.zeros((400, 40), np.uint32)
    for number, row in enumerate(range(2, 396, 8), start=1):
        numbers[row : row + 4, 2:38] = number
    classes = np.ones(numbers.max(), np.uint8)
    for i in range(len(windows.rows)):
        stitcher.add(i, 0, clipped(numbers, classes, windows, i, 0))
        end = windows.rows[i + 1] if i + 1 < len(windows.rows) else 400
        above = np.unique(numbers[:end])
        complete = [n for n in above if n and np.flatnonzero((numbers == n).any(axis=1)).max() < end]
        assert len(done) == len(complete)


def test_a_window_that_is_missing_or_given_twice_is_an_error():
    nothing = Objects(20, 20)
    stitcher = Stitcher(TWO, print)
    stitcher.add(0, 1, nothing)
    with pytest.raises(ValueError, match="1 windows"):
        stitcher.finish()
    with pytest.raises(ValueError, match="window"):
        stitcher.add(0, 1, nothing)
    with pytest.raises(ValueError, match="window"):
        stitcher.add(0, 0, Objects(20, 21))


def _greedy(objects: list[tuple], height: int, width: int) -> np.ndarray:
    """Scores of the objects that are left, at their pixels, one by one from the highest score on."""
    held = np.zeros((height, width))
    for _, score, row, col, tall, wide in sorted(objects, key=lambda o: -o[1]):
        box = held[row : row + tall, col : col + wide]
        if 2 * np.count_nonzero(box == 0) > tall * wide:
            box[box == 0] = score
    return held


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 25))
def test_objects_that_keep_half_are_those_that_are_chosen_one_by_one(seed, count):
    rng = np.random.default_rng(seed)
    corners, sizes = rng.integers(0, 20, (count, 2)), rng.integers(1, 12, (count, 2))
    scores = rng.permutation(count) / count
    objects = [
        (1, float(s), *map(int, c), *map(int, z)) for s, c, z in zip(scores, corners, sizes, strict=True)
    ]
    canvas = Canvas(np.zeros((32, 32), np.uint32), least_kept=0.5)
    for class_index, score, row, col, *size in objects:
        # in two parts that overlap
        whole = np.ones(size, bool)
        canvas.paint(Whole(class_index, score, [(row, col, whole), (row, col, whole[: size[0] // 2 + 1])]))
    found = canvas.finish()
    expected = _greedy(objects, 32, 32)
    assert np.array_equal(np.append(0, found.scores)[found.numbers], expected.astype(np.float32))
    assert np.array_equal(found.areas, np.bincount(found.numbers.ravel(), minlength=len(found) + 1)[1:])
    boxes = from_numbers(found.numbers, found.classes, found.scores).boxes
    assert np.array_equal(found.boxes, boxes)
