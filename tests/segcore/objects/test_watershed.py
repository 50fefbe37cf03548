"""Components divided by a watershed, and objects that grow back into the pixels near two of them."""

from itertools import product

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.objects.components import components
from segcore.objects.find import FindSettings, find, number_maps
from segcore.objects.watershed import Basins, basins, grown, in_order

_PLUS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])


def discs(places, side=64, radius=9):
    """(H, W) uint8 class map with a disc of class 1 at each place."""
    rows, cols = np.mgrid[:side, :side]
    found = np.zeros((side, side), np.uint8)
    for row, col in places:
        found[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = 1
    return found


def random_discs(seed, side=96, count=14):
    rng = np.random.default_rng(seed)
    found = np.zeros((side, side), np.uint8)
    for place in rng.integers(0, side, (count, 2)):
        found |= discs([place], side, rng.uniform(4, 11))
    return found


def random_rectangles(seed, side=96, count=9):
    rng = np.random.default_rng(seed)
    found = np.zeros((side, side), np.uint8)
    for (row, col), (height, width) in zip(
        rng.integers(0, side, (count, 2)), rng.integers(6, 30, (count, 2)), strict=True
    ):
        found[row : row + height, col : col + width] = 1
    return found


def certain(classes, count=2):
    """(K, H, W) probabilities of a class map."""
    return np.eye(count, dtype=np.float32)[np.where(classes < count, classes, 0)].transpose(2, 0, 1)


def by_distance(classes, depth, **settings):
    return find(certain(classes), classes, [1], FindSettings("watershed", depth=depth, **settings))


def h_maxima(classes, depth):
    """Number of maxima of the distance inside each component that rise by more than `depth`, by reconstruction."""
    whole, count = components(classes, [1]), 0
    for number in range(1, int(whole.max()) + 1):
        mask = whole == number
        height = np.where(mask, distance_transform_edt(mask), -1e3)
        lowered = reconstruction(height - depth, height, footprint=_PLUS)
        count += label(local_maxima(lowered, connectivity=1) & mask, connectivity=1).max()
    return count


def test_there_are_as_many_objects_as_h_maxima_by_reconstruction():
    divided = 0
    for seed, shapes in product(range(8), (random_discs, random_rectangles)):
        classes = shapes(seed)
        for depth in (0.53, 1.03, 2.03, 4.03):
            found = by_distance(classes, depth)
            assert len(found) == h_maxima(classes, depth), (seed, shapes, depth)
            divided += len(found) > components(classes, [1]).max()
    assert divided > 10


def test_two_discs_that_touch_are_divided_where_they_meet_and_one_disc_never_is():
    classes = discs([(30, 20), (30, 36)])
    found = by_distance(classes, 2.0)
    assert len(found) == 2 and found.numbers()[30, 20] == 1 and found.numbers()[30, 36] == 2
    assert np.abs(found.areas[0] - found.areas[1]) <= 40
    assert len(by_distance(classes, 9.0)) == 1
    assert all(len(by_distance(discs([(30, 30)]), depth)) == 1 for depth in (0.5, 1, 2, 4))


@pytest.mark.parametrize("seeds", ["distance", "probability"])
def test_objects_cover_the_foreground_and_are_connected_of_one_class_and_in_order(seeds):
    rng = np.random.default_rng(3)
    first, second = random_discs(1), random_discs(2)
    classes = np.where(second > 0, 2, first).astype(np.uint8)
    classes[40:50] = IGNORE
    probabilities = rng.dirichlet([1, 1, 1], classes.shape).transpose(2, 0, 1).astype(np.float32)
    settings = FindSettings("watershed", seeds=seeds, depth=0.5 if seeds == "distance" else 0.02)
    found = find(probabilities, classes, [1, 2], settings)
    numbers = found.numbers()
    assert ((numbers > 0) == np.isin(classes, [1, 2])).all()
    assert len(found) > components(classes, [1, 2]).max()
    assert all(label(mask, connectivity=1).max() == 1 for mask in found.masks)
    assert all(set(classes[numbers == n + 1]) == {found.classes[n]} for n in range(len(found)))
    firsts = [np.flatnonzero(numbers == n + 1)[0] for n in range(len(found))]
    assert firsts == sorted(firsts)


def test_the_division_of_a_component_depends_on_nothing_outside_of_it():
    alone = discs([(30, 20), (30, 36)])
    beside = alone.copy()
    beside[0:12] = 1
    beside[50:60, 30:62] = 1
    # touches it at a corner
    row, col = np.argwhere(alone)[-1]
    beside[row + 1 : row + 6, col + 1 : col + 6] = 1
    one, other = by_distance(alone, 1.0).numbers(), by_distance(beside, 1.0).numbers()
    for number in (1, 2):
        assert len(set(other[one == number])) == 1
        assert (other == other[one == number][0]).sum() == (one == number).sum()


def test_all_settings_at_once_give_what_each_gives_alone():
    classes = random_discs(5)
    noise = np.random.default_rng(0).normal(0, 0.1, classes.shape)
    foreground = np.clip(0.2 + 0.6 * classes + noise, 0, 1).astype(np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    settings = [FindSettings(), *(FindSettings("watershed", depth=d) for d in (4.0, 1.0, 0.5))]
    settings += [FindSettings("watershed", seeds="probability", depth=d) for d in (0.1, 0.05)]
    for one, numbers in zip(settings, number_maps(probabilities, classes, [1], settings), strict=True):
        assert (numbers == next(number_maps(probabilities, classes, [1], [one]))).all(), one


def test_a_class_that_fills_the_region_is_one_object():
    full = np.ones((20, 30), np.uint8)
    assert len(by_distance(full, 0.5)) == 1
    assert basins("distance", certain(full), full, [1], 0.5).peaks.tolist() == [0]
    assert len(by_distance(np.zeros((20, 30), np.uint8), 0.5)) == 0


def test_maxima_of_the_probability_divide_what_the_distance_does_not():
    classes = np.zeros((24, 60), np.uint8)
    classes[4:20, 4:56] = 1
    valley = 0.95 - 0.4 * np.exp(-((np.arange(60) - 30.0) ** 2) / 18)
    foreground = np.where(classes == 1, valley, 0.05).astype(np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    shared = {"probabilities": probabilities, "classes": classes, "foreground": [1]}
    divided = find(**shared, settings=FindSettings("watershed", seeds="probability", depth=0.2))
    assert len(divided) == 2 and divided.boxes[0, 3] in range(25, 28)
    assert len(find(**shared, settings=FindSettings("watershed", depth=0.5))) == 1
    assert len(find(**shared, settings=FindSettings("watershed", seeds="probability", depth=0.5))) == 1


def touching_pair():
    """Two blocks of class 1 in one component, probabilities, and the probability of touching between them."""
    classes = np.zeros((20, 30), np.uint8)
    classes[4:16, 4:26] = 1
    touching = np.zeros((20, 30), np.float32)
    touching[4:16, 13:17] = [0.6, 0.9, 0.8, 0.6]
    return classes, certain(classes) * 0.9 + 0.05, touching


@pytest.mark.parametrize("method", ["components", "watershed"])
def test_pixels_near_two_objects_divide_them_and_then_belong_to_the_nearer_side(method):
    classes, probabilities, touching = touching_pair()
    settings = FindSettings(method, depth=2.0)
    assert len(find(probabilities, classes, [1], settings)) == 1
    found = find(probabilities, classes, [1], settings, touching)
    assert found.boxes.tolist() == [[4, 4, 12, 10], [4, 14, 12, 12]] or found.boxes.tolist() == [
        [4, 4, 12, 11],
        [4, 15, 12, 11],
    ]
    assert ((found.numbers() > 0) == (classes == 1)).all()


def test_pixels_are_removed_where_touching_exceeds_the_class_as_the_network_gives_them():
    classes, probabilities, touching = touching_pair()
    # of the network's outputs, 0.95 * 0.52 is more than 0.48
    assert len(find(probabilities, classes, [1], FindSettings(), np.minimum(touching, 0.48))) == 1
    assert len(find(probabilities, classes, [1], FindSettings(), np.minimum(touching, 0.5))) == 2


def test_a_component_of_which_nothing_remains_is_an_object():
    classes, probabilities, touching = touching_pair()
    classes[18, 3:6] = 1
    touching[18] = 1
    found = find(probabilities, classes, [1], FindSettings(), touching)
    assert found.areas.tolist()[2] == 3 and len(found) == 3


def test_objects_grow_within_their_component_only():
    classes = discs([(20, 20), (20, 44)])
    numbers = np.zeros_like(classes, np.uint32)
    numbers[20, 20], numbers[20, 44] = 2, 1
    result = grown(numbers, classes, [1], np.zeros(classes.shape, np.float32))
    assert (result == components(classes, [1])).all()


def test_objects_grow_along_their_component_and_not_across_the_background():
    classes = np.ones((10, 3), np.uint8)
    classes[:9, 1] = 0
    numbers = np.zeros((10, 3), np.uint32)
    # the right arm is two pixels from the first, and a way of its own from the second
    numbers[0, 0], numbers[9, 1] = 1, 2
    result = grown(numbers, classes, [1], np.zeros(classes.shape, np.float32))
    assert (result[:, 2] == 2).all() and result[0, 0] == 1


def test_numbers_follow_first_pixels_whatever_they_were():
    assert in_order(np.array([[0, 7, 7], [3, 0, 9]])).tolist() == [[0, 1, 1], [2, 0, 3]]
    assert in_order(np.zeros((2, 2), int)).max() == 0


def test_a_basin_below_the_depth_joins_the_neighbour_that_it_meets_at_the_highest_pass():
    three = Basins(
        np.array([[1, 2, 3]], np.int32),
        np.array([9.0, 6.0, 8.0]),
        np.array([[0, 1], [1, 2]]),
        np.array([4.0, 5.0]),
    )
    # the second rises by 1 above its pass to the third, and that by 4 above its pass to the first
    assert three.objects(0.9).tolist() == [[1, 2, 3]]
    assert three.objects(1.1).tolist() == three.objects(4.0).tolist() == [[1, 2, 2]]
    assert three.objects(4.1).tolist() == [[1, 1, 1]]


def test_a_bundle_gives_the_settings_of_a_method_or_says_what_it_lacks():
    entry = {"components": {"score": 0.4}, "watershed": {"score": 0.3, "seeds": "probability", "depth": 0.1}}
    assert FindSettings.of({"objects": entry}, "components") == FindSettings("components", 0.4)
    assert FindSettings.of({"objects": entry}, "watershed") == FindSettings(
        "watershed", 0.3, "probability", 0.1
    )
    with pytest.raises(ModelError, match=r"no entry objects\.watershed"):
        FindSettings.of({"classes": ["a"]}, "watershed")
