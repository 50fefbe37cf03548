"""Changes as nnU-Net's: against scipy and MONAI, for any range of values, and drawn as documented."""

import math

import numpy as np
import pytest
import torch
from monai.transforms import AdjustContrast
from scipy import ndimage

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.params import TrainSettings
from segcore.params.training import Augment
from segcore.training import augmentation
from segcore.training.augmentation import (
    StrongAugmentation,
    Warp,
    change_intensities,
    positions,
    warped_patch,
)
from segcore.training.sampler import Sampler

CPU = torch.device("cpu")
NONE = StrongAugmentation(None, None, None, None, None, None)
EACH = {
    "noise": NONE._replace(noise=(0.1, 5)),
    "blur": NONE._replace(blur=0.9),
    "low resolution": NONE._replace(zoom=0.6),
    "gamma": NONE._replace(gamma=0.7),
    "inverted gamma": NONE._replace(gamma_inverted=1.5),
    "all": StrongAugmentation(None, (0.1, 5), 0.7, 0.8, 0.8, 1.3),
}
BEND = torch.from_numpy(np.random.default_rng(1).normal(0, 0.02, (2, 3, 3)))


def image_of(side=40, bands=3):
    """Smooth float32 (bands, side, side) with values of 0 to 255, and its validity."""
    noise = np.random.default_rng(0).uniform(0, 255, (bands, side, side))
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1)).astype(np.float32)
    return torch.from_numpy(smooth), torch.ones(side, side, dtype=torch.bool)


def changed(image, valid, changes, std=(1.0, 1.0, 1.0)):
    result = image.clone()
    change_intensities(result, valid, torch.tensor(std), changes)
    return result


