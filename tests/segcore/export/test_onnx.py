"""The ONNX file of a model, against the model itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segcore.errors import ModelError
from segcore.export import onnx
from segcore.export._graph import Source, eager, least_side
from segcore.models.base.bundle import read_bundle, save_bundle
from segcore.models.base.factory import build_model
from tests.support.bundles import FACTS, make_bundle, noise

# runs in a process that cannot import this project
_SCRIPT = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
facts = session.get_modelmeta().custom_metadata_map
images = np.load(sys.argv[2])
(probabilities,) = session.run(["probabilities"], {"images": images})
np.save(sys.argv[3], probabilities)
print(json.loads(facts["classes"])[int(probabilities[0].mean((1, 2)).argmax())])
assert not {"torch", "segcore"} & set(sys.modules)
"""


def of(folder: Path, name: str = "unet", **settings: Any) -> Source:
    """A source of random weights with other settings of the network."""
    torch.manual_seed(0)
    model = build_model(name, 3, 3, **settings).eval()
    model.set_normalization([100.0] * 3, [50.0] * 3)
    folder.mkdir()
    save_bundle(folder, model, name, FACTS)
    return Source.of(read_bundle(folder))


def images(number: int, height: int, width: int, bands: int = 3) -> np.ndarray:
    made = np.stack([noise(height, width, bands, seed=n) for n in range(number)]).astype(np.float32)
    made[:, :, height // 2 : height // 2 + 9, width // 3 : width // 2] = np.nan
    return made


def largest_difference(source: Source, folder: Path, sizes: list[tuple[int, int, int]]) -> float:
    folder.mkdir(exist_ok=True)
    onnx.write(source, folder)
    run, found = onnx.runner(folder), 0.0
    for size in sizes:
        given = images(*size, bands=source.model.in_channels)
        expected, made = eager(source.graph, given), run(given)
        assert {k: v.shape for k, v in expected.items()} == {k: v.shape for k, v in made.items()}
        found = max(found, *(float(np.abs(expected[k] - made[k]).max()) for k in expected))
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    facts = {"input": {"nodata": 0.0}, "versions": {"data": "d" * 64}}
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "unet-0", touching=True, **facts)
    return Source.of(read_bundle(folder), {"iou/dataset/foreground_mean": 0.5})


@pytest.fixture(scope="module")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    onnx.write(source, folder)
    return folder


def test_onnxruntime_and_numpy_alone_give_the_probabilities_of_the_model(
    source: Source, written: Path, tmp_path: Path
):
    given = images(2, 75, 41)
    np.save(tmp_path / "images.npy", given)
    files = [str(written / onnx.FILE), str(tmp_path / "images.npy"), str(tmp_path / "out.npy")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT, *files], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in FACTS["classes"]
    expected = eager(source.graph, given)["probabilities"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=2e-5)


def test_the_file_equals_the_model_for_any_number_and_size_of_images(source: Source, written: Path):
    run = onnx.runner(written)
    # one pixel; smaller than the stride; multiples of it; the smallest padded size and the next one
    for size in ((1, 1, 1), (3, 5, 200), (1, 64, 96), (2, 32, 32), (1, 33, 97)):
        given = images(*size)
        expected, made = eager(source.graph, given), run(given)
        for name in ("probabilities", "touching"):
            np.testing.assert_allclose(made[name], expected[name], atol=2e-5)


def test_pixels_with_the_declared_nodata_value_in_all_bands_have_no_data(source: Source, written: Path):
    given = images(1, 60, 60)
    given[:, :, 10:30, 10:30] = 0
    missing = given.copy()
    missing[:, :, 10:30, 10:30] = np.nan
    run = onnx.runner(written)
    np.testing.assert_array_equal(run(given)["probabilities"], run(missing)["probabilities"])
    # 0 in one band is a value
    given[:, 0, 10:30, 10:30] = 1
    assert np.abs(run(given)["probabilities"] - run(missing)["probabilities"]).max() > 0.01


def test_what_is_not_valid_has_no_influence_as_in_the_model(source: Source, written: Path):
    given = images(1, 50, 50)
    valid = np.isfinite(given).all(axis=1)
    model = source.model.predict(torch.from_numpy(np.nan_to_num(given, nan=200.0)), torch.from_numpy(valid))
    made = onnx.runner(written)(given)
    np.testing.assert_allclose(made["touching"], model[:, -1].numpy(), atol=2e-5)
    of_classes = model[:, :-1] / model[:, :-1].sum(1, keepdim=True)
    sure = (model[:, -1] < 0.99).numpy()
    difference = np.abs(made["probabilities"] - of_classes.numpy()).max(axis=1)
    assert difference[sure].max() < 1e-4


