"""Networks that cannot be built are refused before the first stage, by the key in params.yaml."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from segcore import downloads, params
from segcore.errors import ParamsError
from tasks.networks import require_networks, require_networks_in_process
from tests.support.tiny import make_pairs, values_for


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_pairs(tmp_path / "pictures", count=4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


def checked(project: Path, train: dict[str, Any], architectures: tuple[str, ...] = ("unet",)) -> None:
    values = values_for(project / "pictures", architectures=list(architectures))
    values["train"]["unet"] = {"model": {}}
    for name, own in train.items():
        values["train"][name] = params.merge(values["train"].get(name, {}), own)
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    require_networks(params.load("params.yaml"))


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"common": {"encoder": "resnet19"}}, "train.common.encoder: encoder 'resnet19'", "resnet18, resnet34"),
    ({"unet": {"encoder": "resnet19"}}, "train.unet.encoder: encoder 'resnet19'", "resnet18, resnet34"),
    ({"unet": {"model": {"encoder": "resnet19"}}}, "train.unet.model.encoder: ", "resnet18, resnet34"),
    ({"common": {"encoder": "vgg16", "weights": "imagenet"}}, "train.common.weights: ", "weights to"),
    ({"common": {"weights": "file:nope.safetensors"}}, "train.common.weights: weights nope", "correct"),
    ({"common": {"weights": "torchvision:V9"}}, "train.common.weights: ", "IMAGENET1K_V1"),
    ({"common": {"weights": "sampel"}}, "train.common.weights: weights 'sampel' are unknown", "imagenet"),
    ({"common": {"loss": "dicee"}}, "train.common.loss: loss 'dicee' is unknown", "cross_entropy"),
    ({"unet": {"model": {"norm": "layer"}}}, "train.unet.model.norm: norm 'layer'", "batch, group"),
    ({"unet": {"model": {"upsampling": "bicubic"}}}, "train.unet.model.upsampling: ", "bilinear, nearest"),
    ({"unet": {"model": {"deep_supervision": "maybe"}}}, "train.unet.model.deep_supervision: ", "true or"),
    ({"common": {"model": {"norm": "layer"}}}, "train.common.model.norm: norm 'layer'", "batch, group"),
    ({"fcn": {"model": {"version": "v1"}}}, "train.fcn.model.version: architecture fcn has no", "variant"),
    ({"deeplab": {"model": {"version": "v4"}}}, "train.deeplab.model.version: version 'v4'", "v1, v2, v3"),
]


@pytest.mark.parametrize(("train", "what", "remedy"), WRONG, ids=lambda value: str(value)[:50])
def test_a_wrong_setting_is_named_by_file_and_key(
    project: Path, train: dict[str, Any], what: str, remedy: str
) -> None:
    architectures = ("unet", *(name for name in train if name not in ("common", "unet")))
    with pytest.raises(ParamsError) as caught:
        checked(project, train, architectures)
    assert caught.value.what.startswith(f"params.yaml: {what}")
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("encoder", ["timm:nothere", "timm:vit_tiny_patch16_224"])
def test_an_encoder_that_timm_lacks_or_that_gives_no_maps_is_named(project: Path, encoder: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ParamsError, match=r"params\.yaml: train\.common\.encoder: [\s\S]*timm:resnet18"):
        checked(project, {"common": {"encoder": encoder}})


def test_a_setting_of_several_networks_is_named_once_and_several_settings_together(project: Path) -> None:
    with pytest.raises(ParamsError) as caught:
        checked(project, {"common": {"encoder": "resnet19"}}, ("fcn", "deeplab"))
    assert caught.value.what.count("resnet19") == 1
    with pytest.raises(ParamsError) as caught:
        checked(
            project,
            {"fcn": {"model": {"variant": "4s"}}, "unet": {"model": {"norm": "layer"}}},
            ("fcn", "unet"),
        )
    assert "train.fcn.model.variant" in caught.value.what and "train.unet.model.norm" in caught.value.what


def test_weights_of_another_encoder_are_refused_by_their_shapes(project: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, project / "some.safetensors")
    with pytest.raises(
        ParamsError, match=r"train\.common\.weights: weights file:some\.safetensors: .*missing"
    ):
        checked(project, {"common": {"weights": "file:some.safetensors"}})


def test_all_networks_are_built_without_a_download(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_download(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(downloads, "fetch_member", no_download)
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_download)
    names = ("fcn", "unet", "deeplab")
    checked(project, {"common": {"encoder": "mobilenet_v2", "weights": "imagenet"}}, names)
    checked(project, {"common": {"encoder": "resnet18", "weights": "torchvision:IMAGENET1K_V1"}}, names)


def test_complete_refuses_them_and_so_does_a_flow_by_it(project: Path) -> None:
    with pytest.raises(ParamsError):
        checked(project, {"unet": {"model": {"upsampling": "bicubic"}}})
    command = [sys.executable, "-m", "tasks", "complete"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Error: params.yaml: train.unet.model.upsampling: upsampling 'bicubic'" in done.stderr
    with pytest.raises(ParamsError, match=r"^params\.yaml: train\.unet\.model\.upsampling: ") as caught:
        require_networks_in_process()
    assert caught.value.remedy == "choose one of transposed, bilinear, nearest"
    checked(project, {})
    require_networks_in_process()
