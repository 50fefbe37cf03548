"""Sums of surfaces of volumes against MONAI, and against loops over all pairs of voxels."""

import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from segcore.constants import IGNORE
from segcore.data.volumes import describe
from segcore.metrics import surfaces as metrics
from segcore.tables.surfaces import SUMS, surface_sums

# planes are coarser than rows and columns, which differ too
SPACING = (3.5, 0.8, 1.3)
STEPS = np.diag(SPACING)
# of a CT with a tilted gantry: rows shift from plane to plane
SHEARED = np.array([[0, 1.2, 4.0], [0, 1.5, 0], [-1, 0, 0]])


def blobs(shape: tuple[int, ...], seed: int, classes: int = 3) -> np.ndarray:
    """Smooth random classes, several components each, some at the edges of the volume."""
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    smooth = np.stack([gaussian_filter(one, 2.0, mode="nearest") for one in noise])
    smooth[0] += 0.02
    return smooth.argmax(0).astype(np.uint8)


def scored(prediction, label, spacing=SPACING, tolerance=2.0, foreground=(1, 2)):
    """HD95, NSD and ASSD of each class, (3, K), and the sums by name."""
    return scored_by(np.diag(spacing), prediction, label, tolerance, foreground)


def scored_by(steps, prediction, label, tolerance=2.0, foreground=(1,)):
    table = surface_sums(prediction, label, foreground, steps, tolerance)
    sums = dict(zip(SUMS, table.T, strict=True))
    return np.stack([metrics.hd95(sums), metrics.nsd(sums), metrics.assd(sums)]), sums


def monai_scores(prediction, label, spacing, tolerance) -> np.ndarray:
    """The same of classes 1 and 2 by MONAI."""
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    pair = [torch.from_numpy(np.stack([m == k for k in range(3)])[None]) for m in (prediction, label)]
    return np.stack(
        [
            compute_hausdorff_distance(*pair, percentile=95, spacing=spacing)[0].numpy(),
            compute_surface_dice(*pair, class_thresholds=[tolerance] * 2, spacing=spacing)[0].numpy(),
            compute_average_surface_distance(*pair, symmetric=True, spacing=spacing)[0].numpy(),
        ]
    )


@pytest.mark.parametrize("seed", range(6))
def test_scores_of_anisotropic_volumes_equal_monai(seed):
    shape = (9, 31, 26) if seed % 2 else (14, 20, 33)
    label = blobs(shape, seed)
    prediction = np.where(np.random.default_rng(seed).random(shape) < 0.03, blobs(shape, seed + 50), label)
    prediction = np.roll(prediction, (seed % 2, 1, -2), (0, 1, 2))
    # no distance of this grid is at the tolerance, where MONAI's float32 decides
    for tolerance in (0.5, 1.9, 4.1):
        ours, _ = scored(prediction, label, tolerance=tolerance)
        theirs = monai_scores(prediction, label, SPACING, tolerance)
        assert np.allclose(ours, theirs, rtol=1e-5)
    assert ours[0].min() > 0 and ours[2].min() > 0


def surface(mask: np.ndarray, valid: np.ndarray) -> list[tuple[int, ...]]:
    """Voxels of a mask with a face neighbour outside it that is scored or beyond the volume, by a loop."""
    found = []
    for voxel in map(tuple, np.argwhere(mask & valid).tolist()):
        for axis, step in itertools.product(range(3), (-1, 1)):
            beside = list(voxel)
            beside[axis] += step
            inside = all(0 <= i < n for i, n in zip(beside, mask.shape, strict=True))
            if not inside or (valid[tuple(beside)] and not mask[tuple(beside)]):
                found.append(voxel)
                break
    return found


def by_loops(prediction, label, steps, tolerance, index) -> list[float]:
    """Sums of one class from the distances of all pairs of voxels."""
    valid = label != IGNORE
    both = [surface(m == index, valid) for m in (label, prediction)]

    def nearest(voxels, others):
        return [min(float(np.linalg.norm((np.array(v) - o) @ steps)) for o in others) for v in voxels]

    distances = [nearest(*both), nearest(*both[::-1])]
    parts = [
        (len(d), sum(d), np.percentile(d, 95), sum(value <= tolerance + 1e-9 for value in d))
        for d in distances
    ]
    return [value for pair in zip(*parts, strict=True) for value in pair]


@pytest.mark.parametrize("steps", [STEPS, SHEARED], ids=["right angles", "sheared"])
@pytest.mark.parametrize("seed", range(4))
def test_sums_equal_loops_over_all_pairs_also_with_voxels_that_are_not_scored(seed, steps):
    rng, shape = np.random.default_rng(seed), (4, 6, 5)
    label, prediction = (rng.integers(0, 3, shape).astype(np.uint8) for _ in range(2))
    label[:, 2:4, 1:3] = IGNORE
    table = surface_sums(prediction, label, [1, 2], steps, 2.6)
    for row, index in zip(table, (1, 2), strict=True):
        assert np.allclose(row, by_loops(prediction, label, steps, 2.6, index))


