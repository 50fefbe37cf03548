"""GeoTIFF: values, validity and georeference, and the errors of damaged files."""

import struct
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import ColorInterp

from segcore.errors import DataError
from segcore.io import images
from segcore.io.images import geotiff
from tests.support.images import NOISE, RNG, kind_of
from tests.support.tiny import write_tif


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("bands", [1, 3, 7])
def test_geotiff_keeps_values_dtype_and_georeference(tmp_path, dtype, bands):
    pixels = RNG.integers(0, 100, (bands, 40, 50)).astype(dtype)
    write_tif(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=32)
    raster = images.read(tmp_path / "a.tif")
    assert raster.pixels.dtype == dtype and np.array_equal(raster.pixels, pixels) and raster.valid.all()
    info = raster.info
    assert (info.height, info.width, info.bands, info.dtype) == (40, 50, bands, dtype)
    assert info.crs == "EPSG:32633" and info.transform == (0.5, 0, 500000, 0, -0.5, 5000000)
    assert info.block == (32, 16) and info.depth == 1


def test_geotiff_without_georeference_is_read_without_a_warning(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, crs=None, transform=rasterio.Affine.identity())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = images.info(tmp_path / "a.tif")
    assert info.crs is None and info.transform is None


def test_black_in_one_band_of_a_picture_is_valid(tmp_path):
    pixels = NOISE.copy()
    pixels[:, :2] = 0
    pixels[0, 5] = 0
    write_tif(tmp_path / "a.tif", pixels, nodata=0)
    valid = images.read(tmp_path / "a.tif").valid
    assert not valid[:2].any() and valid[2:].all()


def test_minus_9999_in_one_band_is_nodata(tmp_path):
    pixels = NOISE.astype(np.int16)
    pixels[1, 5] = -9999
    write_tif(tmp_path / "a.tif", pixels, nodata=-9999)
    raster = images.read(tmp_path / "a.tif")
    assert not raster.valid[5].any() and raster.valid.sum() == 39 * 50 and raster.info.nodata == -9999


def test_nan_and_infinity_are_nodata_whatever_the_tag_says(tmp_path):
    pixels = NOISE.astype(np.float32)
    pixels[0, 0, 0], pixels[1, 0, 1], pixels[2, 0, 2], pixels[0, 0, 3] = np.nan, np.inf, -np.inf, -3.4e38
    write_tif(tmp_path / "a.tif", pixels, nodata=float(np.float32(-3.4e38)))
    valid = images.read(tmp_path / "a.tif").valid
    assert not valid[0, :4].any() and valid.sum() == 40 * 50 - 4


def test_an_alpha_band_is_validity_and_not_a_band(tmp_path):
    alpha = np.full((1, 40, 50), 255, np.uint8)
    alpha[0, :7] = 0
    path = tmp_path / "a.tif"
    write_tif(path, np.concatenate([NOISE, alpha]), photometric="rgb", alpha="yes")
    with rasterio.open(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    raster = images.read(path)
    assert raster.pixels.shape == (3, 40, 50) and raster.info.bands == 3
    assert not raster.valid[:7].any() and raster.valid[7:].all()


def test_an_internal_mask_is_validity(tmp_path):
    path = tmp_path / "a.tif"
    write_tif(path, NOISE)
    mask = np.full((40, 50), 255, np.uint8)
    mask[:, :9] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(mask)
    valid = images.read(path).valid
    assert not valid[:, :9].any() and valid[:, 9:].all()


def test_a_palette_geotiff_gives_indices_and_its_colours(tmp_path):
    path = tmp_path / "a.tif"
    index = RNG.integers(0, 3, (1, 40, 50)).astype(np.uint8)
    write_tif(path, index, photometric="palette")
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (1, 2, 3)})
    raster = images.read(path)
    assert np.array_equal(raster.pixels, index)
    assert raster.info.palette[:3] == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


