"""Polygon files that cannot be used are refused; features that cannot be used are noted."""

import numpy as np
import pytest
import shapely

from segcore.data.raster import Info
from segcore.io.annotations import open_labels
from tests.support.polygons import (
    GRID,
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
)


def test_self_intersecting_polygons_are_repaired_and_noted(tmp_path):
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
    # the ring is drawn over the bow
    assert set(notes) == {"polygons-invalid", "objects-overlap"}
    assert "intersect themselves and were repaired: 0" in notes["polygons-invalid"]
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


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("extension", ["shp", "gpkg"])
def test_coordinate_systems_are_needed_in_both_files_or_neither(tmp_path, extension):
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


def test_a_missing_property_is_reported_with_the_existing_ones(tmp_path):
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


def test_references_to_other_files_are_not_followed(tmp_path):
    target = save(tmp_path / "other.geojson", [on_map(STAR)])
    path = tmp_path / "p.geojson"
    path.write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="other"><SrcDataSource>{target}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    fails(path, "polygons-unreadable", "its content is not GeoJSON")


def test_several_layers_are_refused_and_listed(tmp_path):
    path = save(tmp_path / "p.gpkg", [on_map(STAR)], layer="houses")
    save(path, [on_map(RING)], layer="lakes", append=True)
    fails(path, "polygons-unreadable", "2 layers", "houses, lakes")
