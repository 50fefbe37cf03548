"""ONNX, which ONNX Runtime, OpenVINO and others run: raw pixels in, probabilities or objects out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore.models.base.bundle import Bundle

# torch and onnx take seconds to import, and a list of formats does not need them
if TYPE_CHECKING:
    from segcore.export._graph import Source

TITLE = "ONNX"
FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IS_LOSSY = False
# the first in which the operators of all architectures are; what runs models today reads it
OPSET = 18


def check(bundle: Bundle) -> None:
    """Every model can have this format."""


def side(bundle: Bundle) -> int | None:
    """None: the input has any height and width."""
    return None


def write(source: "Source", folder: Path) -> None:
    """Write model.onnx.

    Raises:
        ModelError: an operator of the network has no counterpart in ONNX.
    """
    import onnx

    onnx.save(proto(source), folder / FILE)


def proto(source: "Source") -> Any:
    """The checked onnx.ModelProto of a source, with metadata.

    Raises:
        ModelError: an operator of the network has no counterpart in ONNX.
    """
    import onnx
    import torch

    from segcore.export._graph import INPUT, not_exportable, output_names, quiet

    program = source.program
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                input_names=[INPUT],
                output_names=output_names(source.model),
                opset_version=OPSET,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
                dynamo=True,
                verbose=False,
            )
        assert made is not None
        model = _bare(made.model_proto)
        onnx.helper.set_model_props(model, source.metadata)
        onnx.checker.check_model(model, full_check=True)
    # torch raises errors of many types, of any operator
    except Exception as error:
        raise not_exportable(source.model, error) from error
    return model


def _stable_sort(values: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Values and places by TopK, which gives equal values in their order; torch translates the unstable sort only."""
    from onnxscript import opset18

    return opset18.TopK(values, opset18.Shape(values, start=dim), axis=dim, largest=descending)


def _bare(model: Any) -> Any:
    """The model with names of its axes, without torch's notes, which name files of this machine."""
    of_input = model.graph.input[0].type.tensor_type.shape.dim
    axes = {of_input[axis].dim_param: name for axis, name in ((0, "batch"), (2, "height"), (3, "width"))}
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            for symbol, name in axes.items():
                if dim.dim_param:
                    dim.dim_param = re.sub(rf"\b{symbol}\b", name, dim.dim_param)
    for part in (model, model.graph, *values, *model.graph.node, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


def runner(folder: Path, threads: int | None = None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs model.onnx by ONNX Runtime, on a CUDA device where there is one.

    Args:
        folder: with the file.
        threads: that share the work of one operator; None: as many as of torch.
    """
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    session = onnxruntime.InferenceSession(folder / FILE, options, providers)
    (given,), names = session.get_inputs(), [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {given.name: images}), strict=True))

    return run
