"""Pictures of packed items with their classes drawn over them."""

from pathlib import Path

import numpy as np

from segcore.constants import IGNORE
from segcore.data.packed import Packed
from segcore.plots.overlays import fullest_plane, look
from tests.support.fake_catalogue import pack


def test_overlay_tints_classes_hatches_what_is_not_valid_and_leaves_the_rest(tmp_path: Path) -> None:
    labels = np.zeros((1, 64, 64), np.uint8)
    labels[0, 16:48, 16:48], labels[0, :8], labels[0, :, :4] = 1, IGNORE, IGNORE
    valid = np.ones(labels.shape)
    valid[..., :4] = 0
    pixels = np.full((1, 64, 64, 3), 150, np.uint8) * valid[..., None].astype(np.uint8)
    packed = Packed(pack(tmp_path / "p.safetensors", pixels, labels, valid))
    drawn = look(packed, {1: (255, 0, 0)}, side=64)
    assert drawn.image.shape == drawn.masked.shape == (64, 64, 3)
    inside, edge, outside = drawn.masked[32, 32], drawn.masked[16, 30], drawn.masked[60, 60]
    assert inside[0] > 150 > inside[1] and list(edge) == [255, 0, 0] and list(outside) == [150] * 3
    assert len(np.unique(drawn.masked[:8, 10:], axis=None)) > 1  # ignored: stripes over the image
    assert (drawn.image[4:, 10:] == 150).all()
    assert set(np.unique(drawn.image[:, :4])).isdisjoint({0, 150})  # not valid: stripes in both


def test_large_planes_are_read_by_strides_and_small_ones_enlarged(tmp_path: Path) -> None:
    large = np.zeros((1, 700, 300, 2), np.float32)
    large[:, 350:] = [np.nan, 5]
    valid = np.isfinite(large).all(axis=-1)
    packed = Packed(pack(tmp_path / "l.safetensors", np.nan_to_num(large), np.zeros((1, 700, 300)), valid))
    assert max(look(packed, {1: (255, 0, 0)}, side=64).image.shape) == 117
    small = Packed(pack(tmp_path / "s.safetensors", np.ones((3, 10, 20, 1), np.int16), np.zeros((3, 10, 20))))
    assert look(small, {1: (255, 0, 0)}, side=100).image.shape == (50, 100, 3)
    assert look(small, {1: (255, 0, 0)}, side=100, spacing=(5, 2, 1)).image.shape == (100, 100, 3)


def test_plane_of_a_volume_is_the_one_with_most_of_the_classes() -> None:
    labels = np.zeros((7, 30, 30), np.uint8)
    labels[2, :10], labels[5, :20] = 1, 2
    assert (fullest_plane(labels, [1]), fullest_plane(labels, [1, 2]), fullest_plane(labels, [3])) == (
        2,
        5,
        3,
    )
