"""What a user of an exported file has to know, as texts for its header."""

import json
from typing import Any

from segcore.models.base.bundle import Bundle
from segcore.models.base.model import SegmentationModel

_OUTPUTS = {
    "probabilities": "(N, K, H, W) float32, probability of each class, in the order of `classes`",
    "touching": "(N, H, W) float32, probability that a pixel is near two objects",
    "scores": "(N, D) float32, score of each object, 0 for no object",
    "classes": "(N, D) int64, index of each object's class in `classes`",
    "boxes": "(N, D, 4) float32, left, top, right and bottom of each object in pixels",
    "masks": "(N, D, H, W) bool, pixels of each object",
}


def metadata(
    bundle: Bundle, model: SegmentationModel, outputs: tuple[str, ...], scores: dict[str, Any] | None
) -> dict[str, str]:
    """Entries of the header: each a text, those of lists and dicts in JSON.

    Args:
        bundle: the trained model.
        model: its network.
        outputs: names of the graph's outputs.
        scores: on the test regions, where known.
    """
    described = bundle.description
    declared = described.get("input", {})
    entries: dict[str, Any] = {
        "architecture": described["architecture"],
        "title": model.title,
        "kind": model.kind,
        "classes": described["classes"],
        "colors": described["colors"],
        "foreground": described.get("foreground", []),
        "bands": _bands(declared, model.in_channels),
        "ground_resolution": described.get("training_images", {}).get("pixel_sizes", {}),
        "prepared_data_sha256": described.get("versions", {}).get("data", ""),
        "scores": scores or {},
        "weights_sha256": bundle.weights_sha256,
        "input": input_text(declared, model.in_channels),
        "outputs": {name: _OUTPUTS[name] for name in outputs},
        "model_json": bundle.description_bytes.decode(),
    }
    return {
        name: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for name, v in entries.items()
    }


def _bands(declared: dict[str, Any], channels: int) -> list[int]:
    """Numbers of the image's bands, from 1, that are the channels of the input, of one plane."""
    planes = 2 * (declared.get("neighbours") or 0) + 1
    chosen: list[int] = declared.get("bands") or list(range(1, channels // planes + 1))
    return chosen


def input_text(declared: dict[str, Any], channels: int) -> str:
    """What the caller has to give as input, in words.

    Args:
        declared: entry `input` of model.json.
        channels: of the input.
    """
    neighbours, nodata = declared.get("neighbours") or 0, declared.get("nodata")
    bands = _bands(declared, channels)
    parts = [
        f"images (N, {channels}, H, W) float32: pixel values as in the file, bands {', '.join(map(str, bands))}"
    ]
    if declared.get("grey_to_rgb"):
        parts.append("an image of one band is given three times")
    if neighbours:
        parts.append(
            f"channels are the bands of {2 * neighbours + 1} consecutive planes, of which the middle one is predicted; "
            "the first and last plane of a volume are repeated"
        )
    missing = "NaN or infinity in any band"
    if declared.get("scale") == "item":
        low, high = declared.get("percentiles") or (0, 100)
        parts.append(
            f"each band is clipped to its percentiles {low:g} and {high:g} over the whole image and scaled to 0..1"
        )
        if nodata is not None:
            missing += f", to which pixels of {nodata:g} in all bands are set first"
    elif nodata is not None:
        missing += f", or {nodata:g} in all bands"
    parts.append(f"no data: {missing}")
    parts.append(
        "nodata values that image files declare themselves, which may differ from file to file, are set to NaN first: "
        "of images that are not of 8 bits, where any band has such a value other than 0, else where all bands have it"
    )
    return "; ".join(parts)
