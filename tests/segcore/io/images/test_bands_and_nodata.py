"""Bands that a file calls alpha, and nodata values of all types."""

import time

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import ColorInterp

from segcore.io import images
from tests.support.images import NOISE, RNG
from tests.support.tiff import write_tiff
from tests.support.tiny import write_tif

WATER = np.zeros((40, 50), bool)
WATER[:, :30] = True
NEAR_INFRARED = np.where(WATER, 0, RNG.integers(60, 256, WATER.shape)).astype(np.uint8)[None]
TRANSPARENT = np.where(WATER, 0, 255).astype(np.uint8)[None]


def opened(path, **options):
    with images.open_source(path, **options) as source:
        return source.read()


def kinds(raster):
    return [kind for kind, _ in raster.info.notes]


@pytest.mark.parametrize(
    "fourth",
    [
        NEAR_INFRARED,
        np.where(WATER, 0, 150)[None],
        np.where(WATER, 0, 40)[None],
        np.zeros((1, 40, 50)),
        np.full((1, 40, 50), 90),
        np.where(WATER, 0, np.maximum(NEAR_INFRARED, 200)),
        RNG.integers(0, 256, (1, 40, 50)),
    ],
    ids=["land and water", "two values", "dark", "all water", "even", "mostly water", "noise"],
)
@pytest.mark.parametrize("options", [{}, {"photometric": "RGB", "alpha": "yes"}], ids=["default", "alpha"])
def test_near_infrared_that_the_file_calls_alpha_is_data(tmp_path, fourth, options):
    pixels = np.concatenate([NOISE, fourth.astype(np.uint8)])
    write_tif(tmp_path / "a.tif", pixels, **options)
    raster = opened(tmp_path / "a.tif")
    assert np.array_equal(raster.pixels, pixels) and raster.valid.all()
    assert kinds(raster) == ["alpha-as-data"] and "band 4" in raster.info.notes[0][1]


@pytest.mark.parametrize("soft", [False, True])
def test_a_band_that_is_transparency_is_left_out_with_a_note(tmp_path, soft):
    alpha = TRANSPARENT.copy()
    if soft:
        alpha[0, :, 29:32] = (60, 120, 200)
    write_tif(tmp_path / "a.tif", np.concatenate([NOISE, alpha]))
    raster = opened(tmp_path / "a.tif")
    assert np.array_equal(raster.pixels, NOISE) and np.array_equal(raster.valid, alpha[0] > 0)
    assert kinds(raster) == ["alpha-band"]


def test_an_empty_tile_with_transparency_has_no_valid_pixel(tmp_path):
    write_tif(tmp_path / "a.tif", np.zeros((4, 40, 50), np.uint8))
    raster = opened(tmp_path / "a.tif")
    assert raster.info.bands == 3 and not raster.valid.any()


def test_premultiplied_alpha_is_alpha_whatever_its_values(tmp_path):
    pixels = np.concatenate([NOISE, NEAR_INFRARED])
    write_tif(tmp_path / "a.tif", pixels, photometric="RGB", alpha="premultiplied")
    raster = opened(tmp_path / "a.tif")
    assert np.array_equal(raster.pixels, NOISE) and np.array_equal(raster.valid, NEAR_INFRARED[0] > 0)


