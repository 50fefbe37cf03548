"""ONNX with weights of 8 bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from segcore.export import onnx_int8
from segcore.export._graph import Source, eager
from segcore.models.base.bundle import read_bundle
from tests.support.bundles import make_bundle, noise


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source.of(read_bundle(make_bundle(tmp_path_factory.mktemp("model") / "b")))


@pytest.fixture(scope="module")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    onnx_int8.write(source, folder)
    return folder


def test_weights_of_convolutions_have_one_byte_each(written: Path) -> None:
    model = onnx.load(written / onnx_int8.FILE)
    operators = {node.op_type for node in model.graph.node}
    assert "ConvInteger" in operators and "Conv" not in operators
    largest = max(model.graph.initializer, key=lambda tensor: int(np.prod(tensor.dims)))
    assert largest.data_type == onnx.TensorProto.UINT8


def test_the_file_says_what_its_input_and_classes_are(source: Source, written: Path) -> None:
    texts = {p.key: p.value for p in onnx.load(written / onnx_int8.FILE).metadata_props}
    assert {name: texts[name] for name in source.metadata} == source.metadata


@pytest.mark.parametrize("shape", [(1, 70, 33), (3, 16, 100)])
def test_it_runs_for_any_batch_and_size_with_nearly_the_classes_of_the_model(
    source: Source, written: Path, shape: tuple[int, int, int]
) -> None:
    batch, height, width = shape
    images = np.stack([noise(height, width, seed=n).astype(np.float32) for n in range(batch)])
    images[:, :, :9, :9] = np.nan
    expected = eager(source.graph, images)["probabilities"]
    found = onnx_int8.runner(written)(images)["probabilities"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    # rounding is seen, and changes few classes
    assert np.abs(found - expected).max() > 0
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