@pytest.mark.parametrize("magnify", [2, 0.5, 0.25])
def test_magnification_is_inside_the_file(tmp_path: Path, magnify: float):
    source = of(tmp_path / "unet-0", encoder="plain", width=4, magnify=magnify)
    least = least_side(source.model)
    sizes = [(2, 37, 53), (1, 64, 64), (1, least, least + 1), (1, 130, 7)]
    assert largest_difference(source, tmp_path, sizes) < 2e-5


def test_the_file_has_the_gain_of_the_score_and_no_auxiliary_outputs(tmp_path: Path):
    keywords = {"norm": "group", "upsampling": "nearest", "deep_supervision": True, "score_gain": 2}
    source = of(tmp_path / "unet-0", encoder="plain", width=4, **keywords)
    # group norm divides by the deviation of few pixels, which enlarges rounding
    assert largest_difference(source, tmp_path, [(2, 37, 53), (1, 64, 64)]) < 2e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "encoder"),
    [("fcn", "mobilenet_v2"), ("deeplab", "mobilenet_v2"), ("unet", "efficientnet_lite0")],
)
def test_other_architectures_equal_their_files(tmp_path: Path, name: str, encoder: str):
    source = of(tmp_path / name, name, encoder=encoder)
    assert largest_difference(source, tmp_path, [(1, 97, 131), (3, 64, 64), (1, 1, 1)]) < 2e-5


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_first_versions_of_deeplab_equal_their_files(tmp_path: Path, version: str):
    keywords = {"encoder": "resnet18", "version": version, "aspp_channels": 8}
    source = of(tmp_path / version, "deeplab", **keywords)
    assert largest_difference(source, tmp_path, [(1, 37, 53), (2, 64, 64)]) < 2e-5


def test_neighbouring_planes_without_data_are_0_as_in_training(tmp_path: Path):
    folder = make_bundle(tmp_path / "unet-0", bands=6, input={"neighbours": 1, "bands": [2, 1]})
    source = Source.of(read_bundle(folder))
    given = images(1, 40, 40, bands=6)
    given[:, 4:, :20] = np.nan
    # bands 2 and 3 are of the plane in the middle
    valid = np.isfinite(given[:, 2:4]).all(axis=1)
    filled = np.nan_to_num(given)
    expected = source.model.predict(torch.from_numpy(filled), torch.from_numpy(valid)).numpy()
    onnx.write(source, tmp_path)
    np.testing.assert_allclose(onnx.runner(tmp_path)(given)["probabilities"], expected, atol=2e-5)
    assert "bands 2, 1" in source.metadata["input"] and "3 consecutive planes" in source.metadata["input"]


def test_the_metadata_describe_the_model_and_name_no_file_of_this_machine(source: Source, written: Path):
    import onnx as package

    model = package.load(written / onnx.FILE)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["classes"]) == FACTS["classes"] and json.loads(facts["colors"]) == FACTS["colors"]
    assert json.loads(facts["bands"]) == [1, 2, 3] and facts["prepared_data_sha256"] == "d" * 64
    assert facts["weights_sha256"] == source.bundle.weights_sha256
    assert json.loads(facts["scores"]) == {"iou/dataset/foreground_mean": 0.5}
    assert json.loads(facts["model_json"]) == source.bundle.description
    assert "nodata values that image files declare themselves" in facts["input"]
    assert "0 in all bands" in facts["input"] and set(json.loads(facts["outputs"])) == {
        "probabilities",
        "touching",
    }
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [onnx.OPSET]
    axes = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    assert str(Path.cwd()).encode() not in (written / onnx.FILE).read_bytes()


def test_two_exports_are_the_same_file(source: Source, written: Path, tmp_path: Path):
    onnx.write(Source.of(source.bundle, {"iou/dataset/foreground_mean": 0.5}), tmp_path)
    assert (tmp_path / onnx.FILE).read_bytes() == (written / onnx.FILE).read_bytes()


def test_a_network_that_cannot_be_exported_is_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    source = of(tmp_path / "unet-0", encoder="plain", width=4)
    segment = source.model.segment  # type: ignore[attr-defined]
    source.model.segment = lambda x: segment(x) if x.sum() > 0 else -segment(x)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"U-Net cannot be exported: .*data-dependent") as caught:
        onnx.write(source, tmp_path)
    assert "\n" not in caught.value.what and capfd.readouterr() == ("", "")
