"""Pictures and GeoTIFFs: what is read, and what each damaged file is told to be."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image
from rasterio.enums import ColorInterp

from segcore import formats
from segcore.errors import DataError
from segcore.formats import geotiff
from tests.tiny import write_tif

RNG = np.random.default_rng(0)
NOISE = RNG.integers(1, 250, (3, 40, 50)).astype(np.uint8)


def kind_of(path):
    """Kind and message of the error that reading a whole file gives."""
    with pytest.raises(DataError) as caught:
        formats.read(path)
    assert caught.value.what.startswith(path.name) and caught.value.remedy
    assert str(path.parent) not in caught.value.what and "\n" not in caught.value.what
    return caught.value.kind, caught.value.what


def save(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options)
    return path


# --- GeoTIFF ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
@pytest.mark.parametrize("bands", [1, 3, 7])
def test_geotiff_keeps_values_dtype_and_place(tmp_path, dtype, bands):
    pixels = RNG.integers(0, 100, (bands, 40, 50)).astype(dtype)
    write_tif(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=32)
    raster = formats.read(tmp_path / "a.tif")
    assert raster.pixels.dtype == dtype and np.array_equal(raster.pixels, pixels) and raster.valid.all()
    info = raster.info
    assert (info.height, info.width, info.bands, info.dtype) == (40, 50, bands, dtype)
    assert info.crs == "EPSG:32633" and info.transform == (0.5, 0, 500000, 0, -0.5, 5000000)
    assert info.block == (32, 16) and info.depth == 1


@pytest.mark.parametrize("name", ["a.tif", "a.vrt", "a.png"])
def test_windows_of_one_open_source_agree_with_the_whole(tmp_path, name):
    write_tif(tmp_path / "a.tif", NOISE)
    if name == "a.vrt":
        (tmp_path / name).write_text(vrt("a.tif"))
    if name == "a.png":
        save(tmp_path / name, np.moveaxis(NOISE, 0, -1))
    whole = formats.read(tmp_path / name)
    with formats.open_source(tmp_path / name) as source:
        assert source.info == whole.info and source.info.height == 40
        for window in [(0, 0, 40, 50), (3, 4, 5, 6), (39, 49, 1, 1), (10, 0, 1, 50)]:
            part = source.read(window)
            r, c, h, w = window
            assert np.array_equal(part.pixels, whole.pixels[:, r : r + h, c : c + w])
            assert part.pixels.shape == (3, h, w) and part.valid.shape == (h, w)
            assert part.info == whole.info, "the window's info is the whole file's"


def test_geotiff_without_georeference_is_an_ordinary_picture_and_warns_of_nothing(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, crs=None, transform=rasterio.Affine.identity())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = formats.info(tmp_path / "a.tif")
    assert info.crs is None and info.transform is None


def test_black_of_one_band_of_a_picture_is_no_nodata(tmp_path):
    pixels = NOISE.copy()
    pixels[:, :2] = 0
    pixels[0, 5] = 0
    write_tif(tmp_path / "a.tif", pixels, nodata=0)
    valid = formats.read(tmp_path / "a.tif").valid
    assert not valid[:2].any() and valid[2:].all()


def test_minus_9999_in_one_band_is_nodata(tmp_path):
    pixels = NOISE.astype(np.int16)
    pixels[1, 5] = -9999
    write_tif(tmp_path / "a.tif", pixels, nodata=-9999)
    raster = formats.read(tmp_path / "a.tif")
    assert not raster.valid[5].any() and raster.valid.sum() == 39 * 50 and raster.info.nodata == -9999


def test_nan_and_infinity_are_nodata_whatever_the_tag_says(tmp_path):
    pixels = NOISE.astype(np.float32)
    pixels[0, 0, 0], pixels[1, 0, 1], pixels[2, 0, 2], pixels[0, 0, 3] = np.nan, np.inf, -np.inf, -3.4e38
    write_tif(tmp_path / "a.tif", pixels, nodata=float(np.float32(-3.4e38)))
    valid = formats.read(tmp_path / "a.tif").valid
    assert not valid[0, :4].any() and valid.sum() == 40 * 50 - 4


def test_an_alpha_band_is_validity_and_no_band(tmp_path):
    alpha = np.full((1, 40, 50), 255, np.uint8)
    alpha[0, :7] = 0
    path = tmp_path / "a.tif"
    write_tif(path, np.concatenate([NOISE, alpha]), photometric="rgb", alpha="yes")
    with rasterio.open(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    raster = formats.read(path)
    assert raster.pixels.shape == (3, 40, 50) and raster.info.bands == 3
    assert not raster.valid[:7].any() and raster.valid[7:].all()


def test_an_internal_mask_is_validity(tmp_path):
    path = tmp_path / "a.tif"
    write_tif(path, NOISE)
    mask = np.full((40, 50), 255, np.uint8)
    mask[:, :9] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
        out.write_mask(mask)
    valid = formats.read(path).valid
    assert not valid[:, :9].any() and valid[:, 9:].all()


def test_a_palette_geotiff_gives_indices_and_its_colours(tmp_path):
    path = tmp_path / "a.tif"
    index = RNG.integers(0, 3, (1, 40, 50)).astype(np.uint8)
    write_tif(path, index, photometric="palette")
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (1, 2, 3)})
    raster = formats.read(path)
    assert np.array_equal(raster.pixels, index)
    assert raster.info.palette[:3] == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


def test_complex_values_are_refused_with_a_remedy(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE.astype(np.complex64))
    kind, what = kind_of(tmp_path / "a.tif")
    assert kind == "unreadable" and "complex64" in what


@pytest.mark.parametrize("compress", [None, "deflate", "lzw"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_geotiff_is_told_by_its_header_alone(tmp_path, compress, kept):
    path = tmp_path / "a.tif"
    write_tif(path, RNG.integers(0, 255, (3, 200, 200)).astype(np.uint8), compress=compress)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError) as caught:
        formats.info(path)
    assert caught.value.kind == "unreadable"
    if compress is None:
        assert f"truncated: {int(len(content) * kept)} bytes, header demands" in caught.value.what


def test_a_header_that_declares_a_huge_picture_is_told(tmp_path):
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
    """The bytes of a little-endian TIFF with other values in some tags of its first directory."""
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


def test_a_sparse_geotiff_is_sound(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=512, width=512, dtype="uint8", tiled=True,
        blockxsize=256, blockysize=256, sparse_ok=True,
    ) as out:  # fmt: skip
        out.write(np.ones((1, 256, 256), np.uint8), window=rasterio.windows.Window(0, 0, 256, 256))
    assert path.stat().st_size < 512 * 512 and formats.read(path).pixels.sum() == 256 * 256


def test_what_is_written_comes_back(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, nodata=0)
    like = formats.info(tmp_path / "a.tif")
    geotiff.write(tmp_path / "b.tif", NOISE[:1], like)
    back = formats.read(tmp_path / "b.tif")
    assert np.array_equal(back.pixels, NOISE[:1]) and back.info.transform == like.transform


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_jpeg_or_png_under_the_ending_tif_is_read(tmp_path, form):
    Image.fromarray(np.moveaxis(NOISE, 0, -1)).save(tmp_path / "a.tif", form)
    raster = formats.read(tmp_path / "a.tif")
    assert raster.pixels.shape == (3, 40, 50) and raster.info.crs is None
    assert np.array_equal(raster.pixels, NOISE) == (form == "PNG")


@pytest.mark.parametrize(
    "start", [b"GIF89a", b"BM", b"\x89HDF", b"<GDAL_WMS>", b"{", b"not a picture at all"]
)
def test_nothing_else_under_the_ending_tif_is_opened(tmp_path, start):
    (tmp_path / "a.tif").write_bytes(start + bytes(500))
    assert kind_of(tmp_path / "a.tif")[0] == "unreadable"


# --- VRT -------------------------------------------------------------------------------------------------------


def vrt(name, extra="", inner="", band="", relative=1):
    source = (
        f'<SimpleSource><SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>%d</SourceBand>'
        '<SrcRect xOff="0" yOff="0" xSize="50" ySize="40"/><DstRect xOff="0" yOff="0" xSize="50" ySize="40"/>'
        f"{inner}</SimpleSource>"
    )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{i}" {band}>{source % i}</VRTRasterBand>' for i in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="50" rasterYSize="40">{extra}{bands}</VRTDataset>'


def test_a_vrt_reads_the_files_of_its_own_folders(tmp_path):
    write_tif(tmp_path / "tiles" / "a b.tif", NOISE)
    (tmp_path / "a.vrt").write_text(vrt("tiles/a b.tif"))
    assert np.array_equal(formats.read(tmp_path / "a.vrt").pixels, NOISE)
    assert geotiff.sources(tmp_path / "a.vrt") == [(tmp_path / "tiles" / "a b.tif").resolve()]


OUTSIDE = {
    "parent folder": {"name": "../a.tif"},
    "absolute path": {"name": "/etc/hostname", "relative": 0},
    "network": {"name": "/vsicurl/http://localhost/a.tif", "relative": 0},
    "archive": {"name": "/vsizip/in.zip/a.tif", "relative": 0},
    "relative network": {"name": "/vsicurl/http://localhost/a.tif"},
    "url": {"name": "http://localhost/a.tif", "relative": 0},
    "nested": {"name": "&lt;VRTDataset/&gt;", "relative": 0},
    "no tiff": {"name": "notes.txt"},
    "other vrt": {"name": "other.vrt"},
    "python": {"name": "in.tif", "band": 'subClass="VRTDerivedRasterBand"'},
    "python function": {"name": "in.tif", "extra": "<PixelFunctionCode>import os</PixelFunctionCode>"},
    "raw band": {"name": "in.tif", "band": 'subClass="VRTRawRasterBand"'},
    "options": {"name": "in.tif", "inner": '<OpenOptions><OOI key="A">B</OOI></OpenOptions>'},
    "entity": {"name": "in.tif", "extra": "<!-- --><!DOCTYPE a>"},
    "attribute": {"name": "in.tif", "inner": '<NODATA SourceFilename="/etc/hostname">0</NODATA>'},
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_vrt_that_leaves_its_folder_or_runs_code_is_refused(tmp_path, case):
    folder = tmp_path / "in"
    write_tif(tmp_path / "a.tif", NOISE)
    write_tif(folder / "in.tif", NOISE)
    (folder / "notes.txt").write_text("text")
    (folder / "other.vrt").write_text(vrt("in.tif"))
    (folder / "a.vrt").write_text(vrt(**OUTSIDE[case]))
    assert kind_of(folder / "a.vrt")[0] == "outside"


def test_a_link_out_of_a_vrts_folder_is_refused(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.tif").symlink_to(tmp_path / "a.tif")
    (tmp_path / "in" / "a.vrt").write_text(vrt("link.tif"))
    assert kind_of(tmp_path / "in" / "a.vrt")[0] == "outside"


def test_entities_are_never_expanded(tmp_path):
    bomb = '<!DOCTYPE V [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]>' + vrt("&b;")
    (tmp_path / "a.vrt").write_text(bomb)
    assert kind_of(tmp_path / "a.vrt") == ("outside", "a.vrt: declares XML entities")


def test_a_missing_source_of_a_vrt_is_named(tmp_path):
    (tmp_path / "a.vrt").write_text(vrt("gone.tif"))
    kind, what = kind_of(tmp_path / "a.vrt")
    assert kind == "unreadable" and "gone.tif is missing" in what


@pytest.mark.parametrize("text", ["<VRTDataset", "<html></html>", "no xml", "\udcff", "<VRTDataset/>"])
def test_what_is_no_vrt_is_unreadable(tmp_path, text):
    (tmp_path / "a.vrt").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert kind_of(tmp_path / "a.vrt")[0] == "unreadable"


# --- Pictures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".bmp", ".ppm", ".webp", ".PNG"])
def test_pictures_without_loss_keep_their_values(tmp_path, ending):
    path = save(
        tmp_path / f"a{ending}", np.moveaxis(NOISE, 0, -1), **({"lossless": True} if "w" in ending else {})
    )
    raster = formats.read(path)
    assert np.array_equal(raster.pixels, NOISE) and raster.valid.all()
    assert raster.info.crs is None and raster.info.transform is None


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".JPG"])
def test_jpegs_are_images_and_keep_their_stored_orientation(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / f"a{ending}", np.moveaxis(NOISE, 0, -1), exif=exif)
    raster = formats.read(tmp_path / f"a{ending}")
    assert raster.pixels.shape == (3, 40, 50) and raster.pixels.dtype == np.uint8


@pytest.mark.parametrize("ending", [".png", ".pgm"])
def test_16_bits_stay_16_bits(tmp_path, ending):
    grey = RNG.integers(0, 65535, (40, 50)).astype(np.uint16)
    raster = formats.read(save(tmp_path / f"a{ending}", grey))
    assert raster.info.dtype == "uint16" and np.array_equal(raster.pixels[0], grey)


@pytest.mark.parametrize("driver", ["PNG", "PNM"])
def test_16_bit_colours_are_not_cut_to_8(tmp_path, driver):
    pixels = RNG.integers(0, 65535, (3, 40, 50)).astype(np.uint16)
    path = tmp_path / ("a.png" if driver == "PNG" else "a.ppm")
    write_tif(tmp_path / "t.tif", pixels, crs=None, transform=rasterio.Affine.identity())
    rasterio.shutil.copy(tmp_path / "t.tif", path, driver=driver)
    raster = formats.read(path, (1, 2, 10, 20))
    assert raster.pixels.dtype == np.uint16 and np.array_equal(raster.pixels, pixels[:, 1:11, 2:22])
    assert raster.info.bands == 3 and raster.info.height == 40


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("most", [3, 255, 1000, 65535])
def test_pgm_values_are_not_stretched(tmp_path, most, plain):
    values = RNG.integers(0, most + 1, (8, 9)).astype(np.uint8 if most < 256 else ">u2")
    values.flat[0] = most
    body = " ".join(map(str, values.ravel())).encode() if plain else values.tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P%d\n9 8\n%d\n" % (2 if plain else 5, most) + body)
    assert np.array_equal(formats.read(tmp_path / "a.pgm").pixels[0], values)


def test_one_bit_gives_0_and_255(tmp_path):
    Image.fromarray(NOISE[0] > 100).save(tmp_path / "a.png")
    raster = formats.read(tmp_path / "a.png")
    assert set(np.unique(raster.pixels)) == {0, 255} and raster.info.dtype == "uint8"
    assert np.array_equal(raster.pixels[0] == 255, NOISE[0] > 100)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_picture_gives_indices_and_colours_and_stays_valid(tmp_path, ending, transparent):
    index = RNG.integers(0, 3, (40, 50)).astype(np.uint8)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 1, 2, 3])
    picture.save(tmp_path / f"a{ending}", **({"transparency": 0} if transparent else {}))
    raster = formats.read(tmp_path / f"a{ending}")
    assert np.array_equal(raster.pixels[0], index) and raster.valid.all()
    assert raster.info.palette[:3] == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_becomes_validity(tmp_path, mode):
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:4] = 0
    colours = NOISE if mode == "RGBA" else NOISE[:1]
    save(tmp_path / "a.png", np.moveaxis(np.stack([*colours, alpha]), 0, -1))
    raster = formats.read(tmp_path / "a.png")
    assert raster.info.bands == len(colours) == len(raster.pixels)
    assert not raster.valid[:4].any() and raster.valid[4:].all() and np.array_equal(raster.pixels, colours)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_transparent_colour_is_nodata(tmp_path, bands):
    pixels = NOISE[:bands].copy()
    pixels[:, :4] = 0
    array = pixels[0] if bands == 1 else np.moveaxis(pixels, 0, -1)
    save(tmp_path / "a.png", array, transparency=0 if bands == 1 else (0, 0, 0))
    raster = formats.read(tmp_path / "a.png")
    assert not raster.valid[:4].any() and raster.valid[4:].all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colours_become_rgb(tmp_path, mode):
    Image.fromarray(np.moveaxis(NOISE, 0, -1)).convert(mode).save(tmp_path / "a.jpg")
    raster = formats.read(tmp_path / "a.jpg")
    assert raster.info.bands == 3 and raster.pixels.shape == (3, 40, 50)


def test_animations_are_refused(tmp_path):
    frames = [Image.fromarray(NOISE[i]) for i in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    kind, what = kind_of(tmp_path / "a.png")
    assert kind == "unusable" and "3 frames" in what


def test_the_preview_in_a_cameras_jpeg_is_passed_over(tmp_path):
    frames = [Image.fromarray(np.moveaxis(NOISE, 0, -1)), Image.new("RGB", (5, 4))]
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert formats.read(tmp_path / "a.jpg").pixels.shape == (3, 40, 50)


def test_a_picture_of_another_format_is_told(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert kind_of(tmp_path / "a.png") == (
        "unreadable", "a.png: cannot be read (is a GIF, not what its ending says)"
    )  # fmt: skip


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    for side in (17_000, 60_000, 2**31 - 1):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        )
        with pytest.raises(DataError) as caught:
            formats.info(tmp_path / "a.png")
        assert caught.value.kind == "too-large"


# --- Any format ------------------------------------------------------------------------------------------------

ENDINGS = [".png", ".jpg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".vrt"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_empty_file_is_told(tmp_path, ending):
    (tmp_path / f"a{ending}").touch()
    assert kind_of(tmp_path / f"a{ending}")[0] == "empty-file"


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_file_is_unreadable(tmp_path, ending):
    assert kind_of(tmp_path / f"a{ending}")[0] == "unreadable"


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_file_that_may_not_be_read_is_told(tmp_path, ending):
    path = sound_file(tmp_path, ending)
    formats.read(path)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        assert kind_of(path)[0] == "no-permission"
    finally:
        os.seteuid(user)


def sound_file(folder, ending):
    path = folder / f"a{ending}"
    if ending == ".tif":
        write_tif(path, NOISE, compress="deflate")
    elif ending == ".pgm":
        save(path, NOISE[0])
    else:
        save(path, np.moveaxis(NOISE, 0, -1))
    return path


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e != ".vrt"])
def test_truncated_files_are_unreadable(tmp_path, ending):
    path = sound_file(tmp_path, ending)
    content = path.read_bytes()
    for share in (0.01, 0.1, 0.5, 0.9):
        path.write_bytes(content[: max(1, int(len(content) * share))])
        assert kind_of(path)[0] == "unreadable", share


@pytest.mark.parametrize("ending", [e for e in ENDINGS if e != ".vrt"])
def test_damaged_bytes_give_pixels_or_a_data_error_and_nothing_else(tmp_path, ending):
    path = sound_file(tmp_path, ending)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    failed = 0
    for i in range(60):
        damaged = bytearray(content)
        places = rng.integers(0, 64 if i % 2 else len(content), 6)
        for place in places:
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            raster = formats.read(path)
            assert raster.valid.shape == raster.pixels.shape[1:] == (raster.info.height, raster.info.width)
        except DataError as error:
            assert error.kind in ("unreadable", "too-large", "unusable")
            failed += 1
    assert failed, "some damage must show"


def test_names_with_odd_characters_are_read(tmp_path):
    for name in (
        "a b.tif",
        "a#b.tif",
        "a?b.tif",
        "zip+a!b.tif",
        "ä%20.tif",
        "图.tif",
        "a:b,c;d&e.tif",
        "'\".tif",
    ):
        write_tif(tmp_path / name, NOISE)
        assert np.array_equal(formats.read(tmp_path / name).pixels, NOISE)
        save(tmp_path / f"{name}.png", NOISE[0])
        assert np.array_equal(formats.read(tmp_path / f"{name}.png").pixels[0], NOISE[0])