def test_the_affine_of_a_sheared_volume_decides_on_distances_and_on_the_diagonal():
    # stored as columns, rows from front to back, planes
    affine = np.eye(4)
    affine[:3, :3] = [[-1, 0, 0], [0, -1.5, 1.2], [0, 0, 4]]
    shape = (20, 30, 8)
    canonical = describe(shape, affine, 1, "int16", "auto").canonical
    steps = np.reshape(canonical, (4, 4))[:3, :3].T
    for shift in (8, -8):
        label, prediction = np.zeros(shape[::-1], np.uint8), np.zeros(shape[::-1], np.uint8)
        label[2, 15, 10] = prediction[6, 15 + shift, 10] = 1
        values, _ = scored_by(steps, prediction, label)
        true = np.linalg.norm(affine[:3, :3] @ [0, shift, 4])
        assert values[[0, 2], 0] == pytest.approx([true] * 2)
        missed, _ = scored_by(steps, np.zeros_like(label), label)
        assert missed[0, 0] == pytest.approx(np.linalg.norm(affine[:3, :3] @ (20, -30, 8)))


def test_predictions_where_nothing_is_scored_change_no_sum():
    label, prediction = blobs((6, 12, 12), 1), blobs((6, 12, 12), 2)
    label[2:4, 3:9] = IGNORE
    other = np.where(label == IGNORE, (prediction + 1) % 3, prediction).astype(np.uint8)
    other[label == IGNORE] = np.random.default_rng(0).integers(0, 250, int((label == IGNORE).sum()))
    sums = [surface_sums(p, label, [1, 2], STEPS, 2.0) for p in (prediction, other)]
    assert (sums[0] == sums[1]).all() and sums[0].any()


def test_an_edge_to_voxels_that_are_not_scored_is_no_surface():
    label = np.zeros((5, 5, 9), np.uint8)
    label[1:4, 1:4, 1:7] = 1
    whole = surface_sums(label, label, [1], np.eye(3), 1.0)[0]
    label[:, :, 4:] = IGNORE
    part = surface_sums(label, label, [1], np.eye(3), 1.0)[0]
    # three layers of the object are left, of which the last would be whole if its edge were a surface
    assert (whole[0], part[0]) == (9 * 6 - 4, 9 + 8 + 8)


def test_a_perfect_prediction_has_distance_0_and_all_of_its_surface_within_the_tolerance():
    label = blobs((7, 15, 11), 3)
    values, _ = scored(label, label)
    assert (values == [[0, 0], [1, 1], [0, 0]]).all()


@pytest.mark.parametrize("missing", ["prediction", "label"])
def test_a_class_that_is_missed_has_the_diagonal_of_the_volume_as_distance(missing):
    label = np.zeros((10, 24, 24), np.uint8)
    label[4:7, 8:12, 9:13] = 1
    pair = {"prediction": label, "label": label} | {missing: np.zeros_like(label)}
    values, sums = scored(**pair, spacing=(15.5, 10, 10), tolerance=5000.0, foreground=[1])
    # that of a volume of BraTS, 155 x 240 x 240 mm
    assert values[:, 0] == pytest.approx([373.1287, 0, 373.1287])
    assert sums["true" if missing == "prediction" else "predicted"] > 0


def test_a_class_in_neither_adds_nothing():
    nothing = np.zeros((3, 4, 5), np.uint8)
    assert not surface_sums(nothing, nothing, [1, 2], STEPS, 2.0).any()


def test_a_distance_of_exactly_the_tolerance_is_within_it_wherever_the_object_is():
    steps = np.float32([0.7, 0.1, 0.3]).astype(float)
    for shift in range(1, 40):
        label, prediction = np.zeros((2, 60, 60), np.uint8), np.zeros((2, 60, 60), np.uint8)
        label[0, shift, shift] = prediction[0, shift + 3, shift] = 1
        sums = dict(zip(SUMS, surface_sums(prediction, label, [1], np.diag(steps), 0.3)[0], strict=True))
        assert (sums["true_within"], sums["predicted_within"]) == (1, 1)


def test_spacing_is_that_of_planes_rows_and_columns():
    for axis, step in enumerate(SPACING):
        label, prediction = np.zeros((8, 8, 8), np.uint8), np.zeros((8, 8, 8), np.uint8)
        place = [3, 3, 3]
        label[tuple(place)] = 1
        place[axis] = 5
        prediction[tuple(place)] = 1
        values, _ = scored(prediction, label, foreground=[1])
        assert values[[0, 2], 0] == pytest.approx([2 * step] * 2)


def test_a_volume_of_one_plane_is_compared_in_its_plane():
    label = np.zeros((1, 20, 20), np.uint8)
    label[0, 5:15, 5:15] = 1
    sums = surface_sums(label, label, [1], STEPS, 1.0)[0]
    assert sums[0] == 10 * 10 - 8 * 8


def test_far_voxels_of_one_class_do_not_change_those_of_another():
    label = np.zeros((6, 30, 30), np.uint8)
    label[2:4, 4:9, 4:9], label[1:3, 20:25, 20:25] = 1, 2
    prediction = label.copy()
    prediction[5, 29, 29] = 2
    sums = surface_sums(prediction, label, [1, 2], STEPS, 1.0)
    assert (sums[0] == surface_sums(label, label, [1, 2], STEPS, 1.0)[0]).all() and sums[1][3] > 10
