"""The network of a bundle as a graph from raw pixels to probabilities or objects.

Input `images` (N, C, H, W) float32: raw pixels of the model's bands. A pixel that is NaN or infinite in a band, or has
the declared nodata value in all bands, has no data. N, H and W are dynamic.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segcore.data.prepared import neighbouring_planes
from segcore.errors import ModelError
from segcore.export._metadata import metadata
from segcore.io.images._nodata import Nodata, fitting
from segcore.models.base.bundle import Bundle
from segcore.models.base.instance import InstanceModel
from segcore.models.base.model import SegmentationModel

INPUT = "images"
SEMANTIC = ("probabilities",)
TOUCHING = ("probabilities", "touching")
INSTANCE = ("scores", "classes", "boxes", "masks")
# batch, height and width of the example that is traced: no result depends on them
_EXAMPLE = (2, 80, 112)


def output_names(model: SegmentationModel) -> tuple[str, ...]:
    """Names of the graph's outputs, in their order."""
    if model.kind == "instance":
        return INSTANCE
    return TOUCHING if model.touching else SEMANTIC


def least_side(model: SegmentationModel) -> int:
    """Smallest height and width in pixels of an image that the graph takes."""
    # an image that is reduced has two pixels in each direction then
    return 1 if model.magnify >= 1 else round(1 / model.magnify) + 1


class Graph(nn.Module):
    """A network with the validity of pixels before it and the softmax after it.

    Args:
        model: of a bundle.
        nodata: declared value, as of `fitting`; None: none.
        planes: of a volume that are the input of a plane; its bands are repeated for each of them.
    """

    def __init__(self, model: SegmentationModel, nodata: Nodata, planes: int) -> None:
        super().__init__()
        self.model, self.nodata, self.planes = model, nodata, planes

    def valid(self, images: Tensor) -> Tensor:
        """Where the planes of (N, C, H, W) have data, (N, planes, H, W) bool."""
        # (N, planes, bands, H, W)
        bands: Tensor = images.unflatten(1, (self.planes, -1))
        valid: Tensor = bands.isfinite().all(dim=2)
        if self.nodata is None:
            return valid
        low, high = self.nodata if isinstance(self.nodata, tuple) else (self.nodata, self.nodata)
        is_nodata: Tensor = ((bands >= low) & (bands <= high)).all(dim=2)
        return valid & ~is_nodata

    def prepared(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw pixels (N, C, H, W) as the network takes them, and where they are valid, (N, H, W) bool."""
        valid = self.valid(images)
        if self.planes > 1:
            # as in training: neighbouring planes are 0 where they have no data
            bands = images.unflatten(1, (self.planes, -1))
            images = bands.masked_fill(~valid[:, :, None], 0).flatten(1, 2)
        # of the plane in the middle
        return images, valid[:, self.planes // 2]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Raw pixels (N, C, H, W) float32 to the outputs of `output_names`."""
        images, valid = self.prepared(images)
        if isinstance(self.model, InstanceModel):
            return tuple(self.model.detections(images, valid))
        logits: Tensor = self.model(images, valid)
        probabilities = logits.float().softmax(dim=1)
        if not self.model.touching:
            return (probabilities,)
        # of the classes alone: more exact than their shares of what the last logit leaves
        return logits[:, :-1].float().softmax(dim=1), probabilities[:, -1]


@dataclass(frozen=True)
class Source:
    """What formats are written from.

    Attributes:
        bundle: the trained model.
        model: its network, on the CPU, in evaluation mode.
        graph: the network from raw pixels to outputs.
        metadata: what a user of the file has to know, for its header.
    """

    bundle: Bundle
    model: SegmentationModel
    graph: Graph
    metadata: dict[str, str]

    @classmethod
    def of(cls, bundle: Bundle, scores: dict[str, Any] | None = None) -> "Source":
        """The source of a bundle.

        Args:
            bundle: the trained model.
            scores: on the test regions, JSON-able, where known.

        Raises:
            ModelError: model.json lacks an entry, or the network has a CRF.
        """
        bundle.require("classes", "colors")
        if bundle.description.get("settings", {}).get("crf"):
            raise ModelError(
                f"{bundle.folder}: has a CRF, which is not exported",
                "train with train.common.postprocess: auto, which has none",
            )
        model = bundle.model()
        declared = bundle.description.get("input", {})
        # pixels that are scaled by the percentiles of their image no longer have the declared value
        nodata = None if declared.get("scale") == "item" else declared.get("nodata")
        planes = len(neighbouring_planes(0, declared.get("neighbours") or 0, 1))
        graph = Graph(model, fitting(nodata, np.dtype(np.float32)), planes).eval()
        return cls(bundle, model, graph, metadata(bundle, model, output_names(model), scores))

    @property
    def example(self) -> Tensor:
        """(N, C, H, W) raw pixels, some of them without data."""
        batch, height, width = _EXAMPLE
        noise = torch.randn(
            (batch, self.model.in_channels, height, width), generator=torch.Generator().manual_seed(0)
        )
        pixels = self.model.mean[:, None, None] + noise * self.model.std[:, None, None]
        pixels[:, :, :8, :8] = float("nan")
        return pixels

    @property
    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """Which axes of the input are dynamic, for `torch.export.export`."""
        from torch.export import Dim

        sides = {axis: Dim(name, min=least_side(self.model)) for axis, name in ((2, "height"), (3, "width"))}
        return {INPUT: {0: Dim("batch", min=1), **sides}}

    @cached_property
    def program(self) -> "torch.export.ExportedProgram":
        """The graph as torch.export has it, for any batch, height and width.

        Raises:
            ModelError: an operator of the network cannot be exported.
        """
        try:
            with torch.no_grad(), quiet():
                return torch.export.export(
                    self.graph, (self.example,), dynamic_shapes=self.dynamic_shapes, strict=False
                )
        # torch raises errors of many types, of any operator
        except Exception as error:
            raise not_exportable(self.model, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what torch prints and logs while it translates a network: whole graphs, also of errors that it raises."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def not_exportable(model: SegmentationModel, error: Exception) -> ModelError:
    """The error for a network that torch cannot export, with the first line of its first cause."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return ModelError(
        f"{model.title} cannot be exported: {type(cause).__name__}: {lines[0][:300] if lines else 'no text'}",
        "change the layer that cannot be exported, or use the bundle itself",
    )


def eager(graph: Graph, images: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs by name, of raw pixels (N, C, H, W) float32, computed by torch."""
    with torch.inference_mode():
        values = graph(torch.from_numpy(images))
    return {name: value.numpy() for name, value in zip(output_names(graph.model), values, strict=True)}
