"""The object index equals a literal loop over objects, whatever the strips in which a plane is read."""

import numpy as np
import pytest
from skimage.measure import label

from segcore.constants import IGNORE
from segcore.objects import runs as runs_module
from segcore.objects.ceiling import ceiling
from segcore.objects.components import components
from segcore.objects.index import index
from segcore.objects.runs import read_runs


def random_maps(seed):
    """Numbers with gaps and classes of a plane; objects touch, have several parts, two classes and one pixel."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 34, 2))
    numbers = np.zeros(shape, np.uint32)
    for number in rng.choice(2**32 - 1, rng.integers(0, 12), replace=False) + 1:
        row, col = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        numbers[row : row + rng.integers(1, 9), col : col + rng.integers(1, 9)] = number
    classes = np.where(numbers > 0, 1 + numbers % 3, 0).astype(np.uint8)
    changed = rng.random(shape) < 0.1
    classes[changed] = rng.choice([0, 1, 2, 3], int(changed.sum()))
    ignored = rng.random(shape) < 0.05
    classes[ignored], numbers[ignored] = IGNORE, 0
    return numbers, classes


def by_loop(numbers, classes, foreground):
    """Rows of the index, one object after the other."""
    rows = []
    flat = [int(n) for n in numbers.ravel()]
    for number in sorted(set(flat) - {0}, key=flat.index):
        mask = numbers == number
        class_index = int(np.bincount(classes[mask]).argmax())
        if class_index not in foreground:
            continue
        at = np.argwhere(mask)
        (top, left), (bottom, right) = at.min(0), at.max(0) + 1
        rows.append(
            {
                "id": number,
                "class_index": class_index,
                "area": len(at),
                "row": top,
                "col": left,
                "height": bottom - top,
                "width": right - left,
                "center_row": at[:, 0].mean(),
                "center_col": at[:, 1].mean(),
                "cut_item": bool({top, left} & {0} or bottom == mask.shape[0] or right == mask.shape[1]),
                "parts": int(label(mask, connectivity=1).max()),
                "first_col": at[0, 1],
                "at": at,
            }
        )
    for row in rows:
        nearest = [
            ((row["at"][:, None] - other["at"][None]) ** 2).sum(-1).min()
            for other in rows
            if other is not row
        ]
        row["neighbours"] = sum(square <= 9 for square in nearest)
        row["touches"] = any(square == 1 for square in nearest)
    return rows


@pytest.mark.parametrize("seed", range(60))
def test_the_index_equals_a_loop_over_the_objects(seed, monkeypatch):
    numbers, classes = random_maps(seed)
    monkeypatch.setattr(runs_module, "_STRIP", 40)
    monkeypatch.setattr(runs_module, "_RUNS", 7)
    found = index(read_runs(numbers, classes, [1, 2]), [1, 2])
    expected = by_loop(numbers, classes, [1, 2])
    assert len(found["id"]) == len(expected)
    for name, values in found.items():
        assert np.allclose(values, [row[name] for row in expected]), name


def test_an_empty_plane_has_no_objects_and_no_components():
    runs = read_runs(np.zeros((5, 7), np.uint32), np.zeros((5, 7), np.uint8), [1])
    found = index(runs, [1])
    counts, merged = ceiling(runs, found, [1])
    assert all(len(values) == 0 for values in (*found.values(), merged))
    assert [int(counts[name][0]) for name in ("true", "predicted", "matched")] == [0, 0, 0]


def test_70_000_objects_are_indexed_without_an_array_of_each():
    side, cell = 1600, 6
    at = np.arange(side) // cell
    numbers = (at[:, None] * (side // cell + 1) + at + 1).astype(np.uint32)
    numbers[np.arange(side) % cell == 0] = 0
    found = index(read_runs(numbers, (numbers > 0).astype(np.uint8), [1]), [1])
    assert len(found["id"]) == 267**2 and found["area"].sum() == (numbers > 0).sum()
    # one on each side, three above and three below a gap of one row
    assert np.bincount(found["neighbours"]).argmax() == 8 and (found["parts"] == 1).all()


@pytest.mark.parametrize("seed", range(60))
def test_the_ceiling_equals_a_loop_over_components_and_objects(seed):
    numbers, classes = random_maps(seed)
    foreground = [1, 3]
    runs = read_runs(numbers, classes, foreground)
    objects = index(runs, foreground)
    counts, merged = ceiling(runs, objects, foreground)
    found = components(classes, foreground)
    masks = [found == number for number in range(1, int(found.max()) + 1)]
    classes_of = [int(classes[mask][0]) for mask in masks]
    true = [numbers == number for number in objects["id"]]
    for place, class_index in enumerate(foreground):
        ious = [
            float((mask & other).sum() / (mask | other).sum())
            for mask, of in zip(masks, classes_of, strict=True)
            for other, of_other in zip(true, objects["class_index"], strict=True)
            if of == of_other == class_index
        ]
        matched = [iou for iou in ious if iou > 0.5]
        assert counts["true"][place] == (objects["class_index"] == class_index).sum()
        assert counts["predicted"][place] == classes_of.count(class_index)
        assert counts["matched"][place] == len(matched)
        assert counts["iou"][place] == pytest.approx(sum(matched))
    mostly = [[(mask & other).sum() > other.sum() / 2 for mask in masks] for other in true]
    shared = np.array(mostly, bool).reshape(len(true), len(masks))
    assert merged.tolist() == [bool((row & (shared.sum(0) > 1)).any()) for row in shared]


def test_a_component_of_two_touching_nuclei_is_one_merged_pair():
    numbers = np.array([[1, 1, 1, 2, 0, 3]], np.uint32)
    runs = read_runs(numbers, (numbers > 0).astype(np.uint8), [1])
    counts, merged = ceiling(runs, index(runs, [1]), [1])
    assert merged.tolist() == [True, True, False]
    assert {name: values.tolist() for name, values in counts.items()} == {
        "class_index": [1],
        "true": [3],
        "predicted": [2],
        "matched": [2],
        "iou": [1.75],
    }
