"""Tiled inference: every pixel is covered, there are no seams, and a higher scene needs no more memory."""

import numpy as np
import pytest
import torch
from torch import nn

from segcore.data.prepared import LabelledImage
from segcore.errors import ParamsError
from segcore.inference.tiling import blend_weights, predict_bands, predict_patch, tile_starts
from segcore.inference.tta import FlipAveraged
from segcore.models.base.factory import build_model
from segcore.models.base.semantic import SemanticModel


class Small(SemanticModel):
    """Two 3x3 convolutions: a receptive field of 5 pixels."""

    def __init__(self) -> None:
        super().__init__(3, 2, "small", 1)
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))

    def segment(self, x):
        return self.layers(x)


def patch(height, width, seed=0):
    image = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    return LabelledImage(image, np.zeros((height, width), np.uint8), np.ones((height, width), bool))


@pytest.mark.parametrize("size", [(100, 130), (64, 64), (65, 127)])
@pytest.mark.parametrize("overlap", [16, 24])
def test_tiled_equals_whole_seams_included(size, overlap):
    model, whole = Small(), patch(*size)
    tiled = predict_patch(model, whole, 48, overlap)
    at_once = predict_patch(model, whole, 256, 0)
    assert np.allclose(tiled, at_once, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 5), (48, 48), (49, 95), (96, 10), (97, 144)])
@pytest.mark.parametrize("overlap", [0, 1, 5, 24])
def test_every_pixel_is_covered_and_probabilities_sum_to_one(size, overlap):
    probabilities = predict_patch(Small(), patch(*size), 48, overlap)
    assert probabilities.shape == (2, *size)
    assert np.allclose(probabilities.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(10, 20, 5), (20, 20, 0), (21, 20, 0), (100, 20, 9), (41, 20, 10)]
)
def test_tiles_cover_and_weights_never_vanish(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    total = np.zeros(length)
    for i, start in enumerate(starts):
        size = min(tile, length)
        total[start : start + size] += blend_weights(size, overlap, i == 0, i == len(starts) - 1)
    assert starts[0] == 0 and (total > 0).all()


def test_an_overlap_of_more_than_half_a_tile_is_refused():
    with pytest.raises(ParamsError, match="more than half"):
        tile_starts(100, 20, 11)


def test_one_row_of_tiles_is_in_memory_however_high_the_scene():
    sizes = {}
    for height in (96, 384):
        scene = patch(height, 64)

        def read(row, col, tall, wide, scene=scene):
            part = (slice(row, row + tall), slice(col, col + wide))
            return LabelledImage(scene.image[part], scene.label[part], scene.valid[part])

        bands = list(predict_bands(Small(), read, height, 64, 48, 8))
        sizes[height] = max(b.shape[1] for _, b in bands)
        assert [row for row, _ in bands] == list(np.cumsum([0, *(b.shape[1] for _, b in bands)])[:-1])
        assert sum(b.shape[1] for _, b in bands) == height
    assert sizes[384] <= sizes[96] <= 48


def test_the_prediction_does_not_depend_on_batch_size():
    model, images = Small(), torch.rand(5, 3, 40, 33)
    together = model.predict(images)
    alone = torch.cat([model.predict(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-6)


class ByTile(SemanticModel):
    """Probability of class 1: 0.9 in bright tiles and 0.4 in dark ones."""

    def __init__(self) -> None:
        super().__init__(3, 2, "by tile", 1)
        self.unused = nn.Conv2d(3, 2, 1)

    def segment(self, x):
        p = torch.where(x.mean(dim=(1, 2, 3)) > 0.5, 0.9, 0.4)
        return torch.stack([1 - p, p], dim=1).log()[..., None, None].expand(-1, -1, *x.shape[-2:])


def test_probabilities_are_blended_before_the_argmax():
    image = np.zeros((32, 48, 3), np.float32)
    # the left tile (columns 0 to 31) is bright on average, the right one (16 to 47) is dark
    image[:, :16] = 2
    scene = LabelledImage(image, np.zeros((32, 48), np.uint8), np.ones((32, 48), bool))
    blended = predict_patch(ByTile(), scene, 32, 16)[1, 0]
    left = blend_weights(32, 16, True, False)[16:]
    right = blend_weights(32, 16, False, True)[:16]
    assert np.allclose(blended[:16], 0.9) and np.allclose(blended[32:], 0.4)
    assert np.allclose(blended[16:32], (0.9 * left + 0.4 * right) / (left + right), atol=1e-6)
    # the argmaxes of the two tiles differ here
    assert 0.5 < blended[23] < 0.9


def test_flips_give_the_mean_over_mirror_images():
    torch.manual_seed(0)
    model = build_model("unet", 3, 2, encoder="plain", width=4).eval()
    image = torch.rand(1, 3, 40, 56) * 255
    valid = torch.rand(1, 40, 56) > 0.1
    averaged = FlipAveraged(model).eval().predict(image, valid)
    views = [
        model.predict(image.flip(axes), valid.flip(axes)).flip(axes) for axes in ((), (-1,), (-2,), (-2, -1))
    ]
    assert torch.allclose(averaged, torch.stack(views).mean(0), atol=1e-6)
    assert not torch.allclose(averaged, views[0], atol=1e-3)
    mirrored = FlipAveraged(model).eval().predict(image.flip(-1), valid.flip(-1)).flip(-1)
    # which does not hold for the model itself
    assert torch.allclose(averaged, mirrored, atol=1e-6)
