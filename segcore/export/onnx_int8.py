"""ONNX with weights of 8 bits: a third of the size, with a loss of score, which is measured.

Activations are rounded to 8 bits too, by the range of each (dynamic quantisation), so that no calibration is needed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from segcore.export import onnx

if TYPE_CHECKING:
    from segcore.export._graph import Source

TITLE = "ONNX, 8-bit weights"
FILE = onnx.FILE
PACKAGES = onnx.PACKAGES
IS_LOSSY = True
# of the same file format
check, side, runner = onnx.check, onnx.side, onnx.runner


def write(source: "Source", folder: Path) -> None:
    """Write model.onnx.

    Raises:
        ModelError: an operator of the network has no counterpart in ONNX.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    model = onnx.proto(source)
    # nothing is to be prepared: torch has inferred shapes and folded constants; else it logs that this was left out
    add_pre_process_metadata(model)
    # signed weights are several times slower on x86 processors
    quantize_dynamic(model, folder / FILE, weight_type=QuantType.QUInt8)
