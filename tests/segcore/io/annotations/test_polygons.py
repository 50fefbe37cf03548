"""Polygons are drawn onto the grid of their image, by pixel centres, in file order."""

import json

import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.io.annotations import open_labels
from tests.support.polygons import (
    IMAGE,
    RING,
    STAR,
    data_for,
    fails,
    geojson,
    inside,
    labels,
    on_map,
    save,
    to_degrees,
)


@pytest.mark.parametrize("extension", ["geojson", "gpkg", "shp", "fgb", "geojsonl"])
def test_a_polygon_covers_the_pixels_whose_centres_it_contains_in_every_format(tmp_path, extension):
    shape = to_degrees(on_map(STAR)) if extension == "geojsonl" else on_map(STAR)
    crs = "EPSG:4326" if extension == "geojsonl" else "EPSG:32633"
    path = save(tmp_path / f"p.{extension}", [shape], crs=crs, kind="Polygon")
    found = labels(path)
    rows, columns = np.mgrid[:60, :80] + 0.5
    # GDAL writes degrees with 7 digits, 0.02 pixels here.
    clear = shapely.distance(STAR.exterior, shapely.points(columns, rows)) > 0.05
    assert clear.mean() > 0.97
    np.testing.assert_array_equal(found.classes[clear], inside(STAR)[clear])
    np.testing.assert_array_equal(found.instances, found.classes)
    assert (found.classes.dtype, found.instances.dtype) == (np.uint8, np.uint32)


def test_holes_stay_open(tmp_path):
    found = labels(save(tmp_path / "p.gpkg", [on_map(RING)])).classes
    assert found.sum() == 30 * 30 - 10 * 10 and found[35, 35] == 0


def test_degrees_are_projected_onto_the_image(tmp_path):
    square = shapely.box(10, 10, 40, 30)
    found = labels(save(tmp_path / "p.geojson", [to_degrees(on_map(square))], crs="EPSG:4326")).classes
    expected = inside(square)
    rows, columns = np.nonzero(found != expected)
    assert found.sum() == pytest.approx(expected.sum(), rel=0.02)
    border = shapely.distance(square.exterior, shapely.points(columns + 0.5, rows + 0.5))
    assert (border <= 1).all()


def test_long_edges_bend_as_the_projection_bends_them(tmp_path):
    # An edge along a parallel, 3 degrees long: its middle is 1.7 km off the straight line between its ends.
    grid = (100.0, 0.0, 400000.0, 0.0, -100.0, 5010000.0)
    image = Info(400, 2000, 3, "uint8", crs="EPSG:32633", transform=grid)
    north = shapely.Polygon([(13.5, 45.1), (16.5, 45.1), (16.5, 46.0), (13.5, 46.0)])
    found = labels(save(tmp_path / "p.geojson", [north], crs="EPSG:4326"), image=image).classes
    rows, columns = np.mgrid[:400, :2000] + 0.5
    x, y = 400000 + 100 * columns.ravel(), 5010000 - 100 * rows.ravel()
    lon, lat = (np.array(v).reshape(400, 2000) for v in transform("EPSG:32633", "EPSG:4326", x, y))
    expected = (lat > 45.1) & (lat < 46.0) & (lon > 13.5) & (lon < 16.5)
    assert 0 < expected.mean() < 1
    # At most two pixels per column along the edge.
    assert (found != expected).sum() < 2000 * 2


def test_rotated_images_are_supported(tmp_path):
    cos, sin = 0.5 * np.cos(0.6), 0.5 * np.sin(0.6)
    turned = (cos, sin, 500000.0, sin, -cos, 5000000.0)
    path = save(tmp_path / "p.gpkg", [on_map(STAR, turned)])
    image = Info(60, 80, 3, "uint8", crs="EPSG:32633", transform=turned)
    np.testing.assert_array_equal(labels(path, image=image).classes, inside(STAR))


def test_later_polygons_are_on_top_and_numbers_follow_file_order(tmp_path):
    first, second, third = shapely.box(0, 0, 20, 20), shapely.box(10, 10, 30, 30), shapely.box(70, 50, 90, 70)
    path = save(tmp_path / "p.gpkg", [on_map(s) for s in (first, second, third)], ["house", "lake", "house"])
    data = data_for({"house": "house", "lake": "lake"}, label_property="use")
    found = labels(path, data)
    expected = np.zeros((60, 80), int)
    for number, shape in enumerate((first, second, third), 1):
        expected[inside(shape)] = number
    np.testing.assert_array_equal(found.instances, expected)
    np.testing.assert_array_equal(found.classes, np.array([0, 1, 2, 1])[expected])


def test_windows_have_the_numbers_and_pixels_of_the_whole(tmp_path):
    rng = np.random.default_rng(1)
    shapes = [shapely.Point(*rng.uniform(0, 80, 2)).buffer(rng.uniform(2, 9)) for _ in range(40)]
    path = save(tmp_path / "p.geojson", [to_degrees(on_map(s)) for s in shapes], crs="EPSG:4326")
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        whole = source.read((0, 0, 60, 80))
        for row in range(0, 60, 17):
            for column in range(0, 80, 23):
                height, width = min(17, 60 - row), min(23, 80 - column)
                part = source.read((row, column, height, width))
                area = (slice(row, row + height), slice(column, column + width))
                np.testing.assert_array_equal(part.instances, whole.instances[area])
                np.testing.assert_array_equal(part.classes, whole.classes[area])
    assert whole.instances.max() > 20