@pytest.mark.parametrize("fourth", [NEAR_INFRARED, TRANSPARENT], ids=["infrared", "transparency"])
def test_bands_that_are_wanted_are_read_whatever_the_file_calls_them(tmp_path, fourth):
    pixels = np.concatenate([NOISE, fourth])
    write_tif(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes")
    raster = opened(tmp_path / "a.tif", bands=(1, 2, 3, 4))
    assert np.array_equal(raster.pixels, pixels) and raster.valid.all()
    assert kinds(raster) == ["alpha-as-data"]
    colours = opened(tmp_path / "a.tif", bands=(1, 2, 3))
    assert np.array_equal(colours.pixels[:3], NOISE)
    assert colours.valid.all() == (fourth is NEAR_INFRARED)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_bands_after_alpha_keep_their_numbers(tmp_path, dtype):
    pixels = RNG.integers(1, 100, (5, 40, 50)).astype(dtype)
    pixels[2] = np.where(WATER, 0, 255)
    path = tmp_path / "a.tif"
    write_tif(path, pixels, photometric="MINISBLACK", nodata=7)
    with rasterio.open(path, "r+") as file:
        grey, other = ColorInterp.gray, ColorInterp.undefined
        file.colorinterp = [grey, other, ColorInterp.alpha, other, other]
    without = opened(path)
    assert np.array_equal(without.pixels, pixels[[0, 1, 3, 4]])
    named = opened(path, bands=(2, 5))
    assert np.array_equal(named.pixels[[1, 4]], pixels[[1, 4]])
    assert np.array_equal(named.valid, without.valid) and not named.valid[:, :30].any()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_with_alpha_is_one_band(tmp_path, dtype):
    pixels = np.concatenate([NOISE[:1], TRANSPARENT]).astype(dtype)
    write_tif(tmp_path / "a.tif", pixels, alpha="yes")
    raster = opened(tmp_path / "a.tif")
    assert raster.info.bands == 1 and np.array_equal(raster.valid, ~WATER)
    write_tif(tmp_path / "b.tif", pixels)
    assert opened(tmp_path / "b.tif").info.bands == 2


def test_alpha_of_16_bits_is_alpha(tmp_path):
    pixels = np.concatenate([NOISE, NEAR_INFRARED]).astype(np.uint16)
    write_tif(tmp_path / "a.tif", pixels, photometric="RGB", alpha="yes")
    assert opened(tmp_path / "a.tif").info.bands == 3
    write_tif(tmp_path / "b.tif", pixels)
    assert opened(tmp_path / "b.tif").info.bands == 4 and not opened(tmp_path / "b.tif").info.notes


@pytest.mark.parametrize("tiled", [True, False])
def test_alpha_of_a_large_file_is_found_in_a_sample(tmp_path, tiled):
    size = (1200, 1300)
    alpha = np.full((1, *size), 255, np.uint8)
    alpha[:, :, :500] = 0
    colours = RNG.integers(0, 256, (3, *size)).astype(np.uint8)
    options = {"tiled": True, "blockxsize": 128, "blockysize": 128} if tiled else {"blockysize": 1}
    for fourth, bands in ((alpha, 3), (RNG.integers(0, 256, (1, *size)).astype(np.uint8), 4)):
        write_tif(tmp_path / "a.tif", np.concatenate([colours, fourth]), **options)
        assert images.info(tmp_path / "a.tif").bands == bands


@pytest.mark.parametrize("fourth", [NEAR_INFRARED, TRANSPARENT], ids=["infrared", "transparency"])
def test_a_vrt_decides_on_alpha_like_its_source(tmp_path, fourth):
    pixels = np.concatenate([NOISE, fourth])
    write_tif(tmp_path / "a.tif", pixels)
    rasterio.shutil.copy(tmp_path / "a.tif", tmp_path / "a.vrt", driver="VRT")
    raster = opened(tmp_path / "a.vrt")
    assert raster.info.bands == images.info(tmp_path / "a.tif").bands == (4 if fourth is NEAR_INFRARED else 3)
    assert np.array_equal(opened(tmp_path / "a.vrt", bands=(1, 2, 3, 4)).pixels, pixels)


LIMITS = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
}


