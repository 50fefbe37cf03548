"""Augmentation as nnU-Net's: rotation, noise, blur, low resolution and gamma; and elastic deformation as U-Net's.

`train.common.augment.strength` multiplies the probability of each change. Ranges stay those of nnU-Net (Isensee et al.,
Nature Methods 18, 2021; values of its code, version 2): they say what images may look like, probabilities how often.
Each change is drawn once per crop and is the same in all channels, whereas nnU-Net draws most by channel: bands of a
picture keep their colour, and neighbouring planes of a volume their place.

Both samplers use these functions, so that they agree on any device.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from segcore.constants import IGNORE
from segcore.data.prepared import LabelledImage
from segcore.params.training import Augment

# at strength 1; nnU-Net v2 has no elastic deformation, .2 is that of v1
_PROBABILITIES = {
    "rotation": 0.2,
    "elastic": 0.2,
    "noise": 0.1,
    "blur": 0.2,
    "low_resolution": 0.25,
    "gamma_inverted": 0.1,
    "gamma": 0.3,
}
# Any angle where quarter turns are allowed, because such images have no upright direction. Otherwise nnU-Net's limit
# for volumes, whose axes have a meaning.
_ANY_ANGLE, _UPRIGHT_ANGLE = math.pi, math.radians(30)
# Standard deviation of displacements, relative to the side, on a grid of 3 x 3 points: U-Net (Ronneberger et al. 2015)
# has 10 of 512 pixels.
_BEND, _BEND_POINTS = 0.02, 3
# relative to the standard deviation of the training split; nnU-Net calls it variance, but uses it as this
_LARGEST_NOISE = 0.1
_BLUR_SIGMA = (0.5, 1.0)
_LOWEST_ZOOM = 0.5
_GAMMA_RANGE = (0.7, 1.5)
# Positions are whole multiples of a pixel's 1/256, so that labels are the same on every device.
_BITS = 8
_TINY = torch.finfo(torch.float32).tiny


class Warp(NamedTuple):
    """Rotation about the centre of a crop window, and elastic deformation.

    Attributes:
        top: first row of the crop window in its training window, which pixels may be taken from.
        left: its first column there.
        angle: in radians.
        bend: (2, 3, 3) float64 displacements of rows and columns on a coarse grid, relative to the side; or None.
    """

    top: int
    left: int
    angle: float
    bend: Tensor | None


class StrongAugmentation(NamedTuple):
    """Changes of one crop beside those that are always drawn; None where one is not drawn.

    Attributes:
        warp: rotation and elastic deformation.
        noise: standard deviation, relative to that of the training split, and seed of Gaussian noise.
        blur: standard deviation of the Gaussian in pixels.
        zoom: side of the simulated low resolution relative to the crop's.
        gamma_inverted: exponent for inverted values.
        gamma: exponent.
    """

    warp: Warp | None
    noise: tuple[float, int] | None
    blur: float | None
    zoom: float | None
    gamma_inverted: float | None
    gamma: float | None

    @classmethod
    def draw(
        cls, options: Augment, corner: tuple[int, int], rng: np.random.Generator
    ) -> "StrongAugmentation":
        """Draw the changes of a crop; a higher strength only adds changes, because as many numbers are always drawn.

        Args:
            options: strength and rotate90.
            corner: first row and column of the crop window in its training window.
            rng: random generator.
        """
        chances = zip(_PROBABILITIES.items(), rng.random(len(_PROBABILITIES)), strict=True)
        on = {name: chance < options.strength * probability for (name, probability), chance in chances}
        limit = _ANY_ANGLE if options.rotate90 else _UPRIGHT_ANGLE
        angle = rng.uniform(-limit, limit)
        bend = torch.from_numpy(rng.normal(0, _BEND, (2, _BEND_POINTS, _BEND_POINTS)))
        noise = (rng.uniform(0, _LARGEST_NOISE), int(rng.integers(2**63)))
        blur, zoom = rng.uniform(*_BLUR_SIGMA), rng.uniform(_LOWEST_ZOOM, 1)
        gamma_inverted, gamma = _exponent(rng), _exponent(rng)
        warp = Warp(*corner, angle if on["rotation"] else 0, bend if on["elastic"] else None)
        return cls(
            warp if on["rotation"] or on["elastic"] else None,
            noise if on["noise"] else None,
            blur if on["blur"] else None,
            zoom if on["low_resolution"] else None,
            gamma_inverted if on["gamma_inverted"] else None,
            gamma if on["gamma"] else None,
        )


def _exponent(rng: np.random.Generator) -> float:
    """Below and above 1 with equal probability, as nnU-Net."""
    below, at = rng.random() < 0.5, rng.random()
    low, high = (_GAMMA_RANGE[0], 1) if below else (1, _GAMMA_RANGE[1])
    return float(low + (high - low) * at)


def copied(values: Tensor, device: torch.device) -> Tensor:
    """Values of the CPU on the device, which the CPU does not wait for."""
    pinned = values.pin_memory() if device.type == "cuda" else values
    return pinned.to(device, non_blocking=True)


def positions(warp: Warp, side: int, device: torch.device) -> Tensor:
    """(2, side, side) int32 rows and columns in the training window, in 1/256 pixel, of the pixels of a crop window."""
    centre = (side - 1) / 2
    along = torch.arange(side, dtype=torch.float64, device=device) - centre
    rows, cols = along[:, None], along[None]
    cosine, sine = math.cos(warp.angle), math.sin(warp.angle)
    at = torch.stack([rows * cosine - cols * sine, rows * sine + cols * cosine])
    if warp.bend is not None:
        points = torch.eye(_BEND_POINTS, dtype=torch.float64, device=device)[None, None]
        # bicubic, one axis after the other
        spread = functional.interpolate(points, (side, _BEND_POINTS), mode="bicubic", align_corners=True)[0]
        at += side * (spread @ copied(warp.bend, device) @ spread.mT)
    at[0] += warp.top + centre
    at[1] += warp.left + centre
    return at.mul_(2**_BITS).round_().int()


def nearest_pixels(at: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns, int64, of the pixels nearest to positions (2, H, W), and whether they are in the window.

    Args:
        at: as of `positions`.
        window: side of the training window in pixels; rows and columns beyond it are clamped.
    """
    row, col = (at.long() + 2 ** (_BITS - 1)) >> _BITS
    inside = (row >= 0) & (row < window) & (col >= 0) & (col < window)
    return row.clamp(0, window - 1), col.clamp(0, window - 1), inside


