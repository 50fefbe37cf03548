"""Polygons and images on both sides of the antimeridian meet, whichever way their longitudes are numbered."""

import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.io.annotations import open_labels, read_labels
from segcore.io.annotations._layers import _layer_of, open_layer
from tests.support.polygons import data_for, geojson, save

STEP = 0.001
SIDE = 64


def image(left, step=STEP, crs="EPSG:4326", top=-16.0):
    return Info(SIDE, SIDE, 3, "uint8", crs=crs, transform=(step, 0.0, left, 0.0, -step, top))


# Both show the same place.
IMAGES = {"past 180": image(179.97), "below -180": image(-180.03)}


def box(left, top, right, bottom):
    """A square of pixels (columns and rows of the image from 179.97) in continuous longitudes."""
    return shapely.box(179.97 + STEP * left, -16 - STEP * bottom, 179.97 + STEP * right, -16 - STEP * top)


WEST, EAST, ACROSS = box(5, 40, 15, 50), box(40, 10, 50, 20), box(20, 25, 44, 35)


def turned(shape, by):
    return shapely.transform(shape, lambda p: p + np.array([by, 0]))


def wrapped(shape):
    """Longitudes from -180 to 180: a polygon across the antimeridian has edges from 179 to -179."""
    return shapely.transform(
        shape, lambda p: np.stack([np.where(p[:, 0] > 180, p[:, 0] - 360, p[:, 0]), p[:, 1]], 1)
    )


def split(shape):
    """Cut at the antimeridian, as RFC 7946 has it."""
    halves = shapely.intersection(shape, [shapely.box(0, -90, 180, 90), shapely.box(180, -90, 360, 90)])
    return shapely.multipolygons([halves[0], turned(halves[1], -360)])


LAYERS = {
    "by the RFC": [WEST, turned(EAST, -360), split(ACROSS)],
    "unsplit": [WEST, turned(EAST, -360), wrapped(ACROSS)],
    "from 0 to 360": [WEST, EAST, ACROSS],
    "from -360 to 0": [turned(s, -360) for s in (WEST, EAST, ACROSS)],
}
PIXELS = np.zeros((SIDE, SIDE), np.uint32)
PIXELS[40:50, 5:15], PIXELS[10:20, 40:50], PIXELS[25:35, 20:44] = 1, 2, 3


@pytest.mark.parametrize("extension", ["geojson", "gpkg", "shp"])
@pytest.mark.parametrize("written", LAYERS)
@pytest.mark.parametrize("place", IMAGES)
def test_every_way_to_number_longitudes_gives_the_same_pixels(tmp_path, place, written, extension):
    path = save(tmp_path / f"p.{extension}", LAYERS[written], crs="EPSG:4326", kind="Unknown")
    with open_labels(path, tmp_path / "a.tif", IMAGES[place], data_for()) as source:
        found = source.read((0, 0, SIDE, SIDE))
        noted = [text for kind, text in source.notes if kind == "polygons-invalid"]
    np.testing.assert_array_equal(found.instances, PIXELS)
    assert ["1 features have edges" in text for text in noted] == [True] * (written == "unsplit")


@pytest.mark.parametrize("written", LAYERS)
def test_an_image_beside_the_antimeridian_gets_its_part(tmp_path, written):
    path = save(tmp_path / "p.gpkg", LAYERS[written], crs="EPSG:4326")
    # between the last corner of the polygon across and the antimeridian, without touching it
    inner = Info(4, 4, 3, "uint8", crs="EPSG:4326", transform=(STEP, 0.0, 179.995, 0.0, -STEP, -16.028))
    for info in (inner, Info(**{**vars(inner), "transform": (STEP, 0.0, -179.999, 0.0, -STEP, -16.028)})):
        assert (read_labels(path, tmp_path / "a.tif", info, data_for()).classes == 1).all()


def test_a_grid_from_0_to_360_degrees_meets_western_longitudes(tmp_path):
    inland = image(190.0)
    square = shapely.box(-169.99, -16.02, -169.98, -16.01)
    path = save(tmp_path / "p.geojson", [square], crs="EPSG:4326")
    found = read_labels(path, tmp_path / "a.tif", inland, data_for()).classes
    assert found.sum() == 100 and found[10:20, 10:20].all()


def test_a_map_of_the_world_from_0_to_360_degrees_has_polygons_of_both_halves(tmp_path):
    world = Info(180, 360, 3, "uint8", crs="EPSG:4326", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 90.0))
    path = save(
        tmp_path / "p.gpkg", [shapely.box(-10, 0, 10, 5), shapely.box(-100, 20, -90, 30)], crs="EPSG:4326"
    )
    found = read_labels(path, tmp_path / "a.tif", world, data_for()).instances
    expected = np.zeros((180, 360), np.uint32)
    expected[85:90, :10] = expected[85:90, 350:] = 1
    expected[60:70, 260:270] = 2
    np.testing.assert_array_equal(found, expected)


def utm(shape, zone):
    shape = shapely.segmentize(shape, STEP / 4)
    return shapely.transform(
        shape, lambda p: np.stack(transform("EPSG:4326", zone, p[:, 0], p[:, 1]), axis=1)
    )


