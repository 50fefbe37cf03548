"""torch.export, and the STAC item beside it."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import torch
from pystac.extensions.file import FileExtension
from pystac.extensions.mlm import MLMExtension
from torch import nn

from segcore.errors import ModelError
from segcore.export import pt2
from segcore.export._graph import Source, eager
from segcore.export._stac import item, pretrained
from segcore.files import sha256
from segcore.models.base.bundle import read_bundle, save_bundle
from segcore.models.base.factory import build_model
from tests.support.bundles import FACTS, make_bundle, noise, rewrite
from tests.support.stac_validation import validate_item

_FACTS: dict[str, Any] = {
    "classes": ["background", "field / meadow", "水"],
    "input": {"dtype": "uint8", "nodata": 0.0, "bands": [4, 1, 2]},
    "training_images": {"pixel_sizes": {"m": [0.4, 0.5, 0.6]}},
    "versions": {"data": "d" * 64},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = make_bundle(tmp_path_factory.mktemp("pt2") / "unet-0", touching=True, **_FACTS)
    return Source.of(read_bundle(folder))


@pytest.fixture(scope="module")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    pt2.write(source, folder)
    return folder


def test_the_written_file_gives_the_outputs_of_the_model_for_any_batch_and_size(
    source: Source, written: Path
) -> None:
    run = pt2.runner(written)
    for batch, height, width in ((1, 70, 33), (3, 16, 100)):
        images = np.stack([noise(height, width, seed=n).astype(np.float32) for n in range(batch)])
        images[:, :, :10, :10] = 0
        images[:, 1, 12:14] = np.nan
        expected, found = eager(source.graph, images), run(images)
        assert list(found) == ["probabilities", "touching"]
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])


def test_no_part_of_the_written_file_is_a_pickle(written: Path) -> None:
    with zipfile.ZipFile(written / pt2.FILE) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    # torch.save makes archives of their own, with a pickle in each
    assert [name for name, content in parts.items() if content.startswith(b"PK")] == []
    (weights,) = (content for name, content in parts.items() if name.endswith("weights_config.json"))
    entries = json.loads(weights)["config"].values()
    assert entries and not any(entry["use_pickle"] for entry in entries)


def test_the_source_keeps_its_example_after_it_was_written(source: Source, written: Path) -> None:
    assert source.program.example_inputs is not None


@pytest.mark.slow
def test_torch_alone_runs_the_written_file(source: Source, written: Path) -> None:
    code = f"""
