"""Base class of instance networks: targets from dense maps, loss as a mean over objects, and objects as predictions."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.models.base.detections import Detections, detections
from segcore.models.base.model import SegmentationModel, padding
from segcore.objects.found import Objects

# dense outputs of a network; their number and shapes are its own
Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Truth:
    """True objects of a batch, in pixels of the network (enlarged by `magnify`, padded as its input).

    Attributes:
        item: (M,) int64, place of the object's image in the batch; ascending.
        classes: (M,) int64, place of its class in `InstanceModel.foreground`.
        boxes: (M, 4) float32 left, top, right, bottom edge of the visible part; one pixel has sides of 1.
        areas: (M,) int64 visible pixels.
        instance: (N, h, w) int64, 1 + place of the pixel's object in these lists, 0 for none.
        ignored: (N, h, w) bool, pixels that are neither object nor background.
    """

    item: Tensor
    classes: Tensor
    boxes: Tensor
    areas: Tensor
    instance: Tensor
    ignored: Tensor

    def __len__(self) -> int:
        return len(self.item)

    def of_item(self, index: int) -> slice:
        """The objects of an image of the batch; waits for the device."""
        first, end = torch.searchsorted(self.item, torch.tensor([index, index + 1], device=self.item.device))
        return slice(int(first), int(end))

    def semantic(self) -> Tensor:
        """(N, h, w) int64: place of the class of each pixel's object, -1 for none."""
        return F.pad(self.classes, (1, 0), value=-1)[self.instance]

    def ignored_shares(self, item: Tensor, boxes: Tensor) -> Tensor:
        """Share of ignored pixels in boxes, (R,) float32 in 0..1.

        Args:
            item: (R,) int64, place of the box's image in the batch.
            boxes: (R, 4) float32 left, top, right, bottom, which may reach beyond the image; rounded to whole pixels.
        """
        sums = F.pad(self.ignored.long().cumsum(1).cumsum(2), (1, 0, 1, 0))
        height, width = self.ignored.shape[1:]
        left, right = (boxes[:, place].round().long().clamp(0, width) for place in (0, 2))
        top, bottom = (boxes[:, place].round().long().clamp(0, height) for place in (1, 3))
        total = (
            sums[item, bottom, right]
            - sums[item, top, right]
            - sums[item, bottom, left]
            + sums[item, top, left]
        )
        return total / ((bottom - top) * (right - left)).clamp(min=1)


def truth_of(label: Tensor, instance: Tensor, foreground: Sequence[int]) -> Truth:
    """True objects of dense maps; the class of an object is that of most of its pixels.

    Pixels of a foreground class without an object's number are ignored: they may be of any object.

    Args:
        label: (N, h, w) int64 with IGNORE.
        instance: (N, h, w) int64, numbers of objects within each image, 0 for none.
        foreground: indices of the classes that have objects, ascending.
    """
    device, count = label.device, len(foreground)
    place = torch.full((256,), -1, dtype=torch.int64, device=device)
    place[torch.tensor(list(foreground), device=device)] = torch.arange(count, device=device)
    of_pixel = place[label.clamp(0, 255)]
    is_object = (instance > 0) & (of_pixel >= 0) & (label != IGNORE)
    ignored = (label == IGNORE) | ((of_pixel >= 0) & ~is_object)
    item, row, col = is_object.nonzero().unbind(1)
    keys = item * (1 << 33) + instance[item, row, col]
    unique, index = torch.unique(keys, return_inverse=True)
    objects = len(unique)
    votes = torch.bincount(index * count + of_pixel[item, row, col], minlength=objects * count)
    votes = votes.view(objects, count)
    numbers = torch.zeros_like(instance)
    numbers[item, row, col] = index + 1
    limits = [
        torch.zeros(objects, dtype=torch.int64, device=device).scatter_reduce(
            0, index, values, reduce, include_self=False
        )
        for values, reduce in ((col, "amin"), (row, "amin"), (col + 1, "amax"), (row + 1, "amax"))
    ]
    boxes = torch.stack(limits, dim=1).float()
    return Truth(unique >> 33, votes.argmax(1), boxes, votes.sum(1), numbers, ignored)


