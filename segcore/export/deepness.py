"""ONNX as Deepness reads it, a plug-in of QGIS (github.com/PUTvision/qgis-plugin-deepness, 0.7).

Input (N, C, S, S) float32: 8-bit pixels divided by 255, in square tiles. Output (N, K, S, S): probabilities that sum
to 1. What the plug-in sets by itself is in the metadata, each entry in JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore.errors import ModelError
from segcore.models.base.bundle import DESCRIPTION, Bundle
from segcore.params import Predict

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

    from segcore.export._graph import Source

TITLE = "ONNX for Deepness (QGIS)"
FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
IS_LOSSY = False
_LARGEST = 255


def check(bundle: Bundle) -> None:
    """Check that the plug-in can run a model: a semantic network for 8-bit images.

    Raises:
        ModelError: it cannot.
    """
    bundle.require("classes", "tile")
    description, remedy = bundle.description, "choose the format onnx"
    given = description.get("input", {})
    sizes = description.get("training_images", {}).get("pixel_sizes", {})
    if description.get("kind") == "instance":
        reason = "its detectors read outputs of YOLO networks, and draw the convex hull of an object, not its outline"
        raise _unsuited(
            bundle, reason, "choose the format onnx, or open objects that were predicted here in QGIS"
        )
    if given.get("neighbours") or any(name.startswith("mm") for name in sizes):
        raise _unsuited(bundle, "it reads maps, and this model was trained on planes of volumes", remedy)
    if given.get("scale") == "item":
        reason = "it reads values as they are, and this model takes each image scaled by its own percentiles"
        raise _unsuited(bundle, reason, "choose the format onnx, or train with data.scale none")
    if "dtype" not in given:
        remedy = "train again, because older versions did not record the data type of the images"
        raise _unsuited(
            bundle, f"it reads 8-bit images, and {DESCRIPTION} does not say of which type these were", remedy
        )
    if given["dtype"] != "uint8":
        remedy = "choose the format onnx, or train on images that were converted to 8 bits"
        raise _unsuited(
            bundle, f"it reads 8-bit images, and this model was trained on {given['dtype']}", remedy
        )


def _unsuited(bundle: Bundle, reason: str, remedy: str) -> ModelError:
    return ModelError(f"{bundle.folder}: Deepness cannot run this model: {reason}", remedy)


def side(bundle: Bundle) -> int:
    """Height and width of the input: the side of the training crops."""
    return int(bundle.description["tile"])


def write(source: "Source", folder: Path) -> None:
    """Write model.onnx.

    Raises:
        ModelError: an operator of the network has no counterpart in ONNX.
    """
    import onnx

    from segcore.export.onnx import proto

    model: ModelProto = proto(source)
    _take_bytes(model.graph)
    _fix_sides(model.graph, side(source.bundle))
    onnx.helper.set_model_props(model, _metadata(source))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FILE)


def _take_bytes(graph: "GraphProto") -> None:
    """Multiply the input, values of 0 to 1, by 255 and round it, so that pixels equal the nodata value again."""
    from onnx import helper

    name = graph.input[0].name
    for node in graph.node:
        for place, given in enumerate(node.input):
            if given == name:
                node.input[place] = "pixels"
    graph.initializer.append(helper.make_tensor("largest", 1, [], [float(_LARGEST)]))
    first = [
        helper.make_node("Mul", [name, "largest"], ["scaled"], name="scale"),
        helper.make_node("Round", ["scaled"], ["pixels"], name="round"),
    ]
    nodes = [*first, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _fix_sides(graph: "GraphProto", tile: int) -> None:
    """Keep the first output, and fix height and width of it and of the input."""
    del graph.output[1:]
    # shapes of other values, which depend on the sides
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for axis in value.type.tensor_type.shape.dim[2:]:
            axis.dim_value = tile


def entries(bundle: Bundle) -> dict[str, Any]:
    """What the plug-in sets by itself; without a ground resolution where none is known, which its user then sets."""
    description, tile = bundle.description, side(bundle)
    overlap = min(Predict.model_fields["overlap"].default, tile // 2)
    found: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(index): name for index, name in enumerate(description["classes"])},
        # named so in its manual, and in its code
        "tiles_size": tile,
        "tile_size": tile,
        # per cent
        "tiles_overlap": round(100 * overlap / tile),
        # no change: the model normalises
        "standardization_mean": [0.0] * description["in_channels"],
        "standardization_std": [1.0] * description["in_channels"],
        # the most probable class, of however low a probability, and no smoothing of its outline
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    if resolution := description.get("training_images", {}).get("pixel_sizes", {}).get("m"):
        # centimetres per pixel, the median of the training images
        found["resolution"] = round(100 * resolution[1], 2)
    return found


def _metadata(source: "Source") -> dict[str, str]:
    """All entries: those of any format, with what is different here, and those of the plug-in."""
    tile, outputs = side(source.bundle), json.loads(source.metadata["outputs"])
    return {
        **source.metadata,
        "input": f"{source.metadata['input']}; here 8-bit pixels divided by {_LARGEST}, in tiles of {tile} x {tile}",
        "outputs": json.dumps({"probabilities": outputs["probabilities"]}),
        **{name: json.dumps(v, ensure_ascii=False) for name, v in entries(source.bundle).items()},
    }


def runner(folder: Path, threads: int | None = None) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs model.onnx on raw 8-bit pixels (N, C, S, S) float32; outputs by name.

    Args:
        folder: with the file.
        threads: that share the work of one operator; None: all cores.
    """
    from segcore.export import onnx

    run = onnx.runner(folder, threads)
    return lambda images: run(images / np.float32(_LARGEST))
