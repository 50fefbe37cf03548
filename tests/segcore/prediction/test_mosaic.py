"""Blending over a scene of any size: equal to a prediction in one piece, for any panels."""

import numpy as np
import pytest
import torch
from torch import nn

from segcore.data.prepared import LabelledImage
from segcore.inference.tiling import predict_patch
from segcore.models.base.semantic import SemanticModel
from segcore.prediction import mosaic
from segcore.prediction.grid import Grid
from segcore.prediction.strips import ahead, strips


class Small(SemanticModel):
    """Two 3x3 convolutions: a receptive field of 5 pixels."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__(3, classes, "small", 1)
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, classes, 3, padding=1)
        )

    def segment(self, x):
        return self.layers(x)


class ByTile(SemanticModel):
    """Logits (0, a) in the whole window, where a is the value of its first pixel."""

    def __init__(self) -> None:
        super().__init__(1, 2, "by tile", 1)
        self.unused = nn.Conv2d(1, 2, 1)

    def segment(self, x):
        a = x[:, 0, 0, 0]
        logits = torch.stack([torch.zeros_like(a), a], dim=1)
        return logits[..., None, None].expand(-1, -1, *x.shape[-2:])


def predicted(model, pixels, tile, overlap, blend, max_columns, tmp_path, valid=None):
    """(K, H, W) scores assembled from blocks, which cover each pixel once."""
    height, width = pixels.shape[1:]
    valid = np.ones((height, width), bool) if valid is None else valid

    def read(window):
        row, col, tall, wide = window
        area = (slice(row, row + tall), slice(col, col + wide))
        return pixels[:, *area], valid[area]

    grid = Grid(height, width, tile, overlap, max_columns)
    found = np.full((model.num_classes, height, width), np.nan, np.float32)
    times = np.zeros((height, width), int)
    blending = mosaic.Mosaic(model.eval(), grid, blend, "fp32", tmp_path)
    for block in blending.blocks(ahead(strips(grid, read))):
        rows = slice(block.row, block.row + block.scores.shape[1])
        cols = slice(block.col, block.col + block.scores.shape[2])
        found[:, rows, cols] = block.scores
        times[rows, cols] += 1
    assert (times == 1).all(), "every pixel is covered, and written once"
    return found, grid


@pytest.mark.parametrize("size", [(100, 130), (64, 64), (65, 227), (31, 200)])
@pytest.mark.parametrize("overlap", [16, 24])
@pytest.mark.parametrize("max_columns", [1, 100, 10_000])
@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_tiled_equals_whole_seams_included(size, overlap, max_columns, blend, tmp_path):
    pixels = np.random.default_rng(0).random((3, *size)).astype(np.float32)
    model = Small()
    tiled, grid = predicted(model, pixels, 48, overlap, blend, max_columns, tmp_path)
    with torch.inference_mode():
        logits = model.eval()(torch.from_numpy(pixels)[None])[0]
    whole = logits.softmax(0) if blend == "probabilities" else logits
    assert np.allclose(tiled, whole, atol=1e-5)
    assert max_columns != 1 or len(grid.cols) < 3 or len(grid.panels) == len(grid.cols) - 1, (
        "there are several panels"
    )


@pytest.mark.parametrize("size", [(7, 5), (48, 48), (49, 95), (96, 10), (97, 244)])
@pytest.mark.parametrize("overlap", [0, 1, 5, 24])
@pytest.mark.parametrize("max_columns", [1, 10_000])
def test_every_pixel_is_covered_and_probabilities_sum_to_one(size, overlap, max_columns, tmp_path):
    pixels = np.random.default_rng(0).random((3, *size)).astype(np.float32)
    found, _ = predicted(Small(), pixels, 48, overlap, "probabilities", max_columns, tmp_path)
    assert np.allclose(found.sum(0), 1, atol=1e-5)


def test_scenes_are_predicted_as_in_the_evaluation(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (3, 117, 203), dtype=np.uint8)
    valid = np.random.default_rng(2).random((117, 203)) > 0.1
    valid[:60, 100:] = False
    patch = LabelledImage(np.moveaxis(pixels, 0, -1), np.zeros((117, 203), np.uint8), valid)
    evaluated = predict_patch(Small(), patch, 48, 16)
    found, _ = predicted(Small(), pixels, 48, 16, "probabilities", 100, tmp_path, valid)
    assert np.allclose(found[:, valid], evaluated[:, valid], atol=1e-5)


@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_scores_are_blended_before_the_argmax(blend, tmp_path):
    left, right = 9.0, -0.5
    pixels = np.zeros((1, 32, 48), np.float32)
    # the first pixels of the two windows
    pixels[0, 0, 0], pixels[0, 0, 16] = left, right
    found, _ = predicted(ByTile(), pixels, 32, 16, blend, 10_000, tmp_path)
    fade = np.clip((np.arange(16) + 0.5 - 4) / 8, 0, 1)
    weight_left = fade[::-1] / (fade + fade[::-1])

    def probability(logit):
        return 1 / (1 + np.exp(-logit))

    if blend == "probabilities":
        wanted = probability(left) * weight_left + probability(right) * (1 - weight_left)
        assert np.allclose(found[1, 0, 16:32], wanted, atol=1e-5)
        classes = wanted > 0.5
    else:
        wanted = left * weight_left + right * (1 - weight_left)
        assert np.allclose(found[1, 0, 16:32] - found[0, 0, 16:32], wanted, atol=1e-5)
        classes = wanted > 0
    assert np.array_equal(mosaic.classes(torch.from_numpy(found))[0, 16:32], classes)
    # the windows' class labels, averaged with the same weights
    votes = weight_left > 0.5
    assert (votes.sum(), classes.sum()) == (8, 10 if blend == "probabilities" else 12)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_classes_are_those_of_argmax(count):
    scores = torch.randint(0, 4, (count, 30, 40)).float()  # with ties
    assert np.array_equal(mosaic.classes(scores).numpy(), scores.numpy().argmax(0))


def test_windows_without_a_valid_pixel_are_not_predicted(tmp_path):
    valid = np.zeros((60, 60), bool)
    valid[:10, :10] = True
    model, calls = Small(), []
    model.register_forward_hook(lambda m, i, o: calls.append(len(i[0])))
    predicted(model, np.ones((3, 60, 60), np.float32), 32, 4, "logits", 10_000, tmp_path, valid)
    assert sum(calls) == 1


def test_failures_of_the_reading_thread_are_raised():
    def items():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(ahead(items()))
