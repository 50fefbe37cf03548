"""Area of pixels on the ground."""

import numpy as np
import pytest
import shapely
from rasterio.transform import Affine
from rasterio.warp import transform as convert

from segcore.data.raster import Info
from segcore.data.resolution import ground_resolution
from segcore.objects.canvas import SceneObjects
from segcore.prediction.ground import pixel_areas
from segcore.prediction.writers.placement import placement

CORNERS = ((0.0, 0.0, 11.0, 47.0, 0.0), (0.0, 200.0, 11.002, 47.0, 0.0), (300.0, 0.0, 11.0, 46.997, 0.0))


def scene(
    crs: str | None, transform: tuple[float, ...] | None, height: int = 300, width: int = 200, **more
) -> Info:
    return Info(height, width, 3, "uint8", crs, transform, **more)


def areas_of(info: Info) -> np.ndarray:
    """(H, W) area of each pixel."""
    found = pixel_areas(info)
    areas = found.at(np.arange(info.height)[:, None], np.arange(info.width)[None])
    assert np.isclose(found.total(0, 0, np.ones(areas.shape, bool)), areas.sum())
    half = np.indices(areas.shape).sum(axis=0) % 2 == 0
    assert np.isclose(found.total(7, 3, half[7:, 3:]), areas[7:, 3:][half[7:, 3:]].sum())
    return areas


def equal_area(info: Info, row: int, col: int, height: int, width: int) -> float:
    """Area of a rectangle of pixels as polygon in an equal-area system, with points at each corner of a pixel."""
    edge = shapely.segmentize(shapely.box(col, row, col + width, row + height), 1).exterior
    x, y = Affine(*info.transform) @ shapely.get_coordinates(edge).T
    x, y = convert(info.crs, f"+proj=laea +lat_0={'90' if info.crs == 'EPSG:3413' else '52'} +lon_0=10", x, y)
    return shapely.Polygon(np.stack([x, y], axis=1)).area


def test_a_projected_pixel_has_its_area_on_the_map():
    areas = areas_of(scene("EPSG:32633", (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)))
    assert areas.shape == (300, 200) and np.array_equal(areas, np.full((300, 200), 0.25))
    # turned by 30 degrees, and in feet of the United States
    turned = (0.866, 0.5, 500_000.0, 0.5, -0.866, 5_000_000.0)
    assert np.allclose(areas_of(scene("EPSG:32633", turned)), 0.866**2 + 0.25)
    feet = areas_of(scene("EPSG:2229", (3.0, 0.0, 6_500_000.0, 0.0, -3.0, 1_850_000.0)))
    assert np.allclose(feet, (3 * 1200 / 3937) ** 2, rtol=1e-6)


@pytest.mark.parametrize("latitude", [0.0, 47.0, -71.0])
def test_degrees_are_converted_at_the_latitude_of_each_row(latitude):
    step = 0.001
    info = scene("EPSG:4326", (step, 0.0, 11.0, 0.0, -step, latitude), 2000)
    areas = areas_of(info)
    # radii of curvature of WGS 84, in the middle of each row
    phi = np.radians(latitude - (np.arange(2000) + 0.5) * step)
    curve = 1 - 0.00669437999014 * np.sin(phi) ** 2
    along, across = 6_378_137 * (1 - 0.00669437999014) / curve**1.5, 6_378_137 / curve**0.5
    assert np.allclose(areas, (along * across * np.cos(phi) * np.radians(step) ** 2)[:, None], rtol=1e-6)


def test_pixels_of_the_whole_earth_have_its_area():
    areas = areas_of(scene("EPSG:4326", (0.5, 0.0, -180.0, 0.0, -0.5, 90.0), 360, 720))
    assert np.isclose(areas.sum(), 510_065_621_724_000, rtol=1e-3)


TURNED = tuple(Affine.translation(5, 60) @ Affine.rotation(35) @ Affine.scale(0.05, -0.05))[:6]