class InstanceModel(SegmentationModel):
    """A network that maps raw pixels to objects, each with class, score and mask.

    A subclass implements `heads`, `weights`, `terms` and `detect`. Every parameter gets a gradient from every batch,
    if only of 0, so that processes and micro-batches add up.

    Attributes:
        foreground: indices of the classes that have objects, ascending; heads number them from 0.
        background: the first other class: that of pixels without an object.
        coefficients: factor of each term in the loss.
        why_unplaced: why `unplaced` objects are left out, and the remedy.
        is_position_dependent: whether a result depends on where in the window an object is, so that the network
            predicts in windows of the size of its training crops.
    """

    kind = "instance"
    score_name = "pq"
    coefficients: ClassVar[Mapping[str, float]]
    why_unplaced: ClassVar[str] = ""
    is_position_dependent: ClassVar[bool]

    def __init__(
        self, in_channels: int, num_classes: int, title: str, output_stride: int, foreground: Sequence[int]
    ) -> None:
        super().__init__(in_channels, num_classes, title, output_stride)
        self.foreground = list(foreground)
        others = sorted(set(range(num_classes)) - set(foreground))
        if not others:
            raise ModelError(
                f"{title} finds objects of all {num_classes} classes, so that pixels without an object have no class",
                "name the class of such pixels in data.background, or remove this architecture from params.yaml",
            )
        self.background = others[0]

    @abstractmethod
    def heads(self, x: Tensor) -> Outputs:
        """Dense outputs of normalised pixels (N, C, h, w); h and w are multiples of output_stride."""

    @abstractmethod
    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """Weight of each term: what its sum is divided by, such as the number of objects; from the truth alone.

        Scalars, without gradient. That of a batch is the sum of those of its images.
        """

    @abstractmethod
    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """Sum of each term of the loss over a batch: float32 scalars with gradient, 0 where there is nothing to sum.

        The sum of a batch is that of the sums of its images.
        """

    @abstractmethod
    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """Objects of each image, without duplicates; masks may overlap.

        An image's objects do not depend on the other images of the batch.

        Args:
            outputs: of `forward`, in evaluation mode.
            height: of the original images in pixels, which masks have (the network's divided by `magnify`).
            width: as height.
        """

    def detect_tensors(self, outputs: Outputs, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """The objects of `detect` as tensors of fixed shapes, by operations that can be exported; arguments as there.

        Returns:
            Scores (N, D) float32, 0 for no object; places (N, D) of their classes in `foreground`, int64; masks
            (N, D, height, width) bool. D depends on the network and the size of the image alone.

        Raises:
            ModelError: the network has no such form.
        """
        raise ModelError(
            f"{self.title} does not give its objects as tensors, so that it cannot be exported",
            "implement InstanceModel.detect_tensors in its file, or export another model",
        )

    def unplaced(self, truth: Truth) -> Tensor | None:
        """Number of objects that are no target, or have no mask to learn; None: all are targets."""
        return None

    def costed(self, images: Tensor) -> dict[str, int]:
        """All computation of a prediction but the choice of objects, with fixed numbers of them, to count its cost.

        Args:
            images: (N, C, H, W), possibly on the meta device.

        Returns:
            The numbers per image, such as that of "proposals"; none for a network whose cost does not depend on any.
        """
        self(images)
        return {}

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Outputs:
        """Dense outputs for images of any size; arguments and errors as of `prepared`."""
        return self.heads(self.prepared(images, valid)[0])

    def truth(self, batch: dict[str, Tensor]) -> Truth:
        """True objects of a batch with "label", "instance" and optionally "valid", at the size of the network's input.

        Pixels without data and padding are ignored.
        """
        label, instance = batch["label"], batch["instance"]
        if "valid" in batch:
            label = label.masked_fill(~batch["valid"], IGNORE)
        height, width = (round(side * self.magnify) for side in label.shape[-2:])
        label, instance = (_nearest(x, height, width) for x in (label, instance))
        right, below = (padding(side, self.output_stride, self.least_multiple) for side in (width, height))
        label = F.pad(label, (0, right, 0, below), value=IGNORE)
        return truth_of(label, F.pad(instance, (0, right, 0, below)), self.foreground)

    def loss(self, batch: dict[str, Tensor], totals: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Sum of terms, each divided by its weight; 0 for a batch that is ignored.

        Args:
            batch: as of `SegmentationModel.loss`, with "instance".
            totals: weights of the whole batch, of which `batch` is a part; None: it is whole.

        Returns:
            "loss", with gradient, and each term times its coefficient, without.
        """
        truth = self.truth(batch)
        outputs = self(batch["image"], batch.get("valid"))
        return self.combined(self.terms(outputs, truth), self.weights(truth) if totals is None else totals)

    def combined(self, terms: Mapping[str, Tensor], totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The loss of sums and total weights, as `loss` returns it."""
        parts = {
            name: self.coefficients[name] * value / totals[name].clamp(min=1) for name, value in terms.items()
        }
        total = torch.stack([part.float() for part in parts.values()]).sum()
        return {"loss": total, **{name: part.detach() for name, part in parts.items()}}

    @torch.inference_mode()
    def predict(self, images: Tensor, valid: Tensor | None = None) -> list[Objects]:
        """Objects of each image, in evaluation mode; pixels without data are in none."""
        was_training = self.training
        self.eval()
        try:
            found = self.detect(self(images, valid), *images.shape[-2:])
        finally:
            self.train(was_training)
        return found if valid is None else [_within(o, v) for o, v in zip(found, valid.cpu(), strict=True)]

    def detections(self, images: Tensor, valid: Tensor | None = None) -> Detections:
        """The objects of `predict` as tensors of fixed shapes, for export; the network is in evaluation mode.

        Differs from `predict` by rounding alone.

        Args:
            images: (N, C, H, W) float32, raw pixel values.
            valid: (N, H, W) bool, False where nodata: such pixels are in no object; None: all are valid.

        Raises:
            ModelError: as of `prepared` and `detect_tensors`.
        """
        scores, classes, masks = self.detect_tensors(self(images, valid), *images.shape[-2:])
        if valid is not None:
            masks = masks & valid[:, None]
        return detections(scores, classes, masks, self.foreground)


def _nearest(x: Tensor, height: int, width: int) -> Tensor:
    """(N, H, W) integers resized by nearest neighbour."""
    if x.shape[-2:] == (height, width):
        return x
    rows, cols = (
        ((torch.arange(new, device=x.device) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for new, old in ((height, x.shape[-2]), (width, x.shape[-1]))
    )
    return x[:, rows[:, None], cols]


def _within(objects: Objects, valid: Tensor) -> Objects:
    """Objects without the pixels that are not valid; those that keep none are left out."""
    if bool(valid.all()):
        return objects
    inside, kept, boxes, masks = valid.numpy(), [], [], []
    for index, ((row, col, height, width), mask) in enumerate(zip(objects.boxes, objects.masks, strict=True)):
        left = mask & inside[row : row + height, col : col + width]
        if left.any():
            # a box beyond the mask could touch the edge of a window that its object is not cut by
            rows, cols = (np.flatnonzero(left.any(axis=axis)) for axis in (1, 0))
            tight = left[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
            kept.append(index)
            boxes.append((row + rows[0], col + cols[0], *tight.shape))
            masks.append(tight)
    classes, scores = objects.classes[kept], objects.scores[kept]
    return Objects(
        objects.height, objects.width, classes, scores, np.array(boxes, np.int32).reshape(-1, 4), masks
    )
