"""What files declare about their values: alpha and transparent colours of pictures, scales, MinIsWhite, CMYK."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from segcore.io import images
from tests.support.images import NOISE, RNG
from tests.support.tiny import write_tif

# near infrared is 0 on water
WATER = np.zeros((40, 50), bool)
WATER[:, :10] = True
NEAR_INFRARED = np.where(WATER, 0, RNG.integers(1, 250, WATER.shape)).astype(np.uint8)[None]
CLEAR = np.where(WATER, 0, 255).astype(np.uint8)[None]


def opened(path, **options):
    with images.open_source(path, **options) as source:
        return source.read()


def notes(raster):
    return dict(raster.info.notes)


def picture(path, bands, **options):
    Image.fromarray(np.ascontiguousarray(np.moveaxis(bands, 0, -1))).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("ending", "colours"), [(".png", 1), (".png", 3), (".webp", 3), ("16.png", 1), ("16.png", 3)]
)
def test_a_band_of_data_that_a_picture_calls_alpha_is_read(tmp_path, ending, colours):
    bands = np.concatenate([NOISE[:colours], NEAR_INFRARED])
    path = tmp_path / f"a{ending}"
    if ending == "16.png":
        bands = bands.astype(np.uint16) * 200
        write_tif(path, bands, driver="PNG", crs=None, transform=None)
    else:
        picture(path, bands, **({"lossless": True, "exact": True} if ending == ".webp" else {}))
    raster = opened(path)
    assert raster.info.bands == colours + 1 and np.array_equal(raster.pixels, bands) and raster.valid.all()
    assert (
        f"band {colours + 1}, which the file calls alpha, is read as data" in notes(raster)["alpha-as-data"]
    )


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("wide", [False, True])
def test_transparency_of_a_picture_is_noted_where_it_hides_pixels(tmp_path, wide, colours):
    for name, alpha in (("clear", CLEAR), ("opaque", np.full_like(CLEAR, 255))):
        bands = np.concatenate([NOISE[:colours], alpha])
        path = tmp_path / f"{name}.png"
        if wide:
            write_tif(path, bands.astype(np.uint16) * 257, driver="PNG", crs=None, transform=None)
        else:
            picture(path, bands)
        raster = opened(path)
        assert raster.info.bands == colours and np.array_equal(raster.valid, alpha[0] > 0)
        assert set(notes(raster)) == ({"alpha-band"} if name == "clear" else set())


def test_half_transparent_labels_of_a_picture_stay_labels(tmp_path):
    overlay = np.where(WATER, 0, 128).astype(np.uint8)[None]
    path = picture(tmp_path / "a.png", np.concatenate([NOISE, overlay]))
    assert opened(path).info.bands == 4
    raster = opened(path, bands=images.LABELS)
    assert np.array_equal(raster.pixels, NOISE) and np.array_equal(raster.valid, ~WATER)


def test_a_transparent_colour_is_noted(tmp_path):
    colours = NOISE.copy()
    colours[:, WATER] = np.array([1, 2, 3])[:, None]
    path = picture(tmp_path / "a.png", colours, transparency=(1, 2, 3))
    raster = opened(path)
    assert np.array_equal(raster.valid, ~(colours == [[[1]], [[2]], [[3]]]).all(axis=0))
    assert "(1, 2, 3)" in notes(raster)["transparent"]


@pytest.mark.parametrize("values", [np.uint8, np.uint16])
def test_grey_whose_0_is_white_is_inverted_except_in_masks(tmp_path, values):
    stored = NOISE[:1].astype(values)
    write_tif(tmp_path / "a.tif", stored, photometric="MINISWHITE", nodata=7)
    raster = opened(tmp_path / "a.tif")
    most = np.iinfo(values).max
    assert np.array_equal(raster.pixels, most - stored) and raster.pixels.dtype == values
    assert np.array_equal(raster.valid, stored[0] != 7) and raster.info.nodata == most - 7
    assert "MinIsWhite" in notes(raster)["scaled"]
    if values == np.uint8:
        shown = np.asarray(Image.open(tmp_path / "a.tif"))
        assert np.array_equal(raster.pixels[0], shown)
    mask = opened(tmp_path / "a.tif", bands=images.LABELS)
    assert np.array_equal(mask.pixels, stored) and mask.info.nodata == 7
    assert "MinIsWhite" in notes(mask)["scale-ignored"] and "scaled" not in notes(mask)


def test_the_palette_of_one_bit_shows_0_as_white(tmp_path):
    stored = (NOISE[:1] > 100).astype(np.uint8)
    write_tif(tmp_path / "a.tif", stored, photometric="MINISWHITE", nbits=1)
    raster = opened(tmp_path / "a.tif")
    assert np.array_equal(raster.pixels, stored) and notes(raster) == {}
    assert raster.info.palette == ((255, 255, 255), (0, 0, 0))


def test_inversion_knows_the_number_of_bits(tmp_path):
    stored = RNG.integers(0, 4096, (1, 40, 50)).astype(np.uint16)
    write_tif(tmp_path / "a.tif", stored, photometric="MINISWHITE", nbits=12)
    assert np.array_equal(opened(tmp_path / "a.tif").pixels, 4095 - stored)


def test_pages_whose_0_is_white_are_inverted_except_in_masks(tmp_path):
    frames = [Image.fromarray(255 - band) for band in NOISE]
    # Pillow inverts what it stores.
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:], tiffinfo={262: 0})
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["MINISWHITE"] == "YES"
        stored = file.read(1)
    for bands, first in ((None, 255 - stored), (images.LABELS, stored)):
        raster = opened(tmp_path / "a.tif", pages="channels", bands=bands)
        assert raster.info.bands == 3 and np.array_equal(raster.pixels[0], first)


def test_scale_and_offset_are_noted_and_stored_values_are_read(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    assert notes(opened(tmp_path / "a.tif")) == {}
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.scales, file.offsets = (1e-4,) * 3, (-0.1,) * 3
    raster = opened(tmp_path / "a.tif")
    assert np.array_equal(raster.pixels, NOISE)
    assert notes(raster)["scale-ignored"].endswith("not applied: x 0.0001 - 0.1")
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.scales, file.offsets = (1, 1, 0.5), (0, 0, 3)
    text = notes(opened(tmp_path / "a.tif"))["scale-ignored"]
    assert text.endswith("band 1 x 1 + 0, band 2 x 1 + 0, band 3 x 0.5 + 3")


def test_cmyk_of_a_tiff_has_the_colours_of_pillow_and_no_alpha(tmp_path):
    picture = Image.fromarray(RNG.integers(0, 256, (40, 50, 4)).astype(np.uint8), "CMYK")
    picture.save(tmp_path / "a.tif")
    raster = opened(tmp_path / "a.tif")
    expected = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    # GDAL and Pillow round differently.
    assert raster.pixels.shape == expected.shape
    assert np.abs(raster.pixels.astype(int) - expected).max() <= 1
    assert raster.valid.all() and raster.info.notes == ()


@pytest.mark.parametrize(
    ("ending", "like"), [(".jfif", ".jpg"), (".jpe", ".jpg"), (".pbm", ".ppm"), (".pnm", ".ppm")]
)
def test_other_endings_of_pictures(tmp_path, ending, like):
    Image.fromarray(NOISE[0] > 100 if ending == ".pbm" else NOISE[0]).save(
        tmp_path / f"a{like}", format={".jpg": "JPEG", ".ppm": "PPM"}[like]
    )
    expected = images.read(tmp_path / f"a{like}")
    (tmp_path / f"a{like}").rename(tmp_path / f"a{ending}")
    raster = images.read(tmp_path / f"a{ending}")
    assert np.array_equal(raster.pixels, expected.pixels)
    if ending == ".pbm":
        assert np.array_equal(raster.pixels[0], np.where(NOISE[0] > 100, 255, 0))
