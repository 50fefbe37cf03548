"""Objects of planes become objects of a volume."""

import numpy as np
from skimage.measure import label

from segcore.objects.canvas import Canvas
from segcore.objects.find import FindSettings, find
from segcore.objects.found import from_numbers
from segcore.objects.linking import linked
from segcore.objects.stitching import Stitcher, Whole
from segcore.objects.windows import Windows


def volume_of(planes: list[np.ndarray], classes: dict[int, int], **limits):
    """Linked objects of maps of numbers; `classes` of some numbers, 1 for others."""
    numbers = np.zeros((len(planes), *planes[0].shape), np.uint32)
    found = []
    for plane, store in zip(planes, numbers, strict=True):
        canvas = Canvas(store)
        windows = Windows.over(*plane.shape, 100, 2)
        stitcher = Stitcher(windows, canvas.paint)
        present = np.unique(plane[plane > 0])
        dense = np.searchsorted(present, plane) + 1
        of = [classes.get(int(n), 1) for n in present]
        stitcher.add(0, 0, from_numbers(np.where(plane > 0, dense, 0), of, [n / 10 for n in present]))
        stitcher.finish()
        found.append(canvas.finish())
    return linked(found, numbers, **limits)


def test_discs_that_move_from_plane_to_plane_are_one_object_each():
    rows, cols = np.mgrid[:60, :80]
    planes = []
    for z in range(6):
        plane = np.zeros((60, 80), int)
        plane[(rows - 15) ** 2 + (cols - 15 - 2 * z) ** 2 < 60] = 1
        plane[(rows - 42) ** 2 + (cols - 60 + 2 * z) ** 2 < 80] = 2
        planes.append(plane)
    found = volume_of(planes, {2: 2})
    truth = label(np.stack(planes), connectivity=1)
    assert np.array_equal(found.numbers, truth)
    assert (
        found.classes.tolist() == [1, 2] and found.areas.tolist() == np.bincount(truth.ravel())[1:].tolist()
    )
    assert np.allclose(found.scores, [0.1, 0.2])


def test_only_the_best_overlap_of_both_above_a_quarter_is_linked():
    above, below = np.zeros((10, 30), int), np.zeros((10, 30), int)
    above[2:6, 2:10] = 1
    # the left one has more of it than the right one
    below[2:6, 2:7] = 3
    below[2:6, 7:10] = 4
    # a sliver of one pixel in common
    above[8, 20:24] = 5
    below[8, 23:28] = 6
    found = volume_of([above, below], {})
    assert found.numbers[1, 3, 3] == found.numbers[0, 3, 3] == 1
    assert found.numbers[1, 3, 8] not in (0, 1)
    assert found.numbers[0, 8, 20] != found.numbers[1, 8, 27]
    assert found.numbers.max() == 4, "numbers have no gap"
    turned = volume_of([below, above], {}).numbers
    assert turned[1, 3, 3] == turned[0, 3, 3] == 1 and turned[0, 3, 8] == 2 and turned.max() == 4


def test_classes_are_not_linked_and_limits_are_of_whole_objects():
    plane = np.zeros((8, 8), int)
    plane[2:4, 2:4] = 1
    other = np.where(plane, 2, 0)
    found = volume_of([plane, plane, other], {2: 2})
    assert found.areas.tolist() == [8, 4]
    assert volume_of([plane, plane, other], {2: 2}, min_area=5).areas.tolist() == [8]
    kept = volume_of([plane, plane, other], {2: 2}, score=0.15)
    assert kept.classes.tolist() == [2] and kept.numbers.max() == 1 and not kept.numbers[:2].any()


def test_a_score_as_large_as_the_least_one_is_kept_everywhere():
    # 0.9 as float32 is less than 0.9 as float64
    probabilities = np.stack([np.full((6, 6), 0.1, np.float32), np.full((6, 6), 0.9, np.float32)])
    classes = np.zeros((6, 6), np.uint8)
    classes[1:3, 1:3] = 1
    score = float(np.float32(0.9)) + 1e-9
    settings = FindSettings("components", score)
    assert len(find(probabilities, classes, [1], settings)) == 1
    canvas = Canvas(np.zeros((6, 6), np.uint32))
    canvas.paint(Whole(1, float(np.float32(0.9)), [(1, 1, np.ones((2, 2), bool))]))
    plane = canvas.finish(score=score)
    assert len(plane) == 1
    assert len(linked([plane], plane.numbers[None], score=score)) == 1