def patch_of(side=60, dtype=np.float32):
    rng = np.random.default_rng(2)
    label = np.kron(rng.integers(0, 3, (side // 10, side // 10)), np.ones((10, 10), int)).astype(np.uint8)
    image = np.stack([label * 80 + 10, 250 - label * 60], axis=-1).astype(dtype)
    return LabelledImage(image, label, np.ones(label.shape, bool), label.astype(np.uint32) * 2_000_000_000)


def test_pixels_are_rotated_as_by_scipy_and_labels_by_nearest_neighbour():
    patch, side, angle = patch_of(), 32, 0.6
    found = warped_patch(patch, Warp(10, 20, angle, None), side)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([(side - 1) / 2] * 2)
    offset = middle + np.array([10, 20]) - turn @ middle
    options = {"offset": offset, "output_shape": (side, side)}
    for band in range(2):
        expected = ndimage.affine_transform(patch.image[..., band], turn, order=1, **options)
        inside = ndimage.affine_transform(np.ones((60, 60)), turn, order=1, **options) == 1
        assert inside.mean() > 0.9
        # positions are rounded to 1/256 pixel, neighbours differ by up to 160
        assert np.abs(found.image[..., band] - expected)[inside].max() < 160 / 256
    # scipy takes nothing from beyond the centres of the last pixels
    wider = np.pad(patch.label, 1, mode="edge")
    expected = ndimage.affine_transform(wider, turn, order=0, **options | {"offset": offset + 1})
    assert (found.label == expected)[found.valid].mean() > 0.995


def test_pixels_and_labels_are_bent_to_the_drawn_positions():
    patch, side = patch_of(), 33
    warp = Warp(12, 14, 0.0, BEND)
    at = positions(warp, side, CPU).numpy() / 256
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    moved = at - grid - np.array([12, 14])[:, None, None]
    # the coarse grid's points are at corners, at the middles of edges and in the centre
    assert np.allclose(moved[:, ::16, ::16], BEND.numpy() * side, atol=1 / 256)
    assert 0.1 < np.abs(moved).max() < 3
    assert np.abs(np.diff(moved, axis=1)).max() < 0.3, "neighbouring pixels stay neighbours"
    found = warped_patch(patch, warp, side)
    for band in range(2):
        expected = ndimage.map_coordinates(patch.image[..., band], at, order=1)
        assert np.allclose(found.image[..., band], expected, atol=0.01)
    nearest = np.floor(at + 0.5).astype(int)
    assert np.array_equal(found.label, patch.label[nearest[0], nearest[1]]) and found.valid.all()
    assert np.array_equal(found.instances, patch.instances[nearest[0], nearest[1]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_warp_of_nothing_changes_nothing_and_8_bit_values_stay(dtype):
    patch = patch_of(dtype=dtype)
    found = warped_patch(patch, Warp(7, 9, 0.0, None), 30)
    inside = (slice(7, 37), slice(9, 39))
    assert found.image.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert np.allclose(found.image, patch.image[inside], atol=1e-2)
    assert np.array_equal(found.label, patch.label[inside])
    assert np.array_equal(found.instances, patch.instances[inside]) and found.instances.dtype == np.uint32


def test_pixels_outside_are_ignored_and_invalid_ones_are_not_mixed_into_others():
    patch = patch_of()
    image, valid = np.full((60, 60, 2), 280, np.float32), np.ones((60, 60), bool)
    image[20:30, 25:40], valid[20:30, 25:40] = 0, False
    patch = LabelledImage(image, patch.label, valid, patch.instances)
    found = warped_patch(patch, Warp(0, 0, math.pi / 4, BEND), 60)
    corners = found.label[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == IGNORE).all() and 0.1 < (found.label == IGNORE).mean() < 0.25
    assert (
        not found.valid[found.label == IGNORE].any() and (found.instances[found.label == IGNORE] == 0).all()
    )
    assert 100 < (~found.valid & (found.label != IGNORE)).sum() < 200
    # neither darkened at the edges, nor beyond them, where contrast would be changed about another mean
    assert np.allclose(found.image, 280, atol=0.01)


def test_noise_has_the_drawn_standard_deviation_of_each_band():
    image, valid = image_of(128)
    noise = (changed(image, valid, EACH["noise"], std=(1.0, 10.0, 100.0)) - image).numpy()
    assert np.allclose(noise.std((1, 2)), [0.1, 1, 10], rtol=0.03)
    assert np.abs(noise.mean((1, 2)) / noise.std((1, 2))).max() < 0.03
    assert np.abs(np.corrcoef(noise.reshape(3, -1)) - np.eye(3)).max() < 0.05


@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.0])
def test_blur_is_that_of_scipy_over_valid_pixels(sigma):
    image, valid = image_of()
    valid[10:20, 5:15] = False

    def filtered(x):
        return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="constant")

    mask = valid.numpy()[None].astype(np.float32)
    expected = filtered(image.numpy() * mask) / np.maximum(filtered(mask), 1e-6)
    found = changed(image, valid, NONE._replace(blur=sigma)).numpy()
    assert np.allclose(found[:, valid], expected[:, valid], atol=1e-3)
    assert np.abs(found - image.numpy())[:, valid].max() > 1


@pytest.mark.parametrize("zoom", [0.5, 0.73])
def test_low_resolution_is_that_of_scipy(zoom):
    image, valid = image_of()
    size = round(40 * zoom)
    kept = np.floor((np.arange(size) + 0.5) * 40 / size).astype(int)
    small = image.numpy()[:, kept][:, :, kept]
    expected = ndimage.zoom(small, (1, 40 / size, 40 / size), order=1, mode="nearest", grid_mode=True)
    assert np.allclose(changed(image, valid, NONE._replace(zoom=zoom)), expected, atol=1e-2)


@pytest.mark.parametrize("exponent", [0.7, 1.5])
@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_that_of_monai(exponent, inverted):
    image, valid = image_of()
    changes = NONE._replace(**{"gamma_inverted" if inverted else "gamma": exponent})
    found = changed(image, valid, changes)
    for band in range(3):
        other = AdjustContrast(exponent, invert_image=inverted, retain_stats=True)
        expected = torch.as_tensor(other(image[band][None]))[0]
        assert torch.allclose(found[band], expected, atol=0.01)
    assert (found - image).abs().max() > 5


@pytest.mark.parametrize("name", EACH)
def test_changes_do_not_depend_on_the_range_of_values(name):
    image, valid = image_of()
    valid[:9, 30:] = False
    plain = changed(image, valid, EACH[name], std=(30.0, 30.0, 30.0))
    assert not torch.equal(plain, image)
    for factor, offset in ((1e-3, 0.0), (10.0, -2000.0), (1 / 255, -0.5)):
        other = changed(image * factor + offset, valid, EACH[name], std=(30 * factor,) * 3)
        assert torch.allclose((other - offset) / factor, plain, atol=0.05)


@pytest.mark.parametrize("name", EACH)
def test_invalid_pixels_are_neither_changed_nor_used(name):
    image, valid = image_of()
    valid[12:25, 10:33] = False
    image[:, ~valid] = 0
    plain = changed(image, valid, EACH[name])
    assert (plain[:, ~valid] == 0).all()
    image[:, ~valid] = 5000
    other = changed(image, valid, EACH[name])
    assert torch.allclose(other[:, valid], plain[:, valid], atol=1e-3) and (other[:, ~valid] == 5000).all()


@pytest.mark.parametrize("name", EACH)
def test_constant_and_invalid_crops_stay_finite(name):
    image, valid = torch.full((3, 20, 20), 7.0), torch.ones(20, 20, dtype=torch.bool)
    assert torch.allclose(changed(image, valid, EACH[name], std=(0.0, 0.0, 0.0)), image, atol=1e-4)
    assert torch.equal(changed(image, ~valid, EACH[name]), image)


def test_changes_are_as_frequent_as_documented_and_a_higher_strength_only_adds_some():
    count, drawn = 4000, {}
    for strength in (0.5, 1.0):
        rng = np.random.default_rng(0)
        drawn[strength] = [
            StrongAugmentation.draw(Augment(strength=strength), (0, 0), rng) for _ in range(count)
        ]
        chances = {"warp": 1 - (1 - 0.2 * strength) ** 2, "noise": 0.1 * strength, "blur": 0.2 * strength}
        chances |= {"zoom": 0.25 * strength, "gamma_inverted": 0.1 * strength, "gamma": 0.3 * strength}
        for name, chance in chances.items():
            found = np.mean([getattr(d, name) is not None for d in drawn[strength]])
            assert abs(found - chance) < 4 * math.sqrt(chance * (1 - chance) / count), name
    for half, whole in zip(drawn[0.5], drawn[1.0], strict=True):
        assert all(h is None or h == w for h, w in zip(half[1:], whole[1:], strict=True))
    gammas = np.array([d.gamma for d in drawn[1.0] if d.gamma is not None])
    assert 0.7 <= gammas.min() < 0.72 and 1.47 < gammas.max() <= 1.5 and abs((gammas < 1).mean() - 0.5) < 0.06


@pytest.mark.parametrize(("rotate90", "limit"), [(True, 180), (False, 30)])
def test_images_with_an_upright_direction_are_rotated_by_30_degrees_at_most(rotate90, limit):
    rng, options = np.random.default_rng(0), Augment(strength=1, rotate90=rotate90)
    warps = [StrongAugmentation.draw(options, (0, 0), rng).warp for _ in range(2000)]
    angles = np.degrees([w.angle for w in warps if w is not None])
    assert 0.95 * limit < np.abs(angles).max() <= limit


def of_strength(prepared_scene, strength, **augment):
    p, data = prepared_scene
    options = {"steps": 3, "batch": 6, "crop": 32, "validate_every": 3}
    settings = TrainSettings(**options, augment={"strength": strength, **augment})
    return Sampler(data, settings, p.prepare.window, seed=3)


def test_strength_0_draws_nothing_and_every_strength_has_the_same_crops(prepared_scene, monkeypatch):
    off, full = of_strength(prepared_scene, 0), of_strength(prepared_scene, 1)
    for step in range(5):
        plain, strong = off.draws(step), full.draws(step)
        assert all(changes.strong is None for _, changes in plain)
        assert [(w, c[:-1]) for w, c in plain] == [(w, c[:-1]) for w, c in strong]
    different = [i for i in range(6) if not torch.equal(off.batch(0)["image"][i], full.batch(0)["image"][i])]
    assert 1 <= len(different) <= 5
    monkeypatch.setattr(augmentation, "_PROBABILITIES", dict.fromkeys(augmentation._PROBABILITIES, 0))
    plain, strong = off.batch(0), full.batch(0)
    assert all(torch.equal(plain[name], strong[name]) for name in plain)


def test_batches_of_strength_0_are_those_from_before_it_existed(prepared_scene):
    batch = of_strength(prepared_scene, 0).batch(2)
    means = [26.2894003634, 30.9096933759, 92.0190900850, 61.6889723390, 85.2625815868, 35.6745605102]
    assert int((batch["label"] * torch.arange(6 * 32 * 32).view(6, 32, 32)).sum()) == 952478997
    assert np.allclose(batch["image"].double().mean((1, 2, 3)), means, rtol=1e-6)


def test_a_batch_is_a_function_of_its_step_and_parts_equal_the_whole(prepared_scene):
    one, two = (of_strength(prepared_scene, 1) for _ in range(2))
    one.batch(0)
    whole, again, part = one.batch(7), two.batch(7), two.batch(7, slice(2, 5))
    for name in whole:
        assert torch.equal(whole[name], again[name]) and torch.equal(whole[name][2:5], part[name])


def test_image_and_mask_move_together(prepared_scene, monkeypatch):
    only = {"rotation": 1, "elastic": 1}
    monkeypatch.setattr(
        augmentation, "_PROBABILITIES", {k: only.get(k, 0) for k in augmentation._PROBABILITIES}
    )
    host = of_strength(prepared_scene, 1, scale=1.0, brightness=0, contrast=0)
    patch_at = host.data.crop

    def drawn(self, *place, **asked):
        patch = patch_at(*place, **asked)
        image = np.repeat((patch.label == 1)[..., None] * np.uint8(200), 3, axis=2)
        return LabelledImage(image * patch.valid[..., None], patch.label, patch.valid)

    monkeypatch.setattr(type(host.data), "crop", drawn)
    for step in range(4):
        batch = host.batch(step)
        scored = batch["valid"] & (batch["label"] != IGNORE)
        same = (batch["image"][:, 0] > 100) == (batch["label"] == 1)
        # bilinear and nearest neighbours differ only at edges
        assert same[scored].float().mean() > 0.97 and scored.float().mean() > 0.7
