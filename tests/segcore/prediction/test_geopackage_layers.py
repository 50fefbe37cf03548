"""Layers of a GeoPackage that a later prediction with other outputs does not write."""

import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import shapely

from segcore.prediction.predictor import Predictor
from tests.segcore.prediction.test_scene_objects import features, settings
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.tiny import write_tif


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("objects") / "unet-0", objects=OBJECTS)


@pytest.mark.parametrize("order", [["polygons", "objects"], ["objects", "polygons"]])
def test_a_geopackage_keeps_the_layer_that_is_not_written_now(bundle, tmp_path, out, order):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    names = {"polygons": "classes", "objects": "objects"}

    def predict(*outputs: str, **more) -> list[str]:
        notes = []
        predictor = Predictor(bundle, settings(outputs=outputs, **more))
        predictor.predict_file(tmp_path / "scene.tif", out, notes=notes.extend)
        assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []
        return [text for kind, text in notes if kind == "layers"]

    assert predict("polygons", "objects") == []
    both = {layer: shapely.to_wkb(features(out / "scene.gpkg", layer)[1]) for layer in names.values()}
    styles = features(out / "scene.gpkg", "layer_styles")[0]
    (out / "scene.gpkg").unlink()
    first, second = order
    assert predict(first) == []
    # of fewer objects and polygons, and by the same settings
    for more in ({"min_area": 20}, {}):
        assert predict(second, **more) == [f"scene.gpkg keeps of an earlier prediction: {names[first]}"]
        made = {layer: shapely.to_wkb(features(out / "scene.gpkg", layer)[1]) for layer in names.values()}
        assert np.array_equal(made[names[first]], both[names[first]])
        assert np.array_equal(made[names[second]], both[names[second]]) == (not more)
    assert predict("polygons", "objects") == []
    assert sorted(features(out / "scene.gpkg", "layer_styles")[0]["styleQML"]) == sorted(styles["styleQML"])


def test_a_file_that_is_no_geopackage_of_a_prediction_is_replaced(bundle, tmp_path, out):
    write_tif(tmp_path / "scene.tif", noise(60, 80))
    out.mkdir(exist_ok=True)
    other = {"layer": "roads", "driver": "GPKG", "geometry_type": "Point", "crs": None}
    pyogrio.raw.write(tmp_path / "roads.gpkg", shapely.to_wkb([shapely.Point(0, 0)]), [], [], **other)
    for content in (b"text", (tmp_path / "roads.gpkg").read_bytes()):
        (out / "scene.gpkg").write_bytes(content)
        Predictor(bundle, settings(outputs=["objects"])).predict_file(tmp_path / "scene.tif", out)
        layers = pyogrio.list_layers(out / "scene.gpkg")[:, 0].tolist()
        assert [layer for layer in layers if layer != "layer_styles"] == ["objects"]
