"""A STAC item that describes an exported file by the machine learning model extension (MLM), for catalogues.

It has no geometry and is of all times, because a bundle does not record where and when its images were taken.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.class_colors import hex_color
from segcore.files import sha256
from segcore.models.base.description import values_of
from segcore.names import short_names

if TYPE_CHECKING:
    import torch

    from segcore.export._graph import Source

_EXTENSIONS = [
    f"https://stac-extensions.github.io/{extension}/schema.json"
    for extension in ("mlm/v1.4.0", "classification/v2.0.0", "file/v2.1.0")
]
# of the extension
_ANY_SIZE = -1
_ARTIFACT = "torch.export.save"
# names of the axes of a graph's outputs
_AXES = {
    "probabilities": ("batch", "class", "height", "width"),
    "touching": ("batch", "height", "width"),
    "scores": ("batch", "detection"),
    "classes": ("batch", "detection"),
    "boxes": ("batch", "detection", "coordinate"),
    "masks": ("batch", "detection", "height", "width"),
}


def item(source: "Source", file: Path) -> dict[str, Any]:
    """The STAC item of a file of torch.export, for JSON.

    Args:
        source: that was exported.
        file: the exported file, which is to be beside the item.
    """
    bands = _bands(source)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": _EXTENSIONS,
        "id": _name(source),
        "geometry": None,
        "properties": _properties(source, bands),
        "links": [],
        "assets": {
            "model": {
                "href": f"./{file.name}",
                "title": f"{source.model.title}, weights included",
                "type": "application/octet-stream; framework=pytorch",
                "roles": ["mlm:model", "mlm:weights", "model"],
                "mlm:artifact_type": _ARTIFACT,
                # without them here, the core forbids them in the properties, where the extension looks for them
                "bands": [{"name": band["name"]} for band in bands],
                "file:size": file.stat().st_size,
                # multihash: sha256 of 32 bytes
                "file:checksum": f"1220{sha256(file)}",
            }
        },
    }


def _name(source: "Source") -> str:
    """Of these weights, in whatever folder they are."""
    return f"{source.bundle.description['architecture']}-{source.bundle.weights_sha256[:8]}"


def _properties(source: "Source", bands: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    description, model = source.bundle.description, source.model
    tensors = [*model.parameters(), *model.buffers()]
    task = "instance-segmentation" if model.kind == "instance" else "semantic-segmentation"
    resolution = description.get("training_images", {}).get("pixel_sizes", {}).get("m")
    properties = {
        "title": f"{model.title}: {', '.join(description['classes'])}",
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "bands": bands,
        "mlm:name": _name(source),
        "mlm:architecture": model.title,
        "mlm:tasks": [task],
        "mlm:framework": "PyTorch",
        "mlm:framework_version": torch.__version__,
        "mlm:total_parameters": sum(p.numel() for p in model.parameters()),
        "mlm:memory_size": sum(t.numel() * t.element_size() for t in tensors),
        **pretrained(description),
        "mlm:input": [_input(source, [band["name"] for band in bands])],
        "mlm:output": _outputs(source, task),
        "mlm:hyperparameters": _hyperparameters(description),
        "segflow:weights_sha256": source.bundle.weights_sha256,
    }
    if resolution:
        # median of the training images
        properties["gsd"] = resolution[1]
    if data := description.get("versions", {}).get("data"):
        properties["segflow:prepared_data_sha256"] = data
    return properties


def _bands(source: "Source") -> list[dict[str, Any]]:
    """Bands in the order of the input's channels; those of neighbouring planes begin with the plane's distance."""
    given = source.bundle.description.get("input", {})
    neighbours = given.get("neighbours") or 0
    entries = {"data_type": given.get("dtype"), "nodata": given.get("nodata")}
    known = {name: value for name, value in entries.items() if value is not None}
    prefixes = [f"plane {plane:+d}, " for plane in range(-neighbours, neighbours + 1)] if neighbours else [""]
    numbers = json.loads(source.metadata["bands"])
    return [{"name": f"{prefix}band {number}", **known} for prefix in prefixes for number in numbers]


def pretrained(description: dict[str, Any]) -> dict[str, Any]:
    """Entries about the weights that a training began with, of model.json."""
    sources = [
        f"{text} (encoder)"
        for weights in values_of(description["settings"], "weights")
        for text in _sources(weights)
    ]
    if initial := description.get("initial_weights"):
        sources.insert(0, f"weights {initial}")
    return {"mlm:pretrained": bool(sources), "mlm:pretrained_source": ", ".join(sources) or None}


def _sources(weights: str) -> list[str]:
    kind, _, name = weights.partition(":")
    texts = {"none": [], "imagenet": ["ImageNet"], "torchvision": [f"{name} of torchvision"]}
    # the path of a local file has no meaning elsewhere
    return texts.get(kind, ["a local file"])


def _input(source: "Source", bands: list[str]) -> dict[str, Any]:
    (name,) = source.program.graph_signature.user_inputs
    return {
        "name": name,
        "description": source.metadata["input"],
        "bands": bands,
        "input": _structure(source, name, ("batch", "channel", "height", "width")),
        # part of the model: a client that scaled the values as well would get other results
        "value_scaling": None,
        "resize_type": None,
    }


def _outputs(source: "Source", task: str) -> list[dict[str, Any]]:
    described = json.loads(source.metadata["outputs"])
    nodes = zip(described, source.program.graph_signature.user_outputs, strict=True)
    return [
        {
            "name": output,
            "description": described[output],
            "tasks": [task],
            "result": _structure(source, node, _AXES[output]),
            **(
                {"classification:classes": _classes(source)} if output in ("probabilities", "classes") else {}
            ),
        }
        for output, node in nodes
    ]


def _structure(source: "Source", node: str, axes: tuple[str, ...]) -> dict[str, Any]:
    """Shape, axes and data type of an input or output of the program."""
    value: torch.Tensor = next(n.meta["val"] for n in source.program.graph.nodes if n.name == node)
    dtype = str(value.dtype).removeprefix("torch.")
    return {
        "shape": [side if isinstance(side, int) else _ANY_SIZE for side in value.shape],
        "dim_order": list(axes),
        # the extension has no Boolean type
        "data_type": "other" if dtype == "bool" else dtype,
    }


def _classes(source: "Source") -> list[dict[str, Any]]:
    """Classes with names of the characters that the extension allows, and their own names as titles."""
    description = source.bundle.description
    names = short_names(description["classes"])
    return [
        {
            "value": value,
            "name": names[value],
            "title": name,
            "description": name,
            "color_hint": hex_color(color)[1:].upper(),
        }
        for value, (name, color) in enumerate(zip(description["classes"], description["colors"], strict=True))
    ]


def _hyperparameters(description: dict[str, Any]) -> dict[str, Any]:
    names = ("parameters", "seed", "settings", "normalization", "range", "tile", "training")
    return {name: description[name] for name in names if description.get(name) is not None}