def test_complex_values_are_refused_with_a_remedy(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE.astype(np.complex64))
    kind, what = kind_of(tmp_path / "a.tif")
    assert kind == "unreadable" and "complex64" in what


@pytest.mark.parametrize("compress", [None, "deflate", "lzw"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_geotiff_is_recognised_by_its_header_alone(tmp_path, compress, kept):
    path = tmp_path / "a.tif"
    write_tif(path, RNG.integers(0, 255, (3, 200, 200)).astype(np.uint8), compress=compress)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError) as caught:
        images.info(path)
    assert caught.value.kind == "unreadable"
    if compress is None:
        assert f"truncated: {int(len(content) * kept)} bytes, header requires" in caught.value.what


def test_a_header_that_declares_a_huge_picture_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=100, width=100, dtype="uint8", compress="deflate"
    ) as out:
        out.write(NOISE[:1, :40, :50].repeat(3, 1)[:, :100].repeat(2, 2)[:, :, :100])
    content = bytearray(path.read_bytes())
    changed = set_tag(content, {256: 2**30, 257: 2**30, 278: 2**30})
    path.write_bytes(changed)
    kind, what = kind_of(path)
    assert kind == "too-large" and str(2**30) in what


def set_tag(content, values):
    """Bytes of a little-endian TIFF with changed values of tags in its first directory."""
    at = struct.unpack_from("<I", content, 4)[0]
    for i in range(struct.unpack_from("<H", content, at)[0]):
        entry = at + 2 + 12 * i
        tag = struct.unpack_from("<H", content, entry)[0]
        if tag in values:
            struct.pack_into("<HHII", content, entry, tag, 4, 1, values[tag])
    return bytes(content)


def test_damaged_pixels_fail_when_they_are_read(tmp_path):
    path = tmp_path / "a.tif"
    write_tif(path, RNG.integers(0, 255, (1, 400, 400)).astype(np.uint8), compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    kind, _ = kind_of(path)
    assert kind == "unreadable"


def test_a_damaged_mask_fails_too(tmp_path):
    path = tmp_path / "a.tif"
    write_tif(path, NOISE)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(RNG.integers(0, 2, (40, 50)).astype(np.uint8) * 255)
    content = path.read_bytes()
    path.write_bytes(content[:-60] + bytes(60))
    assert kind_of(path)[0] == "unreadable"


def test_a_sparse_geotiff_is_read(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=512, width=512, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, sparse_ok=True,
    ) as out:  # fmt: skip
        out.write(np.ones((1, 256, 256), np.uint8), window=rasterio.windows.Window(0, 0, 256, 256))
    assert path.stat().st_size < 512 * 512 and images.read(path).pixels.sum() == 256 * 256


def test_a_written_geotiff_is_read_back_unchanged(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, nodata=0)
    like = images.info(tmp_path / "a.tif")
    geotiff.write(tmp_path / "b.tif", NOISE[:1], like)
    back = images.read(tmp_path / "b.tif")
    assert np.array_equal(back.pixels, NOISE[:1]) and back.info.transform == like.transform


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_jpeg_or_png_with_the_extension_tif_is_read(tmp_path, form):
    Image.fromarray(np.moveaxis(NOISE, 0, -1)).save(tmp_path / "a.tif", form)
    raster = images.read(tmp_path / "a.tif")
    assert raster.pixels.shape == (3, 40, 50) and raster.info.crs is None
    assert np.array_equal(raster.pixels, NOISE) == (form == "PNG")


@pytest.mark.parametrize(
    "start", [b"GIF89a", b"BM", b"\x89HDF", b"<GDAL_WMS>", b"{", b"not a picture at all"]
)
def test_no_other_content_with_the_extension_tif_is_opened(tmp_path, start):
    (tmp_path / "a.tif").write_bytes(start + bytes(500))
    assert kind_of(tmp_path / "a.tif")[0] == "unreadable"
