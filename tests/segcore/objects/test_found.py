import numpy as np

from segcore.objects.components import components
from segcore.objects.find import FindSettings, find
from segcore.objects.found import from_numbers


def test_numbers_and_crops_are_inverse():
    numbers = np.array([[1, 0, 2], [1, 0, 2], [0, 3, 3]], np.uint32)
    objects = from_numbers(numbers, np.array([1, 1, 2]), np.array([0.9, 0.5, 0.7]))
    assert (objects.numbers() == numbers).all()
    assert objects.areas.tolist() == [2, 2, 2]
    assert objects.select(np.array([2])).boxes.tolist() == [[2, 1, 1, 2]]


def test_components_touch_by_edges_and_have_one_class():
    classes = np.array([[1, 0, 1], [0, 1, 2], [255, 1, 2]], np.uint8)
    assert components(classes, [1, 2]).tolist() == [[1, 0, 2], [0, 3, 4], [0, 3, 4]]


def test_the_score_of_a_component_is_the_mean_probability_of_its_class():
    foreground = np.array([[0.9, 0.7, 0.1, 0.6]], np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    classes = probabilities.argmax(0).astype(np.uint8)
    found = find(probabilities, classes, [1], FindSettings())
    assert np.allclose(found.scores, [0.8, 0.6])
    assert len(find(probabilities, classes, [1], FindSettings(score=0.7))) == 1
