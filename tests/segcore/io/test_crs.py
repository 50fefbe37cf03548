"""Which coordinate reference systems are the same on the map."""

import re

import pytest
from rasterio.crs import CRS

from segcore.data.raster import Info
from segcore.errors import DataError
from segcore.io.crs import has_heights, same_on_map, short_name
from segcore.io.grid import check_same_grid


def text(code):
    """As Info.crs has it."""
    return CRS.from_user_input(code).to_string()


def without_authority(code):
    return re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]', "", CRS.from_user_input(code).to_wkt())


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (text("EPSG:32633+5773"), "EPSG:32633"),
        (text("EPSG:4326+5773"), "EPSG:4326"),
        ("EPSG:7415", "EPSG:28992"),
        ("EPSG:4979", "EPSG:4326"),
        (text("OGC:CRS84"), "EPSG:4326"),
        (without_authority("EPSG:25832"), "EPSG:25832"),
        (CRS.from_epsg(27700).to_wkt(version="WKT1_ESRI"), "EPSG:27700"),
        (CRS.from_epsg(2154).to_wkt(version="WKT2_2019"), "EPSG:2154"),
        (CRS.from_epsg(32633).to_wkt().replace("WGS 84 / UTM zone 33N", "unnamed"), "EPSG:32633"),
    ],
)
def test_systems_that_differ_in_heights_or_spelling_are_the_same_on_the_map(a, b):
    assert same_on_map(a, b) and same_on_map(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("EPSG:32633", "EPSG:32634"),
        ("EPSG:4326", "EPSG:4258"),
        ("EPSG:32633", "EPSG:25833"),
        (text("EPSG:32634+5773"), "EPSG:32633"),
        ('LOCAL_CS["a",UNIT["metre",1]]', 'LOCAL_CS["b",UNIT["metre",1]]'),
    ],
)
def test_other_systems_are_not_the_same(a, b):
    assert not same_on_map(a, b) and not same_on_map(b, a)


def test_names_are_short():
    assert short_name("EPSG:32633") == short_name(without_authority("EPSG:32633")) == "EPSG:32633"
    assert short_name(text("EPSG:32633+5773")) == "'WGS 84 / UTM zone 33N + EGM96 height'"
    assert has_heights(text("EPSG:32633+5773")) and not has_heights("EPSG:32633")


def test_a_mask_in_the_horizontal_part_of_its_images_system_is_on_its_grid(tmp_path):
    names = (tmp_path / "a.tif", tmp_path / "m.tif")
    image = Info(4, 5, 3, "uint8", crs=text("EPSG:32633+5773"), transform=(1, 0, 0, 0, -1, 0))
    mask = Info(4, 5, 1, "uint8", crs="EPSG:32633", transform=(1, 0, 0, 0, -1, 0))
    assert [kind for kind, _ in check_same_grid(image, mask, names)] == ["height-ignored"]
    other = Info(4, 5, 1, "uint8", crs="EPSG:32634", transform=(1, 0, 0, 0, -1, 0))
    with pytest.raises(DataError) as caught:
        check_same_grid(image, other, names)
    assert caught.value.kind == "crs-mismatch" and len(caught.value.what) < 200
    assert "mask EPSG:32634" in caught.value.what
