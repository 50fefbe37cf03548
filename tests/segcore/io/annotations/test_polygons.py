"""Files of polygons are drawn onto the grid of their image, by pixel centres, in file order."""

import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from segcore.constants import IGNORE
from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.annotations import open_labels, read_labels
from tests.support.tiny import params_for

GRID = (0.5, 0.0, 500000.0, 0.0, -0.5, 5000000.0)
IMAGE = Info(60, 80, 3, "uint8", crs="EPSG:32633", transform=GRID)
CLASSES = ["background", "house", "lake"]


def data_for(label_values=None, **over):
    colors = [[0, 0, 0]] * len(over.get("classes", CLASSES))
    return params_for(".", data={"classes": CLASSES, "colors": colors, **over}).data.model_copy(
        update={"label_values": label_values or {0: 0, 1: 1}}
    )


def on_map(pixels, grid=GRID):
    """A polygon in pixels (column, row) as one in EPSG:32633."""
    affine = rasterio.Affine(*grid)
    return shapely.transform(
        pixels, lambda p: p @ np.array([[affine.a, affine.d], [affine.b, affine.e]]) + (affine.c, affine.f)
    )


def to_degrees(shape):
    return shapely.transform(
        shape, lambda p: np.stack(transform("EPSG:32633", "EPSG:4326", p[:, 0], p[:, 1]), axis=1)
    )


def save(path, shapes, values=None, crs="EPSG:32633", name="use", kind="Unknown", **options):
    fields = [name] if values is not None else []
    data = [np.array(values)] if values is not None else []
    blobs = shapely.to_wkb(np.array([*shapes, None], object)[:-1])
    pyogrio.raw.write(path, blobs, data, fields, crs=crs, geometry_type=kind, **options)
    return path


def geojson(path, geometries, crs="EPSG:32633", **over):
    """Written by hand, so that nothing mends what is wrong with it."""
    features = [{"type": "Feature", "properties": {}, "geometry": g} for g in geometries]
    system = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", **system, "features": features, **over}))
    return path


def labels(path, data=None, image=IMAGE):
    return read_labels(path, path.with_name("scene.tif"), image, data or data_for())


def inside(pixels, image=IMAGE):
    """Pixels whose centres lie in a polygon given in pixels."""
    rows, columns = np.mgrid[: image.height, : image.width] + 0.5
    return shapely.contains_xy(pixels, columns, rows)


def fails(path, kind, *texts, data=None, image=IMAGE):
    with pytest.raises(DataError) as caught:
        labels(path, data, image)
    error = caught.value
    assert error.kind == kind and error.what.startswith(path.name), error
    assert str(path.parent) not in str(error)
    for text in texts:
        assert text in str(error), error


STAR = shapely.Polygon(
    [(10.2, 5.1), (33.3, 12.4), (60.6, 3.3), (47.1, 30.2), (70.4, 55.7), (30.9, 40.8), (5.6, 52.2)]
)
RING = shapely.box(20, 20, 50, 50).difference(shapely.box(30, 30, 40, 40))


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
    # An edge along a parallel of 3 degrees: its middle lies 1.7 km off the straight line between its ends.
    grid = (100.0, 0.0, 400000.0, 0.0, -100.0, 5010000.0)
    image = Info(400, 2000, 3, "uint8", crs="EPSG:32633", transform=grid)
    north = shapely.Polygon([(13.5, 45.1), (16.5, 45.1), (16.5, 46.0), (13.5, 46.0)])
    found = labels(save(tmp_path / "p.geojson", [north], crs="EPSG:4326"), image=image).classes
    rows, columns = np.mgrid[:400, :2000] + 0.5
    x, y = 400000 + 100 * columns.ravel(), 5010000 - 100 * rows.ravel()
    lon, lat = (np.array(v).reshape(400, 2000) for v in transform("EPSG:32633", "EPSG:4326", x, y))
    expected = (lat > 45.1) & (lat < 46.0) & (lon > 13.5) & (lon < 16.5)
    assert 0 < expected.mean() < 1
    assert (found != expected).sum() < 2000 * 2  # a pixel or two along the edge


def test_rotated_images_are_drawn_on_too(tmp_path):
    cos, sin = 0.5 * np.cos(0.6), 0.5 * np.sin(0.6)
    turned = (cos, sin, 500000.0, sin, -cos, 5000000.0)
    path = save(tmp_path / "p.gpkg", [on_map(STAR, turned)])
    image = Info(60, 80, 3, "uint8", crs="EPSG:32633", transform=turned)
    np.testing.assert_array_equal(labels(path, image=image).classes, inside(STAR))


def test_later_polygons_lie_on_top_and_number_objects_in_file_order(tmp_path):
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


def test_undeclared_property_values_are_counted_and_others_takes_them(tmp_path):
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