def write_nodata(path, pixels, text):
    """A TIFF of one band with a nodata value as GDAL writes it; rasterio rounds it to float64."""
    write_tiff(path, [(pixels[0], {42113: text})])


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("which", ["lowest", "highest", "255", "0"])
def test_nodata_of_integers_of_any_width_is_found_at_once(tmp_path, dtype, which):
    lowest, highest = LIMITS[dtype]
    value = {"lowest": lowest, "highest": highest}.get(which)
    value = int(which) if value is None else value
    fits = lowest <= value <= highest
    pixels = RNG.integers(1, 100, (1, 40, 50)).astype(dtype)
    pixels[0, :5] = value if fits else 1
    write_nodata(tmp_path / "a.tif", pixels, str(value))
    started = time.perf_counter()
    raster = opened(tmp_path / "a.tif")
    assert time.perf_counter() - started < 1
    assert raster.valid[5:].all() and raster.valid[:5].any() != fits and raster.valid[:5].all() != fits
    assert raster.info.nodata == (float(value) if fits else None)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("int32", "-3.4028234663852886e+38"),
        ("uint8", "-9999"),
        ("uint8", "256"),
        ("int8", "255"),
        ("uint16", "-1"),
        ("uint32", "-9999"),
        ("uint64", "-1"),
        ("int64", "9223372036854775809"),
        ("uint8", "0.5"),
        ("int32", "nan"),
        ("int64", "nan"),
        ("uint8", "inf"),
        ("float32", "1e300"),
        ("float32", "-1.7976931348623157e+308"),
    ],
)
def test_nodata_outside_the_type_is_no_nodata(tmp_path, dtype, text):
    pixels = NOISE[:1].astype(dtype)
    write_nodata(tmp_path / "a.tif", pixels, text)
    raster = opened(tmp_path / "a.tif")
    assert raster.valid.all() and raster.info.nodata is None and np.array_equal(raster.pixels, pixels)


@pytest.mark.parametrize(
    "text",
    [
        "-3.4e+38",
        "-3.4028234663852886e+38",
        "-3.40282e+38",
        "-3.402823e38",
        "-3.4028235e+38",
        "1e38",
        "-9999",
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nodata_of_floats_is_compared_as_the_type_rounds_it(tmp_path, dtype, text):
    pixels = NOISE[:1].astype(dtype)
    exactly = np.float32(text) if "3.402" not in text else np.finfo(np.float32).min
    pixels[0, :5] = float(text) if dtype == "float64" else exactly
    pixels[0, 5] = 3.0e38
    write_nodata(tmp_path / "a.tif", pixels, text)
    valid = opened(tmp_path / "a.tif").valid
    assert not valid[:5].any() and valid[5:].all()


def test_each_band_has_its_own_nodata(tmp_path):
    pixels = NOISE.astype(np.int16)
    pixels[0, 0], pixels[1, 1], pixels[0, 2] = -1, -2, -2
    for index, nodata in enumerate((-1, -2, None)):
        write_tif(tmp_path / f"{index}.tif", pixels[index : index + 1], nodata=nodata)
    bands = "".join(
        f'<VRTRasterBand dataType="Int16" band="{i + 1}">{f"<NoDataValue>{n}</NoDataValue>" if n else ""}<SimpleSource>'
        f'<SourceFilename relativeToVRT="1">{i}.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand>"
        for i, n in enumerate((-1, -2, None))
    )
    (tmp_path / "a.vrt").write_text(f'<VRTDataset rasterXSize="50" rasterYSize="40">{bands}</VRTDataset>')
    valid = opened(tmp_path / "a.vrt").valid
    assert not valid[:2].any() and valid[2:].all()


def test_a_picture_saved_as_tiff_with_soft_edges_is_transparent(tmp_path):
    alpha = TRANSPARENT[0].copy()
    alpha[:, 30] = 128
    Image.fromarray(np.dstack([*NOISE, alpha])).save(tmp_path / "a.tif")
    raster = opened(tmp_path / "a.tif")
    assert raster.info.bands == 3 and np.array_equal(raster.valid, alpha > 0)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("colours", [1, 3])
def test_bands_of_a_png_that_are_wanted_are_read(tmp_path, wide, colours):
    pixels = np.concatenate([NOISE[:colours], NEAR_INFRARED]).astype(np.uint16 if wide else np.uint8)
    pixels *= 200 if wide else 1
    write_tif(tmp_path / "a.png", pixels, driver="PNG", crs=None, transform=None)
    raster = opened(tmp_path / "a.png", bands=tuple(range(1, colours + 2)))
    assert np.array_equal(raster.pixels, pixels) and raster.valid.all() and kinds(raster) == ["alpha-as-data"]
    others = opened(tmp_path / "a.png", bands=tuple(range(1, colours + 1)))
    assert np.array_equal(others.pixels, pixels[:-1]) and np.array_equal(others.valid, pixels[-1] > 0)
