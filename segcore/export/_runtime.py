"""Exported models as networks: predictions and evaluations run them instead of the network of the bundle."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segcore import plugins
from segcore.constants import SMALLEST_PROBABILITY
from segcore.errors import DataError, ExportError
from segcore.export import RECORD, RUNTIMES, require_packages
from segcore.export._graph import INSTANCE, TOUCHING, least_side
from segcore.files import read_json, sha256
from segcore.models.base.bundle import DESCRIPTION, Bundle
from segcore.models.base.instance import InstanceModel, Outputs, Truth
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel
from segcore.objects.found import Objects

# what runs a format: raw pixels (N, C, H, W) float32 to the outputs by name
Runner = Callable[[np.ndarray], dict[str, np.ndarray]]

# outputs with the height and width of the images
_OF_PIXELS = (*TOUCHING, "masks")
# half of the smallest difference of a float32 from 1
_ROUNDED = 2**-25


class Exported(SemanticModel):
    """A semantic network that is computed by an exported file; its logits are logarithms of probabilities.

    Args:
        model: of the bundle.
        run: the file.
        side: height and width of the file's input in pixels; None: any.
    """

    def __init__(self, model: SemanticModel, run: Runner, side: int | None = None) -> None:
        super().__init__(model.in_channels, model.outputs, model.title, model.output_stride)
        self.model, self.run, self.side = model, run, side
        self.take_facts(model)
        self.criterion = model.criterion

    def segment(self, x: Tensor) -> Tensor:
        """Logits (N, K, H, W) of the bundle's network: the file takes raw pixels."""
        return self.model.segment(x)

    def forward(self, images: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, C, H, W) raw pixels to (N, outputs, H, W) float32 logarithms of probabilities."""
        found = self._run(_pixels(images, valid))
        probabilities = found["probabilities"]
        logs = torch.from_numpy(probabilities).to(images.device).clamp(min=SMALLEST_PROBABILITY).log()
        if not self.touching:
            return logs
        # a format may leave this output out
        touching = found.get("touching", np.zeros_like(probabilities[:, 0]))
        near = torch.from_numpy(touching).to(images.device)[:, None]
        # where 1 - near rounds to 0, the classes keep their order
        rest = (1 - near).clamp(min=_ROUNDED)
        # the classes share what touching leaves
        return torch.cat([logs + rest.log(), near.clamp(min=SMALLEST_PROBABILITY).log()], dim=1)

    def _run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if self.side is None:
            return _at_least(self.run, images, least_side(self.model))
        return _at_least(self.run, images, self.side)


class ExportedObjects(InstanceModel):
    """An instance network whose objects are computed by an exported file.

    Args:
        model: of the bundle, which computes everything else.
        run: the file.
    """

    def __init__(self, model: InstanceModel, run: Runner) -> None:
        super().__init__(model.in_channels, model.outputs, model.title, model.output_stride, model.foreground)
        self.model, self.run = model, run
        self.take_facts(model)
        # an attribute of the class of a network
        self.is_position_dependent = model.is_position_dependent  # type: ignore[misc]

    def heads(self, x: Tensor) -> Outputs:
        """See `InstanceModel`."""
        return self.model.heads(x)

    def weights(self, truth: Truth) -> dict[str, Tensor]:
        """See `InstanceModel`."""
        return self.model.weights(truth)

    def terms(self, outputs: Outputs, truth: Truth) -> dict[str, Tensor]:
        """See `InstanceModel`."""
        return self.model.terms(outputs, truth)

    def detect(self, outputs: Outputs, height: int, width: int) -> list[Objects]:
        """See `InstanceModel`."""
        return self.model.detect(outputs, height, width)

    @torch.inference_mode()
    def predict(self, images: Tensor, valid: Tensor | None = None) -> list[Objects]:
        """Objects of each image, by the file."""
        return objects_of(_at_least(self.run, _pixels(images, valid), least_side(self.model)))


def _at_least(run: Runner, images: np.ndarray, side: int) -> dict[str, np.ndarray]:
    """Outputs for images that are smaller than the file takes: with pixels without data at the right and bottom."""
    height, width = images.shape[-2:]
    below, right = max(side - height, 0), max(side - width, 0)
    if not below and not right:
        return run(images)
    found = run(np.pad(images, ((0, 0), (0, 0), (0, below), (0, right)), constant_values=np.nan))
    return {
        name: np.ascontiguousarray(v[..., :height, :width]) if name in _OF_PIXELS else v
        for name, v in found.items()
    }


def guarded(run: Runner) -> Runner:
    """The same with errors of a runtime as `DataError`, so that they end a scene and not a batch."""

    def guard(images: np.ndarray) -> dict[str, np.ndarray]:
        try:
            found = run(images)
            # a runtime may compute images of another size as far as it can
            for name, values in found.items():
                size = images.shape[-2:] if name in _OF_PIXELS else values.shape[-2:]
                if (len(values), values.shape[-2:]) != (len(images), size):
                    raise ValueError(f"{name} has the shape {' x '.join(map(str, values.shape))}")
            return found
        # runtimes raise errors of their own
        except Exception as error:
            raise DataError(
                f"the exported model cannot compute {' x '.join(map(str, images.shape))} pixels: {_reason(error)}",
                "use the network of the bundle itself for them",
            ) from error

    return guard


def _reason(error: Exception) -> str:
    """First line of an error that is not a place in the source of OpenVINO."""
    lines = (line for line in str(error).splitlines() if not line.startswith("Exception from "))
    return next(lines, type(error).__name__)[:300]


def objects_of(found: dict[str, np.ndarray]) -> list[Objects]:
    """Objects of each image, of the outputs of an instance network's graph."""
    made = []
    for scores, classes, boxes, masks in zip(*(found[name] for name in INSTANCE), strict=True):
        kept = np.flatnonzero(scores > 0)
        left, top, right, bottom = boxes[kept].round().astype(np.int32).T
        places = np.stack([top, left, bottom - top, right - left], axis=1)
        crops = [masks[i, r : r + h, c : c + w] for i, (r, c, h, w) in zip(kept, places, strict=True)]
        height, width = masks.shape[-2:]
        made.append(Objects(height, width, classes[kept].astype(np.uint8), scores[kept], places, crops))
    return made


