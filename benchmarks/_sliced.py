"""A detector that is always right, on a scene cut into windows: what merging gets wrong, here and in SAHI.

The scene's pixels are the numbers of its objects, so that the detector answers every window with the truth clipped to
it. What differs from the truth afterwards was lost by merging alone:

- duplicate: a second object in the pixels of one that is found;
- cut: an object of which no result has nine tenths;
- melted: an object that shares its result with another one.

SAHI slices as its manual shows, and its detector is torchvision's interface. Its pass over the whole image is off: on a
scene it sees a reduced picture, and this detector would answer it with the truth.
"""

import time
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._houses import scene
from benchmarks.data import Line
from segcore.data.prepared import LabelledImage
from segcore.inference.objects import predict_objects
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.objects.found import Objects, from_numbers

WINDOW, SHARE = 512, 0.2
SCORE = 0.9
# SAHI's default, and the one that never unites objects
MERGES = (("GREEDYNMM", "IOS"), ("NMS", "IOU"))
# a result's mask and its first row and column in the scene
Placed = tuple[int, int, np.ndarray]


class Merged(NamedTuple):
    """Objects of a scene and what is wrong with them; seconds of the processor without those of the detector."""

    objects: int
    duplicates: int
    cut: int
    melted: int
    seconds: float


def _pixels(numbers: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of numbers below 2 ** 24."""
    return np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)


def _dense(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers from 1 without gaps of (3, H, W) values in 0..255, and how many there are."""
    low, middle, high = pixels.round().astype(np.int64)
    values, places = np.unique(low | middle << 8 | high << 16, return_inverse=True)
    offset = int(values[0] != 0)
    return places.reshape(low.shape) + offset, len(values) - 1 + offset


class Clock:
    """Seconds of the processor that the detector took, which are not those of merging."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.seconds -= time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.process_time()


class Oracle(InstanceModel):
    """The detector as an instance network."""

    coefficients = MappingProxyType(dict[str, float]())
    is_position_dependent = False

    def __init__(self, clock: Clock) -> None:
        super().__init__(3, 2, "Oracle", 1, [1])
        self.clock = clock
        self.unused = nn.Parameter(torch.zeros(1))

    def heads(self, x: Tensor) -> Outputs:
        """The pixels themselves."""
        return (x,)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """None: it is not trained."""
        return {}

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """None: it is not trained."""
        return {}

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """The truth within each window."""
        with self.clock:
            return [
                from_numbers(numbers, np.ones(count), np.full(count, SCORE))
                for numbers, count in (_dense(pixels[:, :height, :width].numpy()) for pixels in outputs[0])
            ]


class TorchvisionOracle(nn.Module):
    """The same detector with the interface of torchvision's Mask R-CNN.

    It leaves out slivers of which SAHI can make no polygon, because SAHI raises an error for them.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Boxes, labels, scores and masks (N, 1, H, W) of images with values in 0..1."""
        with self.clock:
            return [self._found(image) for image in images]

    def _found(self, image: Tensor) -> dict[str, Tensor]:
        from sahi.utils.cv import get_coco_segmentation_from_bool_mask as polygons

        numbers, count = _dense(image.numpy() * 255)
        objects = from_numbers(numbers, np.ones(count), np.full(count, SCORE))
        objects = objects.select(np.array([bool(polygons(mask)) for mask in objects.masks], bool))
        masks = torch.zeros(len(objects), 1, *image.shape[1:])
        for plane, (row, col, height, width), mask in zip(masks, objects.boxes, objects.masks, strict=True):
            plane[0, row : row + height, col : col + width] = torch.from_numpy(mask)
        first, size = objects.boxes[:, 1::-1], objects.boxes[:, :1:-1]
        boxes = torch.from_numpy(np.concatenate([first, first + size], axis=1)).float()
        return {
            "boxes": boxes,
            "labels": torch.ones(len(objects), dtype=torch.int64),
            "scores": torch.from_numpy(objects.scores),
            "masks": masks,
        }


def ours(numbers: np.ndarray) -> Merged:
    """Windows and stitching of this project."""
    clock, pixels = Clock(), _pixels(numbers)
    patch = LabelledImage(pixels, np.zeros(numbers.shape, np.uint8), np.ones(numbers.shape, bool))
    start = time.process_time()
    found = predict_objects(Oracle(clock), patch, WINDOW, round(SHARE * WINDOW))
    seconds = time.process_time() - start - clock.seconds
    placed = (
        (int(row), int(col), mask) for (row, col, *_), mask in zip(found.boxes, found.masks, strict=True)
    )
    return Merged(len(found), *mistakes(numbers, placed), seconds)


def sahi(numbers: np.ndarray, merge: tuple[str, str]) -> Merged:
    """SAHI's slices and merging, by one of MERGES."""
    from sahi.models.torchvision import TorchVisionDetectionModel
    from sahi.predict import get_sliced_prediction

    clock, pixels = Clock(), _pixels(numbers)
    detector = TorchVisionDetectionModel(
        model=TorchvisionOracle(clock), device="cpu", category_mapping={"1": "object"}
    )
    start = time.process_time()
    found = get_sliced_prediction(
        pixels,
        detector,
        slice_height=WINDOW,
        slice_width=WINDOW,
        overlap_height_ratio=SHARE,
        overlap_width_ratio=SHARE,
        perform_standard_pred=False,
        postprocess_type=merge[0],
        postprocess_match_metric=merge[1],
        verbose=0,
    ).object_prediction_list
    seconds = time.process_time() - start - clock.seconds
    return Merged(len(found), *mistakes(numbers, _drawn(found)), seconds)


def _drawn(found: Iterable[Any]) -> Iterator[Placed]:
    """Masks of SAHI's polygons within their boxes, drawn as SAHI does."""
    import cv2

    for one in found:
        parts = [np.reshape(points, (-1, 2)).round().astype(np.int32) for points in one.mask.segmentation]
        left, top = np.min([part.min(axis=0) for part in parts], axis=0)
        right, bottom = np.max([part.max(axis=0) for part in parts], axis=0)
        mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
        cv2.fillPoly(mask, [part - np.array([left, top]) for part in parts], (1,))
        yield int(top), int(left), mask.astype(bool)


def mistakes(numbers: np.ndarray, found: Iterable[Placed]) -> tuple[int, int, int]:
    """Duplicates, and numbers of cut and melted objects of the scene, as defined above."""
    areas = np.bincount(numbers.ravel())
    best, results = np.zeros(len(areas)), np.zeros(len(areas), int)
    is_melted = np.zeros(len(areas), bool)
    for row, col, mask in found:
        inside = numbers[row : row + mask.shape[0], col : col + mask.shape[1]]
        values, pixels = np.unique(inside[mask[: inside.shape[0], : inside.shape[1]]], return_counts=True)
        values, pixels = values[values > 0], pixels[values > 0]
        if not len(values):
            continue
        shares = pixels / areas[values]
        held = values[shares > 0.5]
        is_melted[held] |= len(held) > 1
        best[values] = np.maximum(best[values], shares)
        results[values[pixels.argmax()]] += 1
    is_object = areas > 0
    is_object[0] = False
    is_cut = is_object & ~is_melted & (best < 0.9)
    is_found = is_object & ~is_melted & ~is_cut
    duplicates = int((results[is_found] - 1).clip(min=0).sum())
    return duplicates, int(is_cut.sum()), int((is_melted & is_object).sum())


def merging(side: int) -> list[Line]:
    """Lines of the table: what is wrong and the time, compared with SAHI's two ways of merging."""
    small, numbers = scene(WINDOW), scene(side)
    # the first use of a library takes longer
    for merge in MERGES:
        ours(small)
        sahi(small, merge)
    mine, lines = ours(numbers), []
    wrong = f"{mine.duplicates} / {mine.cut} / {mine.melted}"
    for merge in MERGES:
        other = sahi(numbers, merge)
        peer = f"SAHI {' by '.join(merge)}, a detector that is always right"
        what = f"{int(numbers.max()):,} objects: duplicates / cut / melted, {peer}"
        total, theirs = (sum((one.duplicates, one.cut, one.melted)) for one in (mine, other))
        shown = f"{other.duplicates} / {other.cut} / {other.melted}"
        lines.append(Line(what, wrong, shown, total / max(theirs, 1), "0", total == 0))
        what = f"side {side:,} pixels: windows and merging, seconds of one core, {peer}"
        ratio = other.seconds / mine.seconds
        lines.append(Line(what, f"{mine.seconds:.1f}", f"{other.seconds:.1f}", ratio, "≥ 3", ratio >= 3))
    return lines