@pytest.mark.parametrize("zone", ["EPSG:32760", "EPSG:32701", "EPSG:3460", "EPSG:3832"])
@pytest.mark.parametrize("place", IMAGES)
def test_a_projected_layer_meets_an_image_in_degrees(tmp_path, place, zone):
    path = save(tmp_path / "p.gpkg", [utm(s, zone) for s in (WEST, EAST, ACROSS)], crs=zone)
    found = read_labels(path, tmp_path / "a.tif", IMAGES[place], data_for())
    np.testing.assert_array_equal(found.instances, PIXELS)


@pytest.mark.parametrize("written", LAYERS)
@pytest.mark.parametrize("crs", ["EPSG:32760", "EPSG:3832", "EPSG:3857"])
def test_a_layer_in_degrees_meets_a_projected_image(tmp_path, written, crs):
    (left,), (top,) = transform("EPSG:4326", crs, [179.97], [-16.0])
    info = image(left, 110.0, crs, top)
    path = save(tmp_path / "p.gpkg", LAYERS[written], crs="EPSG:4326")
    found = read_labels(path, tmp_path / "a.tif", info, data_for()).instances
    columns, rows = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    lon, lat = transform(crs, "EPSG:4326", left + 110 * columns.ravel(), top - 110 * rows.ravel())
    lon, lat = np.mod(lon, 360), np.array(lat)
    expected = np.zeros(SIDE * SIDE, np.uint32)
    for number, shape in enumerate((WEST, EAST, ACROSS), 1):
        expected[shapely.contains_xy(shape, lon, lat)] = number
    assert (np.bincount(expected)[1:] > 90).all()
    # a pixel on an edge may go either way
    assert (found.ravel() != expected).sum() <= 4


def test_web_mercator_layers_are_read_on_both_edges_of_the_map(tmp_path):
    halves = [utm(WEST, "EPSG:3857"), utm(turned(EAST, -360), "EPSG:3857")]
    path = save(tmp_path / "p.gpkg", halves, crs="EPSG:3857")
    for info in IMAGES.values():
        found = read_labels(path, tmp_path / "a.tif", info, data_for()).instances
        np.testing.assert_array_equal(found, np.where(PIXELS == 3, 0, PIXELS))


def test_ordinary_layers_are_read_once_and_by_the_box_of_their_image(tmp_path):
    from segcore.io.annotations._placement import parts_of
    from segcore.io.annotations.polygons import CRS

    path = save(
        tmp_path / "p.gpkg", [shapely.box(-180, -90, 180, 90), shapely.box(9, 40, 11, 41)], crs="EPSG:4326"
    )
    layer, degrees = open_layer(path), CRS.from_epsg(4326)
    assert not layer.jumps and layer.bounds == (-180, -90, 180, 90)
    parts = parts_of(image(10.0, top=50.0), degrees, degrees, layer.bounds)
    assert [p.box for p in parts] == [pytest.approx((10 - 0.0032, 49.936 - 0.0032, 10.064 + 0.0032, 50.0032))]


def test_geojson_across_the_antimeridian_is_read_without_a_crs(tmp_path):
    shapes = [shapely.geometry.mapping(s) for s in LAYERS["unsplit"]]
    path = geojson(tmp_path / "p.geojson", shapes, crs=None)
    for info in IMAGES.values():
        found = read_labels(path, tmp_path / "a.tif", info, data_for()).instances
        np.testing.assert_array_equal(found, PIXELS)


def test_polygons_of_most_of_the_world_stay_as_they_are(tmp_path):
    path = save(
        tmp_path / "p.gpkg",
        [shapely.box(-130, -60, 130, 60), shapely.box(-180, -60, 180, 60)],
        crs="EPSG:4326",
    )
    for left, expected in ((0.0, 2), (140.0, 1), (179.97, 1)):
        found = read_labels(path, tmp_path / "a.tif", image(left), data_for()).instances
        assert (found == expected).all()
    alone = save(tmp_path / "q.gpkg", [shapely.box(-130, -60, 130, 60)], crs="EPSG:4326")
    assert (read_labels(alone, tmp_path / "a.tif", image(0.0), data_for()).classes == 1).all()
    assert (read_labels(alone, tmp_path / "a.tif", image(140.0), data_for()).classes == 0).all()


@pytest.mark.parametrize("extension", ["geojson", "gpkg", "fgb"])
def test_a_crossing_polygon_counts_wherever_it_is_in_the_file(tmp_path, monkeypatch, extension):
    corners = np.random.default_rng(0).uniform((-170, -80), (170, 80), (12_000, 2))
    many = list(shapely.box(*corners.T, *(corners + 0.01).T))
    path = save(tmp_path / f"p.{extension}", [*many, wrapped(ACROSS)], crs="EPSG:4326", kind="Polygon")
    for chunk in (100_000, 500):
        monkeypatch.setattr("segcore.io.annotations._layers._CHUNK", chunk)
        _layer_of.cache_clear()
        # between the last corner of the polygon and the antimeridian, as above
        inner = Info(4, 4, 3, "uint8", crs="EPSG:4326", transform=(STEP, 0.0, 179.995, 0.0, -STEP, -16.028))
        assert (read_labels(path, tmp_path / "a.tif", inner, data_for()).classes == 1).all()