def warped(planes: Tensor, at: Tensor) -> Tensor:
    """Pixels at positions, (C, H, W) float32: the bilinear mean of the valid ones.

    Where there are none it is the mean of all valid pixels, so that the mean of the crop, which contrast is changed
    about, is that of the image.

    Args:
        planes: (C + 1, window, window) float32: channels, 0 where invalid, and validity, 0 or 1.
        at: (2, H, W) as of `positions`.
    """
    largest = (planes.shape[-1] - 1) << _BITS
    grid = (at.flip(0).permute(1, 2, 0).float() * (2 / largest) - 1)[None]
    sampled = functional.grid_sample(planes[None], grid, align_corners=True)[0]
    values, weights = sampled[:-1], sampled[-1:]
    sums = planes.sum((1, 2))[:, None, None]
    mean = sums[:-1] / sums[-1:].clamp(min=1)
    return torch.where(weights > 0, values / weights, mean)


def warped_patch(patch: LabelledImage, warp: Warp, side: int) -> LabelledImage:
    """The crop window (side, side) of a training window, warped; what lies outside is ignored and invalid.

    Labels, validity and object numbers are those of the nearest pixel. 8-bit values stay 8-bit values, others become
    float32; invalid ones have no meaning.
    """
    at = positions(warp, side, torch.device("cpu"))
    image, window = patch.image, patch.image.shape[0]
    planes = np.empty((image.shape[-1] + 1, window, window), np.float32)
    planes[-1] = patch.valid
    # band by band, which is several times as fast
    for band in range(len(planes) - 1):
        planes[band] = image[..., band]
    pixels = warped(torch.from_numpy(planes), at)
    if image.dtype == np.uint8:
        pixels = pixels.round_().to(torch.uint8)
    row, col, inside = nearest_pixels(at, window)
    chosen, outside = (row * window + col).numpy(), ~inside.numpy()

    def moved(mask: np.ndarray, fill: int) -> np.ndarray:
        taken: np.ndarray = mask.take(chosen)
        taken[outside] = fill
        return taken

    return LabelledImage(
        pixels.permute(1, 2, 0).numpy(),
        moved(patch.label, IGNORE),
        moved(patch.valid, False),
        None if patch.instances is None else moved(patch.instances, 0),
    )


