"""Places in degrees are found whatever turn their longitudes count in, and across the antimeridian."""

import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import shapely

from segcore.data.longitudes import in_degrees, within_turn
from segcore.ingest.links.footprints import frames, rectangles, same_places, to_degrees
from segcore.io.layouts._patterns import cell_name

SIZE, STEP = 100, 0.001


def row(name, west, north, crs="EPSG:4326", step=STEP, width=SIZE):
    transform = (step, 0, west, 0, -step, north)
    return {
        "id": name,
        "crs": crs,
        "transform": json.dumps(transform),
        "height": SIZE,
        "width": width,
        "sha256": name,
    }


def pairs(*rows):
    return [(a, b) for a, b in same_places(pd.DataFrame(rows))[["a", "b"]].itertuples(index=False)]


def test_images_on_both_counts_of_longitude_are_one_place():
    here, there = row("a", 200.0, -16.0), row("b", -160.0, -16.0)
    assert pairs(here, there, row("c", -159.0, -16.0), row("d", 20.0, -16.0)) == [("a", "b")]
    assert len(set(frames(pd.DataFrame([here, there])))) == 1


@pytest.mark.parametrize("west", [179.96, -180.04, 539.96])
def test_an_image_across_the_antimeridian_overlaps_images_on_both_sides(west):
    across = row("a", west, -16.0)
    assert pairs(across, row("b", -180.0, -16.0), row("c", 179.9, -16.0), row("d", 0.0, -16.0)) == [
        ("a", "b"),
        ("a", "c"),
    ]
    assert pairs(across, row("b", -179.9, -16.0)) == []


def test_projected_images_across_the_antimeridian_overlap_images_in_degrees():
    # UTM zone 1 south, around 180 degrees
    utm = row("a", 166_000 - 30_000, 8_200_000, "EPSG:32701", 600.0)
    east, west = row("b", -179.99, -16.5, step=0.003), row("c", 179.95, -16.5, step=0.0004)
    far = row("d", 10.0, -16.5)
    assert pairs(utm, east, west, far) == [("a", "b"), ("a", "c")]


def test_polygons_across_the_antimeridian_keep_their_area_and_poles_are_left_out():
    boxes = np.array([[0, 0, 100, 100]])
    utm = rectangles([(600, 0, 136_000, 0, -600, 8_200_000)], boxes, points=16)
    degrees = to_degrees(utm, "EPSG:32701")[0]
    assert (
        degrees.is_valid and len(degrees.geoms) == 2 and shapely.bounds(degrees).tolist()[0::2] == [-180, 180]
    )
    assert 0.25 < degrees.area < 0.35
    pole = rectangles([(1000, 0, -50_000, 0, -1000, 50_000)], boxes, points=16)
    assert to_degrees(pole, "EPSG:3031")[0] is None


def test_global_grids_from_0_to_360_cover_the_whole_turn():
    whole = {**row("a", 0.0, 90.0, step=1.8, width=200), "height": 100}
    assert pairs(whole, row("b", -5.0, 10.0, step=0.1), row("c", 175.0, 10.0, step=0.1)) == [
        ("a", "b"),
        ("a", "c"),
    ]


def test_ordinary_footprints_are_unchanged_to_the_last_bit():
    boxes = np.array([[0, 0, 50, 60], [3, 4, 5, 6]])
    shapes = rectangles([(0.5, 0, 500000, 0, -0.5, 5000000)] * 2, boxes, points=16)
    from rasterio.warp import transform

    xy = shapely.get_coordinates(shapes)
    lon, lat = transform("EPSG:32633", "EPSG:4326", xy[:, 0], xy[:, 1])
    assert np.array_equal(
        shapely.get_coordinates(to_degrees(shapes, "EPSG:32633")), np.stack([lon, lat], axis=1)
    )


@pytest.mark.parametrize(
    ("west", "name"), [(180.0, "W180S17"), (-180.0, "W180S17"), (179.93, "E179S17"), (200.0, "W160S17")]
)
def test_cells_have_one_name_whatever_turn_longitudes_count_in(west, name):
    transform = (STEP, 0, west, 0, -STEP, -16.0)
    assert cell_name(transform, SIZE, SIZE, Decimal(1), degrees=True) == name
    metres = (1, 0, 500_000, 0, -1, 5_000_000)
    assert cell_name(metres, SIZE, SIZE, Decimal(500)) == cell_name(
        metres, SIZE, SIZE, Decimal(500), degrees=False
    )


@pytest.mark.parametrize(
    ("crs", "degrees"),
    [
        ("EPSG:4326", True),
        ("EPSG:4269", True),
        ("EPSG:32633", False),
        ("EPSG:4807", False),
        (None, False),
        ("x", False),
    ],
)
def test_systems_in_degrees_are_known(crs, degrees):
    assert in_degrees(crs) == degrees


def test_longitudes_within_the_turn_keep_their_bits():
    for value in (-180.0, 0.1, 179.999999999, 179.97 + 1e-13):
        assert within_turn(value) == value
    assert within_turn(180.5) == -179.5 and within_turn(-180.5) == 179.5 and within_turn(540.0) == -180.0
