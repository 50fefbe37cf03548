"""The model bundle: a folder with weights and everything needed to use them, without pickles or code.

`model.safetensors` contains the weights and the normalisation; `model.json` the architecture and its keywords, classes
and colours, bands, tile size, checksums and versions.
"""

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from segcore.errors import ModelError
from segcore.files import save_tensors, sha256
from segcore.models.base import description as descriptions

# torch takes seconds to import, and reading a description does not need it.
if TYPE_CHECKING:
    import torch

    from segcore.models.base.model import SegmentationModel
    from segcore.models.base.tensors import Header

DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
_TO_BUILD = ("architecture", "in_channels", "num_classes", "settings")
_RESTORE = "restore the file, or take another version"
# reads of a bundle that is exchanged meanwhile, and the pause between them in seconds
_READS, _PAUSE = 5, 0.05


class Hashes(NamedTuple):
    """sha256 of the two files as they were registered; None: not registered."""

    weights: str | None = None
    description: str | None = None


_ANY = Hashes()


def save_bundle(folder: Path, model: "SegmentationModel", architecture: str, facts: dict[str, Any]) -> None:
    """Write model.safetensors and model.json into an existing folder; model.json has the hashes of all other files.

    Args:
        folder: best from `files.atomic_folder`, so that the bundle appears complete or not at all; with all further
            files of the bundle.
        model: with its normalisation.
        architecture: name of its module in segcore/models.
        facts: JSON-able: classes, colors, foreground, tile and further entries of model.json.
    """
    further = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}
    further = {name: hashed for name, hashed in further.items() if name not in (DESCRIPTION, WEIGHTS)}
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    save_tensors(weights, folder / WEIGHTS)
    description = {
        "architecture": architecture,
        "title": model.title,
        "settings": model.settings,
        "in_channels": model.in_channels,
        "num_classes": model.num_classes,
        "normalization": {"mean": model.mean.tolist(), "std": model.std.tolist()},
        "range": {"low": model.low.tolist(), "high": model.high.tolist()},
        "weights_sha256": sha256(folder / WEIGHTS),
        "files": further,
        # absent in the bundles of semantic networks
        **({"kind": model.kind} if model.kind == "instance" else {}),
        **facts,
    }
    (folder / DESCRIPTION).write_bytes(descriptions.serialized(description))


@dataclass(frozen=True)
class Bundle:
    """A bundle as it was at one moment: description and weights were read once and belong together.

    Attributes:
        folder: that it was read from; not read again.
        description: content of model.json.
        description_bytes: model.json.
        weights_bytes: model.safetensors.
    """

    folder: Path
    description: dict[str, Any]
    description_bytes: bytes = field(repr=False)
    weights_bytes: bytearray = field(repr=False)
    _header: "Header" = field(repr=False)

    @property
    def weights_sha256(self) -> str:
        """The sha256 of model.safetensors."""
        return str(self.description["weights_sha256"])

    @property
    def description_sha256(self) -> str:
        """The sha256 of model.json."""
        return hashlib.sha256(self.description_bytes).hexdigest()

    def require(self, *names: str) -> None:
        """Check that model.json has these entries; dots separate an entry from the entries in it.

        Raises:
            ModelError: it lacks some.
        """
        require(self.description, f"{self.folder}/{DESCRIPTION}", names)

    def model(self, device: "torch.device | str" = "cpu") -> "SegmentationModel":
        """A new model with these weights, on `device`, in evaluation mode."""
        from segcore.models.base.network import build_described

        model = build_described(self.description, f"{self.folder}/{DESCRIPTION}")
        model.load_state_dict(self._header.tensors(self.weights_bytes))
        return model.to(device).eval()


def require(description: dict[str, Any], path: str, names: tuple[str, ...]) -> None:
    """Check that a description has these entries; dots separate an entry from the entries in it.

    Raises:
        ModelError: it lacks some.
    """

    def has(name: str) -> bool:
        value: Any = description
        for part in name.split("."):
            if not isinstance(value, dict) or value.get(part) is None:
                return False
            value = value[part]
        return True

    if missing := [name for name in names if not has(name)]:
        raise ModelError(f"{path}: lacks {', '.join(missing)}", "train again, or restore the file")


def read_bundle(folder: Path | str, expected: Hashes = _ANY) -> Bundle:
    """Read a bundle into memory and check it. A bundle that is replaced meanwhile is read again.

    Nothing of the size that model.json or the header of model.safetensors declares is allocated before both agree with
    each other and with the size of the file.

    Args:
        folder: with model.json and model.safetensors.
        expected: registered hashes that the files must have.

    Raises:
        ModelError: a file is missing or damaged, or not the one that is described or registered; or model.json
            describes no network, or another one than the weights are of.
    """
    folder = Path(folder)
    for last in range(1, _READS + 1):
        before = _status(folder)
        try:
            return _read(folder, expected)
        except ModelError:
            time.sleep(_PAUSE)
            if last == _READS or _status(folder) == before:
                raise
    raise AssertionError