def test_only_polygons_of_the_image_are_kept_of_a_large_file(tmp_path):
    far = [on_map(shapely.box(x, 1000, x + 5, 1005)) for x in range(0, 5000, 10)]
    path = save(tmp_path / "p.gpkg", [*far, on_map(shapely.box(1, 1, 5, 5))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        assert len(source._shapes) == 1
        assert source.read((0, 0, 60, 80)).instances.max() == 1


def test_property_values_are_classes_as_numbers_or_texts(tmp_path):
    boxes = [on_map(shapely.box(10 * i, 0, 10 * i + 10, 10)) for i in range(3)]
    numbers = save(tmp_path / "n.gpkg", boxes, np.array([1, 2, 9]))
    data = data_for({1: "lake", 2: "house", 9: "ignore"}, label_property="use")
    expected = [2, 1, IGNORE, 0]
    assert labels(numbers, data).classes[5, 5:40:10].tolist() == expected
    assert labels(numbers, data).instances[5, 5:40:10].tolist() == [1, 2, 0, 0]
    texts = save(tmp_path / "t.gpkg", boxes, np.array(["1", "2", "9"], object))
    assert labels(texts, data).classes[5, 5:40:10].tolist() == expected
    floats = save(tmp_path / "f.gpkg", boxes, np.array([1.0, 2.0, 9.0]))
    assert labels(floats, data).classes[5, 5:40:10].tolist() == expected


def test_undeclared_property_values_are_counted_or_mapped_by_others(tmp_path):
    boxes = [on_map(shapely.box(10 * i, 0, 10 * i + 10, 10)) for i in range(4)]
    path = save(tmp_path / "p.gpkg", boxes, np.array(["house", "barn", "barn", None], object))
    data = data_for({"house": "house"}, label_property="use")
    fails(path, "unknown-category", "scene.tif", "'use'", "barn (2)", "null (1)", data=data)
    others = data_for({"house": "house", "others": "lake"}, label_property="use")
    assert labels(path, others).classes[5, 5:50:10].tolist() == [1, 2, 2, 2, 0]


def test_without_a_property_polygons_are_the_first_foreground_class_unless_declared(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(shapely.box(0, 0, 9, 9))])
    for values, expected in (({0: 0}, 1), ({1: "lake"}, 2), ({"others": "lake"}, 2), ({1: "ignore"}, IGNORE)):
        assert labels(path, data_for(values)).classes[5, 5] == expected
    backwards = data_for(classes=["lake", "background"], label_values={0: 0})
    assert labels(path, backwards).classes[[5, 50], 5].tolist() == [0, 1]


def test_an_image_without_polygons_is_background_and_noted(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(shapely.box(900, 900, 910, 910))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        found = source.read((0, 0, 60, 80))
        assert source.notes == [("polygons-outside", "no polygon of p.gpkg is within scene.tif")]
    assert not found.classes.any() and not found.instances.any()


def test_polygons_beyond_the_image_are_clipped_without_a_note(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(shapely.box(-1e6, -1e6, 10, 1e6))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        assert source.notes == []
        np.testing.assert_array_equal(
            source.read((0, 0, 60, 80)).classes, inside(shapely.box(-9, -9, 10, 99))
        )


def test_geojson_without_crs_is_in_degrees(tmp_path):
    path = geojson(tmp_path / "p.geojson", [shapely.geometry.mapping(to_degrees(on_map(STAR)))], crs=None)
    # Coordinates in the file are rounded.
    assert (labels(path).classes != inside(STAR)).sum() <= 2


def test_a_changed_file_is_read_again(tmp_path):
    path = save(tmp_path / "p.geojson", [on_map(shapely.box(0, 0, 10, 10))])
    assert labels(path).classes.sum() == 100
    path.unlink()
    save(path, [on_map(shapely.box(0, 0, 10, 20))], ["house"])
    assert labels(path, data_for({"house": 1}, label_property="use")).classes.sum() == 200


def test_a_file_without_features_makes_its_image_background(tmp_path):
    path = geojson(tmp_path / "p.geojson", [])
    for data in (data_for(), data_for(label_property="use")):
        assert not labels(path, data).classes.any()


def test_polygons_are_counted_by_their_value_as_it_stands_in_the_file(tmp_path):
    boxes = [on_map(shapely.box(10 * i, 0, 10 * i + 10, 10)) for i in range(4)]
    boxes[3] = on_map(shapely.box(900, 900, 910, 910))
    path = save(tmp_path / "p.gpkg", boxes, np.array(["house", "barn", None, "house"], object))
    data = data_for({"house": "house", "others": "lake"}, label_property="use")
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data) as source:
        assert source.found == {"house": 1, "barn": 1, "null": 1}


@pytest.mark.parametrize("key", ["true", "True"])
def test_booleans_match_keys_in_either_case_and_are_named_as_a_key_that_matches(tmp_path, key):
    path = save(tmp_path / "p.geojson", [on_map(RING)])
    content = json.loads(path.read_text())
    content["features"][0]["properties"] = {"built": True}
    path.write_text(json.dumps(content))
    found = labels(path, data_for({key: "house"}, label_property="built")).classes
    assert found.sum() == 30 * 30 - 10 * 10
    data = data_for({"other": "house"}, label_property="built")
    fails(path, "unknown-category", "does not declare: true (1)", data=data)
