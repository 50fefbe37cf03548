"""Area of pixels on the ground."""

import numpy as np
import pytest

from segcore.data.raster import Info
from segcore.prediction.ground import pixel_areas


def scene(crs: str | None, transform: tuple[float, ...] | None, height: int = 300, **more) -> Info:
    return Info(height, 200, 3, "uint8", crs, transform, **more)


def test_a_projected_pixel_has_its_area_on_the_map():
    areas = pixel_areas(scene("EPSG:32633", (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)))
    assert areas.shape == (300,) and np.array_equal(areas, np.full(300, 0.25))
    # turned by 30 degrees, and in feet of the United States
    turned = (0.866, 0.5, 500_000.0, 0.5, -0.866, 5_000_000.0)
    assert np.allclose(pixel_areas(scene("EPSG:32633", turned)), 0.866**2 + 0.25)
    feet = pixel_areas(scene("EPSG:2229", (3.0, 0.0, 6_500_000.0, 0.0, -3.0, 1_850_000.0)))
    assert np.allclose(feet, (3 * 1200 / 3937) ** 2, rtol=1e-6)


@pytest.mark.parametrize("latitude", [0.0, 47.0, -71.0])
def test_degrees_are_converted_at_the_latitude_of_each_row(latitude):
    step = 0.001
    info = scene("EPSG:4326", (step, 0.0, 11.0, 0.0, -step, latitude), 2000)
    areas = pixel_areas(info)
    # radii of curvature of WGS 84, in the middle of each row
    phi = np.radians(latitude - (np.arange(2000) + 0.5) * step)
    curve = 1 - 0.00669437999014 * np.sin(phi) ** 2
    along, across = 6_378_137 * (1 - 0.00669437999014) / curve**1.5, 6_378_137 / curve**0.5
    assert np.allclose(areas, along * across * np.cos(phi) * np.radians(step) ** 2, rtol=2e-4)


def test_web_mercator_is_not_taken_for_metres():
    areas = pixel_areas(scene("EPSG:3857", (1.0, 0.0, 1_200_000.0, 0.0, -1.0, 8_400_000.0)))
    # at 60 degrees north, a metre of the map is half a metre on the ground
    assert 0.24 < areas.min() < areas.max() < 0.26


def test_without_a_position_nothing_is_known():
    assert pixel_areas(scene(None, None)) is None
    assert pixel_areas(scene(None, (0.5, 0.0, 0.0, 0.0, -0.5, 0.0))) is None
    corners = ((0.0, 0.0, 11.0, 47.0, 0.0), (0.0, 200.0, 11.002, 47.0, 0.0), (300.0, 0.0, 11.0, 46.997, 0.0))
    by_points = pixel_areas(scene(None, None, gcps=corners, gcps_crs="EPSG:4326"))
    assert np.allclose(by_points, pixel_areas(scene("EPSG:4326", (1e-5, 0.0, 11.0, 0.0, -1e-5, 47.0))))
