"""Batches: the same for every architecture, image and mask moved together, labels never interpolated."""

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.params import TrainSettings
from segcore.params.training import Augment
from segcore.training.sampler import Sampler, augment


def settings(**over):
    return TrainSettings(steps=1, batch=4, crop=32, validate_every=1, **over)


def test_every_architecture_gets_the_same_crops_and_augmentation(prepared_scene):
    p, data = prepared_scene
    one, two = (Sampler(data, p.for_architecture(a), p.prepare.window, seed=3) for a in ("fcn", "unet"))
    for step in (0, 1, 9):
        a, b = one.batch(step), two.batch(step)
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(one.batch(0)["image"], one.batch(1)["image"])
    assert not torch.equal(
        one.batch(0)["image"], Sampler(data, p.for_architecture("fcn"), 40, 4).batch(0)["image"]
    )


def test_labels_are_resampled_by_nearest_neighbour_only():
    rng = np.random.default_rng(0)
    label = rng.choice([0, 3, IGNORE], (23, 23)).astype(np.uint8)
    patch = LabelledImage(rng.integers(0, 255, (23, 23, 3), dtype=np.uint8), label, np.ones((23, 23), bool))
    for seed in range(20):
        _, changed, _ = augment(patch, settings(), np.ones(3), np.random.default_rng(seed))
        assert set(changed.unique().tolist()) <= {0, 3, IGNORE}


def test_image_and_mask_move_together():
    label = np.zeros((32, 32), np.uint8)
    label[3:9, 5:21] = 1
    patch = LabelledImage(np.repeat(label[..., None] * 200, 3, axis=2), label, np.ones((32, 32), bool))
    geometric = {"brightness": 0, "contrast": 0}
    for seed in range(20):
        image, changed, valid = augment(
            patch, settings(augment=geometric), np.ones(3), np.random.default_rng(seed)
        )
        assert torch.equal(image[0] > 100, changed == 1) and valid.all()


def test_an_augmentation_that_is_off_changes_nothing():
    rng = np.random.default_rng(1)
    patch = LabelledImage(
        rng.integers(0, 255, (32, 32, 2), dtype=np.uint8),
        np.zeros((32, 32), np.uint8),
        np.ones((32, 32), bool),
    )
    off = {"flip": False, "rotate90": False, "brightness": 0, "contrast": 0}
    image, _, _ = augment(patch, settings(augment=off), np.ones(2), rng)
    assert torch.equal(image, torch.from_numpy(np.moveaxis(patch.image, -1, 0).astype(np.float32)))


@pytest.mark.parametrize("side", [20, 45])
@pytest.mark.parametrize("bands", [1, 3, 7])
def test_8_bit_images_are_resized_as_by_pillow_and_within_a_level_of_16_bit_ones(side, bands):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (side, side, bands), dtype=np.uint8)
    off = settings(augment={"flip": False, "rotate90": False, "brightness": 0, "contrast": 0})

    def resized(pixels):
        mask = np.zeros((side, side), np.uint8)
        return augment(LabelledImage(pixels, mask, mask == 0), off, np.ones(bands), rng)[0].numpy()

    eight = resized(image)
    for band in range(bands):
        pillow = Image.fromarray(image[..., band]).resize((off.crop,) * 2, Image.Resampling.BILINEAR)
        assert np.abs(eight[band] - np.asarray(pillow, np.float32)).max() <= 1
    assert np.abs(eight - resized(image.astype(np.uint16))).max() <= 1.01


def test_foreground_is_drawn_more_often_with_a_foreground_share(prepared_scene):
    p, data = prepared_scene
    fraction = {}
    for share in (0.0, 1.0):
        s = p.for_architecture("fcn").model_copy(update={"foreground_share": share, "batch": 8})
        sampler = Sampler(data, s, p.prepare.window, 0)
        fraction[share] = np.mean([(sampler.batch(i)["label"] == 1).float().mean() for i in range(30)])
    assert fraction[1.0] > fraction[0.0] * 1.1


@pytest.mark.parametrize(("seed", "strength"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_crops_stay_inside_training_pixels(prepared_scene, seed, strength):
    p, data = prepared_scene
    augmented = {"augment": Augment(strength=strength)}
    held_out = np.zeros((256, 256), bool)
    for r in data.regions[data.regions["split"] != "train"].itertuples():
        held_out[r.row : r.row + r.height, r.col : r.col + r.width] = True
    read = []
    original = data.crop

    class Recorder:
        statistics, windows, foreground = data.statistics, data.windows, data.foreground
        of_channels, instances = staticmethod(list), False
        annotators = ()

        def for_training(self):
            return self

        def crop(self, item, row, col, height, width, **asked):
            read.append((row, col, height, width))
            return original(item, row, col, height, width, **asked)

    settings = p.for_architecture("fcn").model_copy(update=augmented)
    sampler = Sampler(Recorder(), settings, p.prepare.window, seed)
    for step in range(20):
        sampler.batch(step)
    assert len(read) == 40
    for row, col, height, width in read:
        assert not held_out[max(row - 4, 0) : row + height + 4, max(col - 4, 0) : col + width + 4].any()