@pytest.mark.parametrize(
    ("crs", "transform", "size"),
    [
        pytest.param("EPSG:3413", (25e3, 0, -3_850e3, 0, -25e3, 5_850e3), (448, 304), id="polar"),
        pytest.param("EPSG:4326", TURNED, (300, 260), id="turned-degrees"),
        pytest.param("EPSG:3034", (1e4, 0, 2_600e3, 0, -1e4, 4_600e3), (360, 420), id="conic"),
        pytest.param("EPSG:3857", (2e3, 0, 0, 0, -2e3, 9_000e3), (1500, 900), id="mercator"),
    ],
)
def test_areas_within_a_row_are_those_of_polygons_in_an_equal_area_system(crs, transform, size):
    info = scene(crs, tuple(map(float, transform)), *size)
    found, (height, width) = pixel_areas(info), size
    # also around the pole, and as large as the scene
    boxes = [(r, c, 9, 7) for r in range(0, height - 9, 61) for c in range(0, width - 7, 53)]
    boxes += [(0, 0, height, width), (height // 3, 0, 20, width), (0, width // 3, height, 20)]
    for box in boxes:
        row, col, tall, wide = box
        assert found.total(row, col, np.ones((tall, wide), bool)) == pytest.approx(
            equal_area(info, *box), rel=0.005
        )
        numbers = np.zeros(size, np.uint32)
        numbers[row : row + tall, col : col + wide] = 1
        middle = np.array([[row + tall // 2, col + wide // 2]])
        one = SceneObjects(
            numbers, np.ones(1, np.uint8), np.ones(1), np.array([tall * wide]), np.array([box]), middle
        )
        assert found.of_objects(one)[0] == pytest.approx(equal_area(info, *box), rel=0.01)


def test_web_mercator_is_not_taken_for_metres():
    areas = areas_of(scene("EPSG:3857", (1.0, 0.0, 1_200_000.0, 0.0, -1.0, 8_400_000.0)))
    # at 60 degrees north, a metre of the map is half a metre on the ground
    assert 0.24 < areas.min() < areas.max() < 0.26


def test_without_a_position_nothing_is_known():
    assert pixel_areas(scene(None, None)) is None
    assert pixel_areas(scene(None, (0.5, 0.0, 0.0, 0.0, -0.5, 0.0))) is None


@pytest.mark.parametrize(
    "crs",
    [
        pytest.param('LOCAL_CS["site",UNIT["metre",1]]', id="local"),
        pytest.param(
            'GEOGCS["Moon",DATUM["D_Moon",SPHEROID["Moon",1737400,0]],PRIMEM["Reference",0],'
            'UNIT["degree",0.0174532925199433]]',
            id="moon",
        ),
    ],
)
def test_a_coordinate_system_that_is_not_of_the_earth_has_no_areas(crs):
    info = scene(crs, (0.5, 0.0, 10.0, 0.0, -0.5, 20.0), 20, 20)
    assert pixel_areas(info) is None and ground_resolution(info) is None


def test_control_points_give_the_areas_of_their_polygons():
    by_points = areas_of(scene(None, None, gcps=CORNERS, gcps_crs="EPSG:4326"))
    assert np.allclose(by_points, areas_of(scene("EPSG:4326", (1e-5, 0.0, 11.0, 0.0, -1e-5, 47.0))))
    # pixels that grow from left to right
    bent = [
        (row, col, 500_000 + 0.5 * col + 0.001 * col**2, 5_000_000 - 0.5 * row, 0.0)
        for row in (0.0, 150.0, 300.0)
        for col in (0.0, 100.0, 200.0)
    ]
    areas = areas_of(scene(None, None, gcps=tuple(bent), gcps_crs="EPSG:32633"))
    assert np.allclose(areas, 0.5 * (0.5 + 0.002 * (np.arange(200) + 0.5)), rtol=1e-3)


def test_control_points_in_two_lines_give_polygons_and_areas_or_neither():
    pixels = [(row, col) for row in (0.0, 300.0) for col in (0.0, 100.0, 200.0)]
    points = tuple((row, col, 500_000 + 0.5 * col, 5_000_000 - 0.5 * row, 0.0) for row, col in pixels)
    info = scene(None, None, gcps=points, gcps_crs="EPSG:32633")
    assert np.allclose(areas_of(info), 0.25)
    place = placement(info)
    corner = np.array([[200.0, 300.0]])
    assert place.crs == "EPSG:32633" and "affine" in place.text
    assert np.allclose(place.place(corner), [[500_100, 4_999_850]]) and np.allclose(
        place.find(place.place(corner)), corner
    )
    moved = (*points[:-1], (300.0, 200.0, 500_110.0, 4_999_850.0, 0.0))
    off = scene(None, None, gcps=moved, gcps_crs="EPSG:32633")
    assert placement(off).crs is None and pixel_areas(off) is None
