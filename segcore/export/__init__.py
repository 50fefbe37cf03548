"""Trained models as files of other formats, one plug-in per format, and their runtimes.

A format is a module with these names:

    TITLE                          printed name
    FILE                           main file in the format's folder
    PACKAGES                       imported packages, which the extra `export` installs
    IS_LOSSY                       whether it rounds weights: its score is compared with the model's, not its outputs
    check(bundle)                  raises ModelError if the model cannot have this format
    write(source, folder)          writes FILE, and further files, into a folder
    runner(folder)                 function of raw pixels (N, C, H, W) float32, which returns its outputs by name
    side(bundle)                   height and width of the input in pixels; None: any

All begin with the graph of `_graph`, which takes raw pixels and returns probabilities or objects.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from segcore.errors import missing_package

# in the folder of each format: what was exported, and how it differs from the model
RECORD = "export.json"
# the network of the bundle itself
EAGER = "eager"


@dataclass(frozen=True)
class Runtime:
    """A program that runs exported models.

    Attributes:
        title: printed name.
        format: that it runs.
        packages: that it needs.
        extra: of this project that installs them.
    """

    title: str
    format: str
    packages: tuple[str, ...]
    extra: str


RUNTIMES = {
    "onnx": Runtime("ONNX Runtime", "onnx", ("onnxruntime",), "export"),
    "onnx_int8": Runtime("ONNX Runtime, 8-bit weights", "onnx_int8", ("onnxruntime",), "export"),
    "openvino": Runtime("OpenVINO", "onnx", ("openvino",), "openvino"),
    "pt2": Runtime("torch.export", "pt2", (), "export"),
}


def require_packages(packages: tuple[str, ...], extra: str) -> None:
    """Check that packages are installed, without importing them.

    Raises:
        ExportError: one is not; the remedy names the extra.
    """
    for name in packages:
        if find_spec(name) is None:
            raise missing_package(name, extra)