def _pixels(images: Tensor, valid: Tensor | None) -> np.ndarray:
    """Raw pixels (N, C, H, W) as a file takes them, NaN where they are not valid."""
    if valid is not None:
        images = images.masked_fill(~valid[:, None], torch.nan)
    pixels: np.ndarray = images.float().contiguous().cpu().numpy()
    return pixels


def exported(model: SegmentationModel, run: Runner, side: int | None = None) -> SegmentationModel:
    """The network of a bundle, computed by an exported file.

    Args:
        model: of the bundle.
        run: the file.
        side: height and width of the file's input in pixels; None: any.
    """
    if isinstance(model, InstanceModel):
        assert side is None
        return ExportedObjects(model, run).eval()
    assert isinstance(model, SemanticModel)
    return Exported(model, run, side).eval()


def load(folder: Path, bundle: Bundle, runtime: str) -> SegmentationModel:
    """An exported model as a network.

    Args:
        folder: of the format, with export.json.
        bundle: that was exported.
        runtime: a key of `RUNTIMES`.

    Raises:
        ExportError: a package is missing, or the folder has no export of this bundle, or a damaged one.
    """
    how = RUNTIMES[runtime]
    require_packages(how.packages, how.extra)
    module = _format(how.format)
    path = checked(folder, bundle, how.format, module.FILE)
    run: Runner
    try:
        run = _openvino(path) if runtime == "openvino" else module.runner(folder)
    # runtimes raise errors of their own
    except Exception as error:
        raise ExportError(
            f"{path}: {how.title} cannot read it: {_reason(error)}",
            "export the model again",
        ) from error
    return exported(bundle.model(), guarded(run), module.side(bundle))


def checked(folder: Path, bundle: Bundle, form: str, name: str) -> Path:
    """The exported file of a folder, after checking its hash and that it is of this bundle and format.

    Args:
        folder: of the format.
        bundle: that was exported.
        form: the format.
        name: of the file.

    Raises:
        ExportError: it is missing, damaged, or of another bundle or format.
    """
    remedy = "export the model again"
    try:
        record: dict[str, Any] = read_json(folder / RECORD, remedy)
    except FileNotFoundError as error:
        raise ExportError(f"{folder}: there is no exported model", "export the model first") from error
    except DataError as error:
        raise ExportError(error.what, remedy) from error
    if record.get("weights_sha256") != bundle.weights_sha256:
        raise ExportError(f"{folder}: was exported from other weights than those of {bundle.folder}", remedy)
    # classes and the nodata value may change without the weights
    if record.get("description_sha256") != bundle.description_sha256:
        raise ExportError(
            f"{folder}: was exported with another {DESCRIPTION} than that of {bundle.folder}", remedy
        )
    if record.get("format") != form:
        raise ExportError(f"{folder}: has a file of the format {record.get('format')}, not {form}", remedy)
    if record.get("file") != name:
        raise ExportError(f"{folder / RECORD}: is damaged: file is not {name}", remedy)
    path = folder / name
    if not path.is_file() or sha256(path) != record.get("sha256"):
        raise ExportError(f"{path}: is missing or damaged, its sha256 is not that of {RECORD}", remedy)
    if bundle.weights_sha256.encode() not in path.read_bytes():
        raise ExportError(f"{path}: is a file of other weights than those of {bundle.folder}", remedy)
    return path


def _format(name: str) -> ModuleType:
    return plugins.load("segcore.export", name)


def _openvino(path: Path) -> Runner:
    """A function that runs an ONNX file by OpenVINO on the CPU, in float32."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(core.read_model(path), "CPU", settings)
    names = [output.any_name for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        # a request of its own: calls of several threads must not share one
        found = compiled.create_infer_request().infer({0: images})
        return {name: np.array(found[index]) for index, name in enumerate(names)}

    return run


def write_record(folder: Path, facts: dict[str, Any]) -> None:
    """Write export.json into a folder."""
    (folder / RECORD).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
