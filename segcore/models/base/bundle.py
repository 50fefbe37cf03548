"""The model bundle: a folder with weights and everything needed to use them, without pickles or code.

`model.safetensors` contains the weights and the normalisation; `model.json` the architecture and its keywords, classes
and colours, bands, tile size, checksums and versions.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segcore.errors import ModelError
from segcore.files import save_tensors, sha256

# torch takes seconds to import, and reading a description does not need it.
if TYPE_CHECKING:
    import torch

    from segcore.models.base.model import SegmentationModel

_FORMAT = 2
_REQUIRED = {"architecture", "in_channels", "num_classes", "settings"}


def save_bundle(folder: Path, model: "SegmentationModel", architecture: str, facts: dict[str, Any]) -> None:
    """Write model.safetensors and model.json into an existing folder.

    Args:
        folder: best from `files.atomic_folder`, so that the bundle appears complete or not at all.
        model: with its normalisation.
        architecture: name of its module in segcore/models.
        facts: JSON-able: classes, colors, foreground, tile and further entries of model.json.
    """
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_tensors(weights, folder / "model.safetensors")
    description = {
        "format": _FORMAT,
        "architecture": architecture,
        "title": model.title,
        "settings": model.settings,
        "in_channels": model.in_channels,
        "num_classes": model.num_classes,
        "normalization": {"mean": model.mean.tolist(), "std": model.std.tolist()},
        "range": {"low": model.low.tolist(), "high": model.high.tolist()},
        "weights_sha256": sha256(folder / "model.safetensors"),
        **facts,
    }
    (folder / "model.json").write_text(json.dumps(description, indent=2, sort_keys=True) + "\n")


def load_description(folder: Path | str) -> dict[str, Any]:
    """Read model.json.

    Raises:
        ModelError: missing or malformed.
    """
    path = Path(folder) / "model.json"
    try:
        description: Any = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"{folder}: holds no model bundle", "train it first, or name the folder of a bundle"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: is damaged ({error})", "train again, or restore the file") from error
    if not isinstance(description, dict):
        raise ModelError(f"{path}: is not the description of a model", "train again, or restore the file")
    if description.get("format") != _FORMAT:
        raise ModelError(
            f"{path}: has format {description.get('format')}, this version of segflow reads {_FORMAT}",
            "use the version of segflow that wrote it",
        )
    facts: dict[str, Any] = description
    return facts


def verified(folder: Path | str, weights: str | None = None) -> dict[str, Any]:
    """model.json of a bundle, after checking the checksum of its weights, which are not loaded.

    Args:
        folder: the bundle.
        weights: registered sha256 that the weights must also have; None: not checked.

    Raises:
        ModelError: missing or damaged files, or weights with another checksum than described or registered.
    """
    description, path = load_description(folder), Path(folder) / "model.safetensors"
    if not path.is_file() or sha256(path) != description.get("weights_sha256"):
        raise ModelError(
            f"{path}: is missing or not the file that model.json describes",
            "restore the file, or take another version",
        )
    if weights is not None and weights != description["weights_sha256"]:
        raise ModelError(
            f"{path}: is not the file that was registered (sha256 {weights[:12]})",
            "restore the store's artifacts, or take another version",
        )
    return description


def load_bundle(
    folder: Path | str, device: "torch.device | str" = "cpu", description: dict[str, Any] | None = None
) -> "SegmentationModel":
    """The model of a bundle, on `device`, in evaluation mode; the checksum of its weights is verified first.

    Args:
        folder: with model.json and model.safetensors.
        device: of the weights.
        description: result of `verified` for this folder, which is then not verified again.

    Raises:
        ModelError: as `verified`, or model.json lacks an entry.
    """
    from safetensors.torch import load_file

    from segcore.models.base.factory import rebuild_model

    description = description or verified(folder)
    if missing := sorted(_REQUIRED - description.keys()):
        raise ModelError(
            f"{Path(folder) / 'model.json'}: lacks {', '.join(missing)}", "train again, or restore the file"
        )
    architecture, settings = description["architecture"], description["settings"]
    model = rebuild_model(architecture, description["in_channels"], description["num_classes"], settings)
    model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    return model.to(device).eval()
