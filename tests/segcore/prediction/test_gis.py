"""What a GIS user finds beside and inside the outputs: styles of QGIS, a STAC item, overviews and statistics."""

import json
import sqlite3
import xml.etree.ElementTree as ET
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.shutil
import shapely
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from segcore.prediction.stac import remove_assets
from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.stac_validation import schemas
from tests.support.tiny import write_tif

ALL = ["classes", "probabilities", "confidence", "polygons", "objects", "coco", "counts"]
COLORS = ["#000000", "#ffb300", "#0000ff"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    # of names that XML and STAC do not take as they are
    names = ["background", 'field & "meadow" <1>', "Gewässer"]
    return make_bundle(
        tmp_path_factory.mktemp("gis") / "unet-0",
        objects=OBJECTS,
        classes=names,
        calibration={"temperature": 2.0},
    )


def predict(bundle, scene, out, outputs):
    return Predictor(bundle, Predict(outputs=outputs, overlap=16)).predict_file(scene, out)


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """A folder with all outputs of `scene.tif`, 700 x 800 pixels, of which the first 20 rows have no data."""
    folder = tmp_path_factory.mktemp("made")
    pixels = noise(700, 800)
    pixels[:, :20] = 0
    write_tif(folder / "scene.tif", pixels, nodata=0)
    predict(bundle, folder / "scene.tif", folder / "out", ALL)
    return folder / "out"


def renderer(path):
    root = ET.parse(path).getroot()
    assert root.tag == "qgis"
    return root.find("pipe/rasterrenderer")


def test_the_style_of_a_class_raster_has_its_colours_and_names(made, bundle):
    style = renderer(made / "scene.qml")
    assert (style.get("type"), style.get("band")) == ("paletted", "1")
    entries = style.findall("colorPalette/paletteEntry")
    assert [int(entry.get("value")) for entry in entries] == [0, 1, 2], "pixels without data have no colour"
    assert [entry.get("color") for entry in entries] == COLORS
    assert [entry.get("label") for entry in entries] == Predictor(bundle).classes
    with rasterio.open(made / "scene.tif") as file:
        table = file.colormap(1)
    assert ["#{:02x}{:02x}{:02x}".format(*table[index][:3]) for index in range(3)] == COLORS


@pytest.mark.parametrize(("name", "band"), [("probabilities", "2"), ("confidence", "1")])
def test_the_style_of_probabilities_is_a_ramp_over_the_scaled_values(made, name, band):
    style = renderer(made / f"scene_{name}.qml")
    assert (style.get("type"), style.get("band")) == ("singlebandpseudocolor", band), "the first foreground"
    items = style.findall("rastershader/colorrampshader/item")
    assert [float(item.get("value")) for item in items] == [0, 0.25, 0.5, 0.75, 1]
    with rasterio.open(made / f"scene_{name}.tif") as file:
        assert np.isclose(file.scales[int(band) - 1] * 254, 1) and file.nodata == 255


def test_each_layer_of_a_geopackage_has_a_style_by_class(made, tmp_path, out):
    plain = make_bundle(tmp_path / "plain")
    write_tif(tmp_path / "plain.tif", noise(60, 80))
    predict(plain, tmp_path / "plain.tif", out, ["polygons"])
    for path, layers in ((made / "scene.gpkg", ["classes", "objects"]), (out / "plain.gpkg", ["classes"])):
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute("SELECT f_table_name, styleQML, useAsDefault FROM layer_styles").fetchall()
        assert [row[0] for row in rows] == layers and all(row[2] for row in rows)
        for _, text, _ in rows:
            found = ET.fromstring(text).find("renderer-v2")
            assert (found.get("type"), found.get("attr")) == ("categorizedSymbol", "class")
            assert [entry.get("value") for entry in found.findall("categories/category")] == ["1", "2"]
            fills = [prop.get("v") for prop in found.iter("prop") if prop.get("k") == "color"]
            assert fills == ["255,179,0,102", "0,0,255,102"]


@pytest.mark.parametrize(("name", "bands"), [("scene", 1), ("scene_probabilities", 3), ("scene_objects", 1)])
def test_rasters_are_cogs_with_overviews_and_true_statistics(made, name, bands):
    with rasterio.open(made / f"{name}.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.count == bands
        for band in range(1, bands + 1):
            assert file.overviews(band), "larger than one block"
            values, tags = file.read(band, masked=True).compressed().astype(float), file.tags(band)
            assert float(tags["STATISTICS_MINIMUM"]) == values.min()
            assert float(tags["STATISTICS_MAXIMUM"]) == values.max()
            assert np.isclose(float(tags["STATISTICS_MEAN"]), values.mean())
            assert np.isclose(float(tags["STATISTICS_STDDEV"]), values.std())


def test_a_scene_without_data_has_outputs_too(bundle, tmp_path, out):
    write_tif(tmp_path / "empty.tif", np.zeros((3, 40, 50), np.uint8), nodata=0)
    predict(bundle, tmp_path / "empty.tif", out, ALL)
    with rasterio.open(out / "empty.tif") as file:
        assert (file.read() == 255).all() and file.tags(1)["STATISTICS_VALID_PERCENT"] == "0"


def item_of(path):
    """A STAC item that is valid by the schemas of STAC 1.1 and of those extensions whose schema is stored."""
    item = json.loads(path.read_text(encoding="utf-8"))
    validator = JsonSchemaSTACValidator()
    validator.validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    stored = [address for address in item["stac_extensions"] if address in schemas()]
    assert len(stored) == 2, "classification and processing"
    validator.schema_cache |= schemas()
    for address in stored:
        validator.validate_extension(item, pystac.STACObjectType.ITEM, "1.1.0", address)
    return item, pystac.Item.from_dict(item)


def test_the_item_of_a_scene_has_its_place_its_model_and_all_its_files(made, bundle):
    item, read = item_of(made / "scene.stac.json")
    projection = ProjectionExtension.ext(read)
    with rasterio.open(made / "scene.tif") as file:
        assert projection.code == "EPSG:32633" and projection.shape == list(file.shape)
        assert projection.transform == list(file.transform)[:6]
        corners = [file.transform @ corner for corner in ((0, 0), (800, 0), (800, 700), (0, 700))]
        degrees = shapely.Polygon(
            zip(*transform(file.crs, "EPSG:4326", *zip(*corners, strict=True)), strict=True)
        )
    outline = shapely.geometry.shape(item["geometry"])
    assert outline.is_valid and outline.exterior.is_ccw
    assert outline.symmetric_difference(degrees).area < 1e-4 * degrees.area
    assert np.allclose(item["bbox"], outline.bounds)
    files = {path.name for path in made.iterdir()} - {"scene.stac.json"}
    assert {asset["href"] for asset in item["assets"].values()} == {f"./{file}" for file in files}
    assert item["assets"]["classes"]["type"] == pystac.MediaType.COG
    classes = ClassificationExtension.ext(read.assets["classes"]).classes
    assert [(each.value, each.name, each.color_hint) for each in classes] == [
        (0, "background", "000000"),
        (1, "field_meadow_1", "FFB300"),
        (2, "Gew_sser", "0000FF"),
    ]
    assert [each["title"] for each in item["assets"]["classes"]["classification:classes"]] == (
        Predictor(bundle).classes
    )
    facts = item["properties"]
    assert facts["segflow:model"] == "unet-0" and facts["segflow:architecture"] == "unet"
    with rasterio.open(made / "scene.tif") as file:
        assert facts["segflow:weights_sha256"] == file.tags()["MODEL_SHA256"]
    assert facts["datetime"] == facts["created"], "the scene has no time of its own"


@pytest.mark.parametrize("name", ["süd 50%", "ha#sh", "a?b;c", "back\\slash", "plain_süd+(1)"])
def test_files_of_any_name_are_found_by_readers_over_http(bundle, tmp_path, out, name):
    write_tif(tmp_path / f"{name}.tif", noise(40, 50))
    predict(bundle, tmp_path / f"{name}.tif", out, ["classes"])
    item, _ = item_of(out / f"{name}.stac.json")
    paths = [unquote(urlparse(f"http://host/{asset['href']}").path) for asset in item["assets"].values()]
    assert set(paths) == {f"/./{name}.tif", f"/./{name}.qml"}
    if name.startswith("plain"):
        local = pystac.Item.from_file(out / f"{name}.stac.json").assets["classes"].get_absolute_href()
        assert Path(local or "") == out / f"{name}.tif"
    remove_assets(out / f"{name}.stac.json", [f"{name}.qml"])
    assert list(item_of(out / f"{name}.stac.json")[0]["assets"]) == ["classes"]


@pytest.mark.parametrize(
    ("tags", "time"),
    [
        ({"TIFFTAG_DATETIME": "2024:05:06 10:20:30"}, "2024-05-06T10:20:30Z"),
        ({"TIFFTAG_DATETIME": "yesterday"}, None),
        ({"ACQUISITIONDATETIME": "0001-01-01T00:00:00+01:00"}, None),
        ({"ACQUISITIONDATETIME": "9999-12-31T23:59:59-12:00"}, None),
        ({"ACQUISITIONDATETIME": "0800-01-02T03:04:05.678"}, "0800-01-02T03:04:05Z"),
        ({"ACQUISITIONDATETIME": "2024-05-06T10:20:30+02:00"}, "2024-05-06T08:20:30Z"),
    ],
)
def test_the_time_of_an_item_is_that_of_the_scenes_tags(bundle, tmp_path, out, tags, time):
    write_tif(tmp_path / "s.tif", noise(40, 50))
    with rasterio.open(tmp_path / "s.tif", "r+") as file:
        file.update_tags(**({"ns": "IMAGERY"} if "ACQUISITIONDATETIME" in tags else {}), **tags)
    predict(bundle, tmp_path / "s.tif", out, ["classes"])
    item, _ = item_of(out / "s.stac.json")
    assert item["properties"]["datetime"] == (time or item["properties"]["created"])


def test_an_item_at_the_antimeridian_has_two_parts_and_a_box_across_it(bundle, tmp_path, out):
    # 100 m pixels of UTM zone 1 around 180 degrees
    place = rasterio.Affine(100, 0, 166_000 - 4000, 0, -100, 5_000)
    write_tif(tmp_path / "s.tif", noise(60, 90), crs="EPSG:32601", transform=place)
    predict(bundle, tmp_path / "s.tif", out, ["classes"])
    item, _ = item_of(out / "s.stac.json")
    assert item["geometry"]["type"] == "MultiPolygon"
    west, south, east, north = item["bbox"]
    assert 179 < west < 180 and -180 < east < -179 and south < north
    area = shapely.geometry.shape(item["geometry"]).area
    assert np.isclose(area, (360 + east - west) * (north - south), rtol=0.01)


def test_control_points_and_other_systems_place_an_item_too(bundle, tmp_path, out):
    points = [GroundControlPoint(r, c, 15 + c / 1e4, 45 - r / 1e4) for r in (0, 60) for c in (0, 80)]
    write_tif(tmp_path / "p.tif", noise(60, 80), crs=None, transform=rasterio.Affine.identity())
    with rasterio.open(tmp_path / "p.tif", "r+") as file:
        file.gcps = points, rasterio.CRS.from_epsg(4326)
    lambert = "+proj=laea +lat_0=45 +lon_0=15 +ellps=GRS80 +units=m"
    write_tif(tmp_path / "l.tif", noise(60, 80), crs=lambert, transform=rasterio.Affine(9, 0, 0, 0, -9, 0))
    for name in "pl":
        predict(bundle, tmp_path / f"{name}.tif", out, ["classes"])
    item, _ = item_of(out / "p.stac.json")
    assert np.allclose(item["bbox"], [15, 44.994, 15.008, 45])
    assert item["properties"]["proj:code"] == "EPSG:4326" and "proj:transform" not in item["properties"]
    item, _ = item_of(out / "l.stac.json")
    assert item["properties"]["proj:code"] is None
    assert rasterio.CRS.from_wkt(item["properties"]["proj:wkt2"]) == rasterio.CRS.from_proj4(lambert)


def test_scenes_without_a_place_on_the_earth_have_no_item(bundle, tmp_path, out):
    write_tif(tmp_path / "photo.tif", noise(60, 80), crs=None, transform=rasterio.Affine.identity())
    # a system of a building site, which cannot be converted
    local = 'LOCAL_CS["site",UNIT["metre",1]]'
    write_tif(tmp_path / "local.tif", noise(60, 80), crs=local, transform=rasterio.Affine(1, 0, 0, 0, -1, 0))
    place = rasterio.Affine(1, 0, 4e6, 0, -1, 1e6)
    write_tif(tmp_path / "geocentric.tif", noise(60, 80), crs="EPSG:4978", transform=place)
    for name in ("photo", "local", "geocentric"):
        assert predict(bundle, tmp_path / f"{name}.tif", out, ["classes"]) == [f"{name}.tif", f"{name}.qml"]
