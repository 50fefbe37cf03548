"""ONNX as the QGIS plug-in Deepness reads it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from segcore.errors import ModelError
from segcore.export import deepness
from segcore.export._graph import Source, eager
from segcore.models.base.bundle import read_bundle
from tests.support.bundles import make_bundle, noise, rewrite

_TILE = 64
_FACTS: dict[str, Any] = {
    "input": {"dtype": "uint8", "nodata": 0.0, "bands": [4, 1, 2]},
    "training_images": {"pixel_sizes": {"m": [0.4, 0.5, 0.6]}},
}


class _Plugin:
    """How Deepness reads and runs a segmentation model, written anew after its source (version 0.7).

    It takes the first input and all outputs of the file, parses each entry of the metadata as JSON, and gives the
    model tiles (N, S, S, C) uint8.
    """

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = self.session.get_inputs()
        self.shape, self.name = given.shape, given.name
        self.outputs = [output.shape for output in self.session.get_outputs()]
        texts = self.session.get_modelmeta().custom_metadata_map
        read = ("model_type", "class_names", "resolution", "tile_size", "tiles_overlap", "seg_thresh")
        read += ("seg_small_segment", "standardization_mean", "standardization_std")
        self.metadata = {name: json.loads(texts[name]) for name in read if name in texts}
        assert self.shape[-1] == self.shape[-2]
        assert len(self.outputs) == 1
        assert len(self.outputs[0]) == 4
        assert self.outputs[0][2] == self.outputs[0][3]

    @property
    def class_names(self) -> list[str]:
        """Names in the order of their keys, which are numbers without a gap."""
        pairs = sorted(self.metadata["class_names"].items(), key=lambda pair: int(pair[0]))
        assert [int(key) for key, _ in pairs] == list(range(len(pairs)))
        return [name for _, name in pairs]

    def classes(self, tiles: np.ndarray) -> np.ndarray:
        """Class of each pixel (N, S, S)."""
        mean, std = (np.array(self.metadata[f"standardization_{n}"], np.float32) for n in ("mean", "std"))
        batch = (np.float32(tiles[..., : self.shape[1]] * 1.0 / 255.0) - mean) / std
        (result,) = self.session.run(None, {self.name: batch.transpose(0, 3, 1, 2)})
        result[result < self.metadata["seg_thresh"]] = 0.0
        classes: np.ndarray = result.argmax(axis=1)
        return classes


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source.of(
        read_bundle(make_bundle(tmp_path_factory.mktemp("model") / "b", touching=True, **_FACTS))
    )


@pytest.fixture(scope="module")
def written(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    deepness.check(source.bundle)
    deepness.write(source, folder)
    return folder


@pytest.fixture(scope="module")
def plugin(written: Path) -> _Plugin:
    return _Plugin(written / deepness.FILE)


def test_the_plugin_gives_the_class_map_of_the_model(source: Source, plugin: _Plugin) -> None:
    tiles = np.stack([noise(_TILE, _TILE, seed=seed) for seed in range(3)])
    tiles[:, :, :20, :20] = 0
    # every value of a byte
    tiles[2, :, 30:34] = np.arange(256).reshape(4, 64)
    expected = eager(source.graph, tiles.astype(np.float32))["probabilities"].argmax(1)
    np.testing.assert_array_equal(plugin.classes(tiles.transpose(0, 2, 3, 1)), expected)
    assert set(np.unique(expected)) == {0, 1, 2}


def test_pixels_without_data_have_no_effect_on_others_in_the_plugin(plugin: _Plugin, source: Source) -> None:
    tile = noise(_TILE, _TILE)[None]
    tile[..., 32:] = 0
    missing = tile.astype(np.float32)
    missing[..., 32:] = np.nan
    expected = eager(source.graph, missing)["probabilities"].argmax(1)
    np.testing.assert_array_equal(plugin.classes(tile.transpose(0, 2, 3, 1)), expected)


def test_the_plugin_finds_all_its_settings_in_the_metadata(plugin: _Plugin) -> None:
    assert plugin.shape[1:] == [3, _TILE, _TILE]
    assert plugin.outputs[0][1:] == [3, _TILE, _TILE]
    assert plugin.class_names == ["background", "field", "water"]
    assert plugin.metadata == {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "field", "2": "water"},
        "resolution": 50.0,
        "tile_size": _TILE,
        "tiles_overlap": 50,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
        "standardization_mean": [0.0, 0.0, 0.0],
        "standardization_std": [1.0, 1.0, 1.0],
    }


def test_the_metadata_says_what_the_input_and_the_output_of_this_file_are(written: Path) -> None:
    texts = {p.key: p.value for p in onnx.load(written / deepness.FILE).metadata_props}
    assert texts["input"].endswith("here 8-bit pixels divided by 255, in tiles of 64 x 64")
    assert list(json.loads(texts["outputs"])) == ["probabilities"]
    assert json.loads(texts["tiles_size"]) == _TILE
    assert json.loads(texts["bands"]) == [4, 1, 2]


def test_the_runner_takes_raw_pixels(source: Source, written: Path) -> None:
    images = noise(_TILE, _TILE)[None].astype(np.float32)
    images[..., :5, :5] = np.nan
    found = deepness.runner(written)(images)
    assert list(found) == ["probabilities"]
    expected = eager(source.graph, images)["probabilities"]
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)


def test_without_a_ground_resolution_the_user_of_the_plugin_sets_it(source: Source, tmp_path: Path) -> None:
    bundle = read_bundle(make_bundle(tmp_path / "b", input={"dtype": "uint8"}))
    deepness.check(bundle)
    assert "resolution" not in deepness.entries(bundle)
    assert deepness.entries(source.bundle)["resolution"] == 50.0


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"input": {"dtype": "uint16"}}, "it reads 8-bit images, and this model was trained on uint16"),
        ({"input": {"dtype": "float32", "scale": "none"}}, "this model was trained on float32"),
        ({"input": {"dtype": "float32", "scale": "item"}}, "scaled by its own percentiles"),
        ({"input": {"dtype": "uint8", "scale": "item"}}, "scaled by its own percentiles"),
        ({"input": {}}, "model.json does not say of which type these were"),
        ({"input": {"dtype": "uint8", "neighbours": 1}}, "was trained on planes of volumes"),
        (
            {
                "input": {"dtype": "uint8"},
                "training_images": {
                    "pixel_sizes": {"mm: planes": [1.0, 1.0, 1.0], "mm: rows": [1.0, 1.0, 1.0]}
                },
            },
            "was trained on planes of volumes",
        ),
    ],
)
def test_models_that_the_plugin_cannot_run_are_refused_with_the_reason(
    tmp_path: Path, facts: dict[str, Any], reason: str
) -> None:
    folder = make_bundle(tmp_path / "b", **facts)
    with pytest.raises(ModelError, match=reason) as error:
        deepness.check(read_bundle(folder))
    assert error.value.what.startswith(f"{folder}: Deepness cannot run this model: ")
    assert error.value.remedy


def test_an_instance_network_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b", architecture="solo", input={"dtype": "uint8"})
    with pytest.raises(ModelError, match="draw the convex hull of an object"):
        deepness.check(read_bundle(folder))


def test_a_model_of_an_older_version_without_tile_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "b", **_FACTS)
    rewrite(folder, lambda d: d.pop("tile"))
    with pytest.raises(ModelError, match="lacks tile"):
        deepness.check(read_bundle(folder))
