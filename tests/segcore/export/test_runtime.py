"""Exported files in place of the network of a bundle."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from segcore.errors import DataError, ExportError
from segcore.export import RECORD, Runtime, _runtime, onnx, pt2, require_packages
from segcore.export._graph import Source
from segcore.export._runtime import exported, guarded, load
from segcore.files import sha256
from segcore.models.base.bundle import Bundle, read_bundle, save_bundle
from segcore.models.base.factory import build_model
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.bundles import FACTS, OBJECTS, make_bundle, noise


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    facts = {"touching": True, "objects": {**OBJECTS, "touching": True}}
    return read_bundle(make_bundle(tmp_path_factory.mktemp("bundle") / "unet-0", **facts))


def record_of(bundle: Bundle, folder: Path) -> dict[str, str]:
    hashes = {"weights_sha256": bundle.weights_sha256, "description_sha256": bundle.description_sha256}
    return {"format": "onnx", "file": onnx.FILE, "sha256": sha256(folder / onnx.FILE), **hashes}


@pytest.fixture(scope="module")
def written(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    onnx.write(Source.of(bundle), folder)
    _runtime.write_record(folder, record_of(bundle, folder))
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def scene() -> np.ndarray:
    """(H, W, C) of several windows."""
    return np.moveaxis(noise(150, 170), 0, -1)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
@pytest.mark.parametrize("blend", ["probabilities", "logits"])
def test_a_scene_is_predicted_as_by_the_network(bundle: Bundle, written: Path, runtime: str, blend: str):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    settings = Predict(blend=blend, outputs=["classes", "objects"], overlap=16)
    image = scene()
    valid = np.ones(image.shape[:2], bool)
    valid[20:50, 30:90] = False
    own = Predictor(bundle, settings, "cpu").predict(image, valid)
    model = load(written, bundle, runtime)
    made = Predictor(bundle, settings, "cpu", model).predict(image, valid)
    assert own.touching is not None
    # elsewhere, classes are shares of nearly nothing
    shared = valid & (own.touching < 1 - 1e-5)
    np.testing.assert_allclose(made.probabilities[:, shared], own.probabilities[:, shared], atol=2e-3)
    assert (made.classes != own.classes).mean() < 1e-3
    np.testing.assert_array_equal(made.valid, own.valid)
    assert made.objects is not None and own.objects is not None
    assert len(made.objects) == len(own.objects) > 0  # type: ignore[arg-type]


def test_mirror_images_are_averaged(bundle: Bundle, written: Path):
    settings = Predict(flips=True)
    own = Predictor(bundle, settings, "cpu").predict(scene())
    made = Predictor(bundle, settings, "cpu", load(written, bundle, "onnx")).predict(scene())
    assert (made.classes != own.classes).mean() < 1e-3


def test_two_threads_share_a_file(bundle: Bundle, written: Path):
    model = load(written, bundle, "onnx")
    inputs = [torch.from_numpy(noise(64, 64, seed=n).astype(np.float32))[None] for n in range(8)]
    alone = [model.predict(x) for x in inputs]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(model.predict, inputs))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_an_instance_network_finds_the_objects_of_its_network(tmp_path: Path):
    bundle = read_bundle(make_bundle(tmp_path / "yolact-0", architecture="yolact"))
    onnx.write(Source.of(bundle), tmp_path)
    model = _runtime.exported(bundle.model(), onnx.runner(tmp_path))
    settings = Predict(outputs=["classes", "objects"])
    own = Predictor(bundle, settings, "cpu").predict(scene())
    made = Predictor(bundle, settings, "cpu", model).predict(scene())
    assert own.objects is not None and made.objects is not None
    assert len(made.objects) == len(own.objects) > 0  # type: ignore[arg-type]
    assert (made.classes != own.classes).mean() < 1e-3


def test_a_damaged_file_is_refused(folder: Path, bundle: Bundle):
    with (folder / onnx.FILE).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ExportError, match=r"model.onnx: is missing or damaged"):
        load(folder, bundle, "onnx")
    # with the hash of the damaged file in the record
    (folder / onnx.FILE).write_bytes(b"no graph " + bundle.weights_sha256.encode())
    record = json.loads((folder / RECORD).read_text())
    _runtime.write_record(folder, {**record, "sha256": sha256(folder / onnx.FILE)})
    for runtime in ("onnx", "openvino"):
        with pytest.raises(ExportError, match=r"model.onnx: .* cannot read it"):
            load(folder, bundle, runtime)


def test_a_file_of_other_weights_or_none_is_refused(folder: Path, bundle: Bundle, tmp_path: Path):
    other = read_bundle(make_bundle(tmp_path / "other", seed=1))
    with pytest.raises(ExportError, match="was exported from other weights"):
        load(folder, other, "onnx")
    with pytest.raises(ExportError, match="there is no exported model"):
        load(tmp_path / "nothing", bundle, "onnx")
    (folder / RECORD).write_text("{")
    with pytest.raises(ExportError, match=r"export.json: is damaged"):
        load(folder, bundle, "onnx")


def test_a_file_of_another_format_is_refused(folder: Path, bundle: Bundle):
    record = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(record | {"format": "deepness"}))
    with pytest.raises(ExportError, match=r"has a file of the format deepness, not onnx\n"):
        load(folder, bundle, "onnx")


def test_an_output_of_another_size_is_an_error_of_the_image():
    run = guarded(lambda images: {"probabilities": images[:, :, 1:]})
    with pytest.raises(DataError, match=r"1 x 3 x 8 x 8 pixels: probabilities has the shape 1 x 3 x 7 x 8"):
        run(np.zeros((1, 3, 8, 8), np.float32))


def test_a_record_that_names_a_file_elsewhere_is_refused(folder: Path, bundle: Bundle, tmp_path: Path):
    shutil.copy(folder / onnx.FILE, tmp_path / "elsewhere.onnx")
    record = json.loads((folder / RECORD).read_text())
    for name in ("../elsewhere.onnx", "x" * 5000, None, ["model.onnx"]):
        _runtime.write_record(folder, {**record, "file": name})
        with pytest.raises(ExportError, match=r"is damaged: file is not model.onnx\n"):
            load(folder, bundle, "onnx")


def test_a_file_with_other_class_names_or_of_another_model_is_refused(
    folder: Path, bundle: Bundle, tmp_path: Path
):
    classes = ["sky", "land", "sea"]
    renamed = read_bundle(make_bundle(tmp_path / "renamed", touching=True, classes=classes))
    assert renamed.weights_sha256 == bundle.weights_sha256
    with pytest.raises(ExportError, match=r"was exported with another model.json"):
        load(folder, renamed, "onnx")
    other = read_bundle(make_bundle(tmp_path / "other", seed=1))
    # the record is that of the other model, the file is not
    _runtime.write_record(folder, record_of(other, folder))
    with pytest.raises(ExportError, match=r"model.onnx: is a file of other weights"):
        load(folder, other, "onnx")


@pytest.mark.parametrize("magnify", [0.5, 0.25])
def test_images_of_few_pixels_are_computed_by_the_file(tmp_path: Path, magnify: float):
    torch.manual_seed(0)
    model = build_model("unet", 3, 3, encoder="plain", width=4, magnify=magnify).eval()
    save_bundle(tmp_path, model, "unet", FACTS)
    bundle = read_bundle(tmp_path)
    pt2.write(Source.of(bundle), tmp_path)
    made = exported(bundle.model(), pt2.runner(tmp_path))
    for size in ((1, 1), (2, 7), (9, 1)):
        image = np.moveaxis(noise(*size), 0, -1)
        found = Predictor(bundle, Predict(), "cpu", made).predict(image)
        assert found.classes.shape == size and np.isfinite(found.probabilities).all()


def test_an_error_of_a_runtime_is_one_of_the_image():
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        raise RuntimeError("no memory\nstack")

    with pytest.raises(DataError, match=r"cannot compute 1 x 3 x 8 x 9 pixels: no memory\n"):
        guarded(run)(np.zeros((1, 3, 8, 9), np.float32))


def test_a_runtime_that_is_not_installed_is_named_with_its_extra():
    missing = Runtime("Other", "onnx", ("json", "no_such_package"), "openvino")
    with pytest.raises(ExportError, match="no_such_package is not installed") as caught:
        require_packages(missing.packages, missing.extra)
    assert "extra openvino" in caught.value.remedy