def test_polygons_that_cross_themselves_are_mended_and_named(tmp_path):
    bow = {
        "type": "Polygon",
        "coordinates": [
            [[500000, 5000000], [500020, 4999980], [500020, 5000000], [500000, 4999980], [500000, 5000000]]
        ],
    }
    empty = {"type": "Polygon", "coordinates": []}
    path = geojson(tmp_path / "p.geojson", [bow, empty, None, shapely.geometry.mapping(on_map(RING))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        found = source.read((0, 0, 60, 80))
        notes = dict(source.notes)
    assert (
        set(notes) == {"polygons-invalid"}
        and "intersect themselves and were repaired: 0" in notes["polygons-invalid"]
    )
    assert found.instances[20, 3] == 1 and found.instances[10, 38] == 1 and found.instances[3, 20] == 0


def test_points_and_lines_are_left_out_and_noted(tmp_path):
    line = shapely.LineString([(0, 0), (30, 30)])
    mixed = shapely.GeometryCollection([shapely.box(40, 10, 50, 20), line])
    path = save(tmp_path / "p.geojson", [on_map(s) for s in (line, shapely.Point(9, 9), mixed)])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        found = source.read((0, 0, 60, 80)).classes
        assert source.notes == [("polygons-invalid", "2 features are not polygons and were left out: 0, 1")]
    np.testing.assert_array_equal(found, inside(shapely.box(40, 10, 50, 20)))


@pytest.mark.parametrize(
    "shapes", [[shapely.Point(5, 5)], [shapely.LineString([(0, 0), (9, 9)]), shapely.Point(5, 5)]]
)
def test_a_file_of_nothing_but_points_and_lines_is_refused(tmp_path, shapes):
    path = save(tmp_path / "p.geojson", [on_map(s) for s in shapes])
    fails(path, "polygons-unreadable", "instead of polygons")


def test_an_image_without_polygons_is_background_and_noted(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(shapely.box(900, 900, 910, 910))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        found = source.read((0, 0, 60, 80))
        assert source.notes == [("polygons-outside", "no polygon of p.gpkg is within scene.tif")]
    assert not found.classes.any() and not found.instances.any()


def test_polygons_that_reach_out_are_clipped_quietly(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(shapely.box(-1e6, -1e6, 10, 1e6))])
    with open_labels(path, tmp_path / "scene.tif", IMAGE, data_for()) as source:
        assert source.notes == []
        np.testing.assert_array_equal(
            source.read((0, 0, 60, 80)).classes, inside(shapely.box(-9, -9, 10, 99))
        )


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("extension", ["shp", "gpkg"])
def test_coordinate_systems_are_needed_on_both_sides_or_neither(tmp_path, extension):
    square = [on_map(shapely.box(0, 0, 10, 10))]
    without = save(tmp_path / f"p.{extension}", square, crs=None, kind="Polygon")
    nowhere = Info(60, 80, 3, "uint8", transform=GRID)
    fails(without, "polygons-no-crs", "the polygons have no coordinate system", "EPSG:32633")
    assert labels(without, image=nowhere).classes.sum() == 100
    with_crs = save(tmp_path / f"q.{extension}", square, kind="Polygon")
    fails(with_crs, "polygons-no-crs", "the image has no coordinate system", image=nowhere)


def test_an_image_without_transform_cannot_have_polygons(tmp_path):
    path = save(tmp_path / "p.geojson", [on_map(shapely.box(0, 0, 10, 10))])
    fails(path, "polygons-no-crs", "scene.tif", "no affine transform", image=Info(60, 80, 3, "uint8"))


def test_geojson_without_crs_is_in_degrees(tmp_path):
    path = geojson(tmp_path / "p.geojson", [shapely.geometry.mapping(to_degrees(on_map(STAR)))], crs=None)
    assert (labels(path).classes != inside(STAR)).sum() <= 2  # its digits end


def test_a_missing_property_is_named_with_those_there_are(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(STAR)], ["house"])
    data = data_for(label_property="kind")
    fails(path, "polygons-unreadable", "no property 'kind'", "it has use", "data.label_property", data=data)


@pytest.mark.parametrize("extension", ["geojson", "gpkg", "shp", "fgb"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "html"])
def test_damaged_files_are_refused(tmp_path, extension, damage):
    path = save(tmp_path / f"p.{extension}", [on_map(STAR), on_map(RING)] * 200, kind="Polygon")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "garbage": content[:16] + rng.bytes(len(content) - 16),
            "html": b"<html>404 not found</html>",
        }[damage]
    )
    fails(path, "polygons-unreadable")


def test_empty_files_and_other_content_are_refused(tmp_path):
    empty = tmp_path / "a.geojson"
    empty.write_bytes(b"")
    fails(empty, "empty-file")
    for i, content in enumerate(
        ('{"type": "Topology", "objects": {}, "arcs": []}', "{}", "[1, 2]", '{"type": "Feature"')
    ):
        path = tmp_path / f"b{i}.geojson"
        path.write_text(content)
        fails(path, "polygons-unreadable")
    shp = save(tmp_path / "c.shp", [on_map(STAR)], kind="Polygon")
    shp.with_suffix(".shx").unlink()
    fails(shp, "polygons-unreadable", ".shx")


def test_a_file_that_points_elsewhere_is_not_followed(tmp_path):
    target = save(tmp_path / "other.geojson", [on_map(STAR)])
    path = tmp_path / "p.geojson"
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="other"><SrcDataSource>{target}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    fails(path, "polygons-unreadable", "its content is not GeoJSON")


def test_several_layers_are_named(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(STAR)], layer="houses")
    save(path, [on_map(RING)], layer="lakes", append=True)
    fails(path, "polygons-unreadable", "2 layers", "houses, lakes")


def test_a_file_that_was_changed_is_read_anew(tmp_path):
    path = save(tmp_path / "p.geojson", [on_map(shapely.box(0, 0, 10, 10))])
    assert labels(path).classes.sum() == 100
    path.unlink()
    save(path, [on_map(shapely.box(0, 0, 10, 20))], ["house"])
    assert labels(path, data_for({"house": 1}, label_property="use")).classes.sum() == 200


def test_a_file_without_features_makes_its_image_background(tmp_path):
    path = geojson(tmp_path / "p.geojson", [])
    for data in (data_for(), data_for(label_property="use")):
        assert not labels(path, data).classes.any()