def change_intensities(image: Tensor, valid: Tensor, std: Tensor, changes: StrongAugmentation) -> None:
    """Add noise, blur, lower the resolution and apply gamma, in place; values may have any range.

    Invalid pixels are neither changed nor used.

    Args:
        image: (C, H, W) float32.
        valid: (H, W) bool.
        std: (C,) float32 of the training split.
        changes: of the crop.
    """
    x = image
    if changes.noise is not None:
        share, seed = changes.noise
        drawn = np.random.default_rng(seed).standard_normal(tuple(x.shape), dtype=np.float32)
        x = x + copied(torch.from_numpy(drawn), x.device) * (share * std[:, None, None])
    if changes.blur is not None:
        x = _of_valid(_blurred, x, valid, changes.blur)
    if changes.zoom is not None:
        x = _of_valid(_low_resolution, x, valid, changes.zoom)
    if changes.gamma_inverted is not None:
        x = -_gamma(-x, valid, changes.gamma_inverted)
    if changes.gamma is not None:
        x = _gamma(x, valid, changes.gamma)
    if x is not image:
        image.copy_(torch.where(valid, x, image))


def _of_valid(smooth: Callable[[Tensor, float], Tensor], x: Tensor, valid: Tensor, amount: float) -> Tensor:
    """The mean of valid pixels, weighted as `smooth(planes, amount)` does; unchanged where it weights none."""
    sums = smooth(torch.cat([x * valid, valid[None].float()]), amount)
    return torch.where(sums[-1:] > 0, sums[:-1] / sums[-1:], x)


def _blurred(planes: Tensor, sigma: float) -> Tensor:
    """Gaussian filter, cut off at four standard deviations as scipy's; 0 beyond the planes."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (-2, -1):
        length = planes.shape[axis]
        total = planes * float(weights[radius])
        for step in range(1, radius + 1):
            before, after = planes.narrow(axis, 0, length - step), planes.narrow(axis, step, length - step)
            total.narrow(axis, step, length - step).add_(before, alpha=float(weights[radius + step]))
            total.narrow(axis, 0, length - step).add_(after, alpha=float(weights[radius + step]))
        planes = total
    return planes


def _low_resolution(planes: Tensor, zoom: float) -> Tensor:
    """Nearest neighbours of a coarser grid, enlarged bilinearly, as nnU-Net."""
    size = planes.shape[-2:]
    small = functional.interpolate(planes[None], size=[round(s * zoom) for s in size], mode="nearest-exact")
    return functional.interpolate(small, size=size, mode="bilinear", align_corners=False)[0]


def _gamma(x: Tensor, valid: Tensor, exponent: float) -> Tensor:
    """Each channel, scaled to 0..1, to a power; mean and standard deviation are kept, as nnU-Net does."""
    centred, mean, std = _centred(x, valid)
    low, high = (limit[:, None, None] for limit in centred.flatten(1).aminmax(dim=1))
    powers = centred.sub_(low).div_((high - low).clamp(min=_TINY)).pow_(exponent)
    centred, _, new_std = _centred(powers, valid)
    return centred.mul_(std / new_std.clamp(min=_TINY)).add_(mean)


def _centred(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Differences from the mean, 0 where invalid; mean and standard deviation of the valid pixels, (C, 1, 1) each."""
    count = valid.sum().clamp(min=1)
    mean = (x * valid).sum((1, 2), keepdim=True) / count
    centred = (x - mean).mul_(valid)
    return centred, mean, torch.linalg.vector_norm(centred, dim=(1, 2), keepdim=True) / count.sqrt()