def _status(folder: Path) -> list[tuple[int, int, int] | None]:
    """What changes when the files of a bundle are replaced."""
    found: list[tuple[int, int, int] | None] = []
    for name in (DESCRIPTION, WEIGHTS):
        try:
            status = (folder / name).stat()
        except (OSError, ValueError):
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return found


def _read(folder: Path, expected: Hashes) -> Bundle:
    from segcore.models.base.network import check_network
    from segcore.models.base.tensors import Header

    content, description = _described(folder, expected.description, folder)
    path = folder / WEIGHTS
    require(description, f"{folder}/{DESCRIPTION}", _TO_BUILD)
    try:
        if not path.is_file():
            raise _not_described(path, "it is missing")
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            header = Header(stream, size)
            check_network(description, header, f"{folder}/{DESCRIPTION}")
            stream.seek(0)
            weights = bytearray(size)
            stream.readinto(weights)
    except OSError as error:
        raise _not_described(path, f"it cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _not_described(path, str(error)) from error
    _check_weights(hashlib.sha256(weights).hexdigest(), description, expected.weights, path)
    return Bundle(folder, description, content, weights, header)


def _described(folder: Path, registered: str | None, shown: Path | str) -> tuple[bytes, dict[str, Any]]:
    """Content of model.json, and the description in it."""
    content, path = descriptions.read_bytes(folder, shown), f"{shown}/{DESCRIPTION}"
    if registered is not None and hashlib.sha256(content).hexdigest() != registered:
        raise ModelError(f"{path}: is not the file that was registered (sha256 {registered[:12]})", _RESTORE)
    return content, descriptions.parse(content, path)


def _not_described(path: Path | str, reason: str) -> ModelError:
    return ModelError(f"{path}: is not the file that {DESCRIPTION} describes ({reason})", _RESTORE)


def _check_weights(found: str, description: dict[str, Any], registered: str | None, path: Path | str) -> None:
    described = description["weights_sha256"]
    if found != described:
        raise _not_described(path, f"its sha256 is {found[:12]} instead of {described[:12]}")
    if registered not in (None, found):
        raise ModelError(f"{path}: is not the file that was registered (sha256 {registered})", _RESTORE)


def load_description(folder: Path | str) -> dict[str, Any]:
    """Read model.json.

    Raises:
        ModelError: missing, damaged, or altered after it was written.
    """
    return _described(Path(folder), None, folder)[1]


def verified(folder: Path | str, expected: Hashes = _ANY, shown: Path | str | None = None) -> dict[str, Any]:
    """model.json of a bundle, after checking the hashes of its files, of which none is loaded.

    Args:
        folder: the bundle.
        expected: registered hashes that the files must have.
        shown: location in error messages, if the folder is a temporary copy.

    Raises:
        ModelError: a file is missing, damaged, or not the one that is described or registered.
    """
    folder, shown = Path(folder), shown or folder
    _, description = _described(folder, expected.description, shown)
    _check_weights(
        _hash_of(folder / WEIGHTS, f"{shown}/{WEIGHTS}"), description, expected.weights, f"{shown}/{WEIGHTS}"
    )
    for name, described in description.get("files", {}).items():
        if _hash_of(folder / name, f"{shown}/{name}") != described:
            raise _not_described(f"{shown}/{name}", "its sha256 is another one")
    return description


def verified_file(folder: Path, name: str) -> bytes:
    """Content of a further file of a bundle; bundles of older versions have no hashes of such files.

    Raises:
        ModelError: it is missing, or not the file that model.json describes.
    """
    described = load_description(folder).get("files", {}).get(name)
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise _not_described(folder / name, f"it cannot be read: {error.strerror or error}") from error
    if described not in (None, hashlib.sha256(content).hexdigest()):
        raise _not_described(folder / name, "its sha256 is another one")
    return content


def _hash_of(path: Path, shown: str) -> str:
    try:
        if not path.is_file():
            raise _not_described(shown, "it is missing")
        return sha256(path)
    except OSError as error:
        raise _not_described(shown, f"it cannot be read: {error.strerror or error}") from error


def load_bundle(folder: Path | str, device: "torch.device | str" = "cpu") -> "SegmentationModel":
    """The model of a bundle, on `device`, in evaluation mode; the bundle is verified first.

    Args:
        folder: with model.json and model.safetensors.
        device: of the weights.

    Raises:
        ModelError: as `read_bundle`.
    """
    return read_bundle(folder).model(device)
