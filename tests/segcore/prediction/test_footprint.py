"""Outlines of scenes in degrees, at the antimeridian, at the poles, and beyond 180 degrees."""

import numpy as np
import pytest
import shapely
from rasterio.warp import transform

from segcore.data.raster import Info
from segcore.prediction.footprint import footprint
from segcore.prediction.writers.placement import placement

MERCATOR = 20037508.342789244
# east, north: upper left corner
CASES = {
    "beyond 180": ("EPSG:4326", 179.7, 10, 0.01, [179.7, 9.36, -179.66, 10]),
    "beyond -180": ("EPSG:4326", -180.3, 10, 0.01, [179.7, 9.36, -179.66, 10]),
    "up to 180": ("EPSG:4326", 179.36, 10, 0.01, [179.36, 9.36, 180, 10]),
    "from 180": ("EPSG:4326", 180, 10, 0.01, [-180, 9.36, -179.36, 10]),
    "one turn on": ("EPSG:4326", 370, 10, 0.01, [10, 9.36, 10.64, 10]),
    "world from 0": ("EPSG:4326", 0, 90, 180 / 64, [0, -90, 180, 90]),
    "centres on the pole": ("EPSG:4326", 0, 90.25, 0.5, [0, 58.25, 32, 90]),
    "Mercator beyond 180": ("EPSG:3857", 20005508, 1e6, 1000, [179.712536, 8.378213, -179.712542, 8.946574]),
    "Mercator up to 180": ("EPSG:3857", MERCATOR - 64000, 1e6, 1000, [179.425078, 8.378213, 180, 8.946574]),
    "Mercator from 180": ("EPSG:3857", -MERCATOR, 1e6, 1000, [-180, 8.378213, -179.425078, 8.946574]),
    "Mercator, rounded": ("EPSG:3857", 19973508.35, 1e6, 1000, [179.425078, 8.378213, 180, 8.946574]),
    "Mercator, world": ("EPSG:3857", -MERCATOR, MERCATOR, MERCATOR / 32, [-180, -85.051129, 180, 85.051129]),
    "south, side on 180": ("EPSG:3031", 0, -1e6, 1000, [176.338064, -80.815265, 180, -80.212516]),
    "south, other side": ("EPSG:3031", -64e3, -1e6, 1000, [-180, -80.815265, -176.338064, -80.212516]),
    "south, corner on pole": ("EPSG:3031", 0, 0, 1000, [90, -90, 180, -89.166994]),
    "south, pole inside": ("EPSG:3031", -32e3, 32e3, 1000, [-180, -90, 180, -89.583492]),
    "south, pole on a side": ("EPSG:3031", -31e3, 0, 1000, [90, -90, -90, -89.33728975]),
    "north, corner on 180": ("EPSG:3413", -1e6, 1064e3, 1000, [176.338064, 76.579972, 180, 77.404771]),
    "north, corners on 180": ("EPSG:3413", -1e6, 1e6, 1000, [178.106614, 76.998816, -178.106614, 77.824688]),
    "north, corner on pole": ("EPSG:3413", -64e3, 64e3, 1000, [135, 89.164494, -135, 90]),
    "north, pole inside": ("EPSG:3413", -20e3, 40e3, 1000, [-180, 89.451073, 180, 90]),
    "north, beyond the equator": ("EPSG:3413", -12e6, 12e6, 375e3, [-180, -18.110940, 180, 90]),
}


def scene(crs, left, top, size, side=64):
    info = Info(side, side, 1, "uint8", crs=crs, transform=(size, 0.0, left, 0.0, -size, top))
    return info, placement(info)


@pytest.mark.parametrize("name", CASES)
def test_an_outline_covers_its_scene_and_nothing_else(name):
    crs, left, top, size, bounds = CASES[name]
    info, place = scene(crs, left, top, size)
    found = footprint(place, info)
    assert np.allclose(found.bounds, bounds, atol=1e-5)
    shape = shapely.geometry.shape(found.geometry)
    assert shape.is_valid and shape.bounds[0] >= -180 and shape.bounds[2] <= 180
    parts = getattr(shape, "geoms", [shape])
    assert all(part.exterior.is_ccw for part in parts)
    assert len(parts) == (2 if bounds[0] > bounds[2] else 1)
    # pixels that are inside or outside by more than two, since sides between points are straight in degrees
    inside = np.random.default_rng(0).uniform(2, 62, (500, 2))
    outside = np.random.default_rng(1).uniform(-64, 128, (2000, 2))
    outside = outside[((outside < -2) | (outside > 66)).any(axis=1)]
    for pixels, is_covered in ((inside, True), (outside, False)):
        longitudes, latitudes = map(np.array, transform(crs, "EPSG:4326", *place.place(pixels).T))
        usable = np.isfinite(longitudes) & (np.abs(latitudes) < 90 - 1e-6)
        if crs in ("EPSG:4326", "EPSG:3857") and not is_covered:
            # pixels one turn on are elsewhere in the image, but not on the earth
            usable &= np.abs(place.place(pixels)[:, 0] - left - 32 * size) < size * 32 + 1e-9
        turned = (longitudes[usable] + 180) % 360 - 180
        covers = shapely.contains_xy(shape, turned, latitudes[usable])
        assert (covers == is_covered).all()


def test_the_whole_world_from_0_to_360_degrees_is_one_part():
    info = Info(180, 360, 1, "uint8", crs="EPSG:4326", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 90.0))
    found = footprint(placement(info), info)
    assert found.bounds == [-180, -90, 180, 90] and found.geometry["type"] == "Polygon"
    assert shapely.geometry.shape(found.geometry).area == 360 * 180


@pytest.mark.parametrize(
    ("crs", "left", "top"), [("EPSG:4326", 10, 360), ("EPSG:4326", 10, 90.3), ("EPSG:4978", 4e6, 1e6)]
)
def test_impossible_latitudes_and_geocentric_coordinates_have_no_outline(crs, left, top):
    info, place = scene(crs, left, top, 0.01)
    assert place.crs is not None and footprint(place, info) is None


def test_the_outline_of_control_points_crosses_the_antimeridian():
    points = tuple((float(r), float(c), 179.9 + c / 100, 5 - r / 100, 0.0) for r in (0, 64) for c in (0, 64))
    info = Info(64, 64, 1, "uint8", gcps=points, gcps_crs="EPSG:4326")
    found = footprint(placement(info), info)
    assert np.allclose(found.bounds, [179.9, 4.36, -179.46, 5])