import sys, torch
extra = {{"metadata.json": ""}}
program = torch.export.load({str(written / pt2.FILE)!r}, extra_files=extra)
probabilities, touching = program.module()(torch.full((1, 3, 50, 60), 70.0))
assert "segcore" not in sys.modules and '水' in extra["metadata.json"]
print(probabilities.shape, probabilities[0, :, 9, 9].tolist())
"""
    run = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    images = np.full((1, 3, 50, 60), 70, np.float32)
    expected = eager(source.graph, images)["probabilities"]
    assert run.stdout.strip() == f"torch.Size([1, 3, 50, 60]) {expected[0, :, 9, 9].tolist()}"


@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"text"])
def test_a_damaged_file_is_an_error_that_names_it(
    written: Path, tmp_path: Path, damage: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / pt2.FILE).write_bytes(damage((written / pt2.FILE).read_bytes()))
    with pytest.raises(ModelError, match=f"{tmp_path / pt2.FILE}: cannot be read"):
        pt2.runner(tmp_path)
    # not what torch logs
    assert capfd.readouterr() == ("", "")


def test_the_item_is_valid_and_describes_the_model(source: Source, written: Path) -> None:
    found = validate_item(written / pt2.ITEM)
    described, asset = MLMExtension.ext(found), found.assets["model"]
    assert described.architecture == "U-Net"
    assert described.tasks == ["semantic-segmentation"]
    assert described.framework == "PyTorch"
    assert described.total_parameters == sum(p.numel() for p in source.model.parameters())
    assert described.pretrained is False and described.pretrained_source is None
    assert found.common_metadata.gsd == 0.5
    assert found.properties["segflow:prepared_data_sha256"] == "d" * 64

    (given,) = described.input
    assert given.input.shape == [-1, 3, -1, -1]
    # a client must not normalise: the model does
    assert given.value_scaling is None
    assert given.bands == ["band 4", "band 1", "band 2"]
    assert found.properties["bands"][0] == {"name": "band 4", "data_type": "uint8", "nodata": 0.0}

    probabilities, touching = described.output
    assert (probabilities.name, probabilities.result.shape) == ("probabilities", [-1, 3, -1, -1])
    assert [c["title"] for c in probabilities.to_dict()["classification:classes"]] == _FACTS["classes"]
    assert [c["name"] for c in probabilities.to_dict()["classification:classes"]] == [
        "background",
        "field_meadow",
        "class_2",
    ]
    assert (touching.name, touching.result.shape) == ("touching", [-1, -1, -1])

    assert asset.extra_fields["mlm:artifact_type"] == "torch.export.save"
    assert Path(found.get_self_href() or "").parent / asset.href == written / pt2.FILE
    file = FileExtension.ext(asset)
    assert file.size == (written / pt2.FILE).stat().st_size
    assert file.checksum == f"1220{sha256(written / pt2.FILE)}"


def test_an_item_that_breaks_a_rule_of_the_extension_is_not_valid(written: Path, tmp_path: Path) -> None:
    broken = json.loads((written / pt2.ITEM).read_text())
    broken["assets"]["model"]["roles"].remove("mlm:model")
    (tmp_path / "item.json").write_text(json.dumps(broken))
    with pytest.raises(pystac.STACValidationError):
        validate_item(tmp_path / "item.json")


@pytest.mark.parametrize(
    ("change", "source_of_weights"),
    [
        (lambda d: d["settings"].update(weights="imagenet"), "ImageNet (encoder)"),
        (
            lambda d: d["settings"].update(weights="torchvision:IMAGENET1K_V1"),
            "IMAGENET1K_V1 of torchvision (encoder)",
        ),
        (
            lambda d: d["settings"].update(weights="file:/home/me/secret.safetensors"),
            "a local file (encoder)",
        ),
        (
            lambda d: (
                d["settings"].update(weights="imagenet"),
                d.update(initial_weights="of the champion (1234)"),
            ),
            "weights of the champion (1234), ImageNet (encoder)",
        ),
    ],
)
def test_the_item_names_the_weights_that_a_training_began_with(change: Any, source_of_weights: str) -> None:
    description: dict[str, Any] = {"settings": {}}
    change(description)
    assert pretrained(description) == {"mlm:pretrained": True, "mlm:pretrained_source": source_of_weights}


def test_the_item_of_a_model_of_an_older_version_is_valid(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "old")
    rewrite(folder, lambda d: [d.pop(name, None) for name in ("input", "training_images", "parameters")])
    pt2.write(Source.of(read_bundle(folder)), tmp_path)
    found = validate_item(tmp_path / pt2.ITEM)
    assert [band["name"] for band in found.properties["bands"]] == ["band 1", "band 2", "band 3"]


class _Detections(nn.Module):
    """Outputs of the shapes and types of an instance network, of five detections per image."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = images.flatten(1)[:, :5]
        masks = (images[:, :1] > 0).repeat(1, 5, 1, 1)
        return scores, scores.long(), scores[..., None].repeat(1, 1, 4), masks


def test_the_item_of_an_instance_network_is_valid(tmp_path: Path) -> None:
    source = Source.of(read_bundle(make_bundle(tmp_path / "b", architecture="solo")))
    (tmp_path / pt2.FILE).write_bytes(b"any")
    described = item(replace(source, graph=_Detections()), tmp_path / pt2.FILE)  # type: ignore[arg-type]
    (tmp_path / pt2.ITEM).write_text(json.dumps(described))
    properties = validate_item(tmp_path / pt2.ITEM).properties
    assert properties["mlm:tasks"] == ["instance-segmentation"]
    results = {output["name"]: output["result"] for output in properties["mlm:output"]}
    assert {name: result["shape"] for name, result in results.items()} == {
        "scores": [-1, 5],
        "classes": [-1, 5],
        "boxes": [-1, 5, 4],
        "masks": [-1, 5, -1, -1],
    }
    assert results["masks"]["dim_order"] == ["batch", "detection", "height", "width"]
    assert results["masks"]["data_type"] == "other"


@pytest.mark.slow
@pytest.mark.parametrize("magnify", [2, 0.5])
def test_a_network_that_magnifies_can_be_stored(tmp_path: Path, magnify: float) -> None:
    model = build_model("unet", 3, 3, encoder="plain", width=4, magnify=magnify)
    save_bundle(tmp_path, model.eval(), "unet", FACTS)
    source = Source.of(read_bundle(tmp_path))
    pt2.write(source, tmp_path)
    images = noise(37, 90)[None].astype(np.float32)
    expected = eager(source.graph, images)["probabilities"]
    np.testing.assert_array_equal(pt2.runner(tmp_path)(images)["probabilities"], expected)
