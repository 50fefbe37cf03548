"""Polygons of scenes, output folders and zones whose path pyogrio would take for another file."""

import sqlite3

import numpy as np
import pyogrio
import pytest
import shapely

from segcore.errors import ParamsError
from segcore.io.annotations import _layers
from segcore.prediction.predictor import Predictor
from segcore.prediction.writers.geopackage import add_style
from segcore.prediction.zones import read_zones
from tests.segcore.prediction.test_scene_objects import settings
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.tiny import write_tif

OUTPUTS = ["polygons", "objects", "counts"]
# a part that is another file for pyogrio
NAMES = ("a!b", "a;b", "a\tb", "a?")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("odd") / "unet-0", objects=OBJECTS)


def layers(path, tmp_path):
    """Numbers of features by layer."""
    plain = tmp_path / "plain.gpkg"
    plain.write_bytes(path.read_bytes())
    names = pyogrio.list_layers(plain)[:, 0].tolist()
    return {name: pyogrio.read_info(plain, layer=name)["features"] for name in names}


@pytest.mark.parametrize("where", ["scene", "folder"])
@pytest.mark.parametrize("name", NAMES)
def test_polygons_and_zones_are_in_the_file_of_the_scene(bundle, tmp_path, monkeypatch, name, where):
    scene, folder = ("s", name) if where == "folder" else (name, "out")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for other in ("b.gpkg", "ab.gpkg"):
        (here / other).write_bytes(b"of another")
    write_tif(tmp_path / "s.tif", noise(60, 80))
    (tmp_path / "s.tif").rename(tmp_path / f"{scene}.tif")
    zone = shapely.box(500000, 4999000, 501000, 5000000)
    pyogrio.raw.write(
        tmp_path / "z.gpkg",
        shapely.to_wkb([zone]),
        [np.array([1])],
        ["n"],
        geometry_type="Polygon",
        crs="EPSG:32633",
    )
    (tmp_path / folder).mkdir()
    zones = (tmp_path / "z.gpkg").rename(tmp_path / folder / f"{name}.gpkg")
    expected = None
    for outputs in (OUTPUTS, ["objects", "counts"], ["polygons"]):
        predictor = Predictor(bundle, settings(outputs=outputs, count_by=str(zones)))
        made = predictor.predict_file(tmp_path / f"{scene}.tif", tmp_path / folder, f"{scene}-1")
        found = layers(tmp_path / folder / f"{scene}-1.gpkg", tmp_path)
        # layers that are not written now are kept
        expected = expected or found
        assert found.keys() == {"classes", "objects", "layer_styles"} and found == expected
        assert min(found.values()) > 1
        if "counts" in outputs:
            assert f"{scene}-1_zones.gpkg" in made
            assert layers(tmp_path / folder / f"{scene}-1_zones.gpkg", tmp_path)["zones"] == 1
    assert {path.name for path in here.iterdir()} == {"b.gpkg", "ab.gpkg"}
    assert all(path.read_bytes() == b"of another" for path in here.iterdir())


@pytest.mark.parametrize("end", [".gpkg", ".shp", ".geojson", ".fgb"])
def test_zones_are_read_from_the_file_that_is_named(tmp_path, monkeypatch, end):
    monkeypatch.chdir(tmp_path)
    for name, left in (("a", 0), ("b", 5)):
        square = shapely.to_wkb([shapely.box(left, 0, left + 1, 1)])
        pyogrio.raw.write(
            tmp_path / f"{name}{end}", square, [], [], geometry_type="Polygon", crs="EPSG:32633"
        )
    for path in [*tmp_path.glob("a.*")]:
        path.rename(tmp_path / f"a!b{path.suffix}")
    assert read_zones(tmp_path / f"a!b{end}").shapes[0].bounds == (0, 0, 1, 1)
    layer = _layers.open_layer(tmp_path / f"a!b{end}")
    assert layer.crs == "EPSG:32633" and layer.bounds == (0, 0, 1, 1)
    _, shapes, _ = _layers.read(tmp_path / f"a!b{end}", layer, [(0, 0, 9, 9)], None)
    assert shapes[0].bounds == (0, 0, 1, 1)


def test_a_style_makes_no_file(tmp_path):
    with pytest.raises(OSError, match="unable to open"):
        add_style(tmp_path / "none.gpkg", "classes", "<qgis/>")
    assert not (tmp_path / "none.gpkg").exists()
    sqlite3.connect(tmp_path / "a%20?b#.gpkg").close()
    add_style(tmp_path / "a%20?b#.gpkg", "classes", "<qgis/>")
    assert [path.name for path in tmp_path.iterdir()] == ["a%20?b#.gpkg"]


def test_a_temporary_folder_with_such_a_path_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "t!").mkdir()
    (tmp_path / "z!.gpkg").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t!"))
    with pytest.raises(ParamsError, match="set TMPDIR to another folder"):
        read_zones(tmp_path / "z!.gpkg")
