"""PNG, JPEG and other pictures: values and validity, and the errors of unusable files."""

import struct
import zlib

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from PIL import Image

from segcore.errors import DataError
from segcore.io import images
from tests.support.images import NOISE, RNG, kind_of, save
from tests.support.tiny import write_tif


@pytest.mark.parametrize("extension", [".png", ".bmp", ".ppm", ".webp", ".PNG"])
def test_lossless_pictures_keep_their_values(tmp_path, extension):
    path = save(
        tmp_path / f"a{extension}",
        np.moveaxis(NOISE, 0, -1),
        **({"lossless": True} if "w" in extension else {}),
    )
    raster = images.read(path)
    assert np.array_equal(raster.pixels, NOISE) and raster.valid.all()
    assert raster.info.crs is None and raster.info.transform is None


@pytest.mark.parametrize("extension", [".png", ".pgm"])
def test_16_bit_grey_stays_16_bits(tmp_path, extension):
    grey = RNG.integers(0, 65535, (40, 50)).astype(np.uint16)
    raster = images.read(save(tmp_path / f"a{extension}", grey))
    assert raster.info.dtype == "uint16" and np.array_equal(raster.pixels[0], grey)


@pytest.mark.parametrize("driver", ["PNG", "PNM"])
def test_16_bit_colours_are_not_cut_to_8_bits(tmp_path, driver):
    pixels = RNG.integers(0, 65535, (3, 40, 50)).astype(np.uint16)
    path = tmp_path / ("a.png" if driver == "PNG" else "a.ppm")
    write_tif(tmp_path / "t.tif", pixels, crs=None, transform=rasterio.Affine.identity())
    rasterio.shutil.copy(tmp_path / "t.tif", path, driver=driver)
    raster = images.read(path, (1, 2, 10, 20))
    assert raster.pixels.dtype == np.uint16 and np.array_equal(raster.pixels, pixels[:, 1:11, 2:22])
    assert raster.info.bands == 3 and raster.info.height == 40


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("most", [3, 255, 1000, 65535])
def test_pgm_values_are_not_stretched(tmp_path, most, plain):
    values = RNG.integers(0, most + 1, (8, 9)).astype(np.uint8 if most < 256 else ">u2")
    values.flat[0] = most
    body = " ".join(map(str, values.ravel())).encode() if plain else values.tobytes()
    (tmp_path / "a.pgm").write_bytes(b"P%d\n9 8\n%d\n" % (2 if plain else 5, most) + body)
    assert np.array_equal(images.read(tmp_path / "a.pgm").pixels[0], values)


def test_one_bit_gives_0_and_255(tmp_path):
    Image.fromarray(NOISE[0] > 100).save(tmp_path / "a.png")
    raster = images.read(tmp_path / "a.png")
    assert set(np.unique(raster.pixels)) == {0, 255} and raster.info.dtype == "uint8"
    assert np.array_equal(raster.pixels[0] == 255, NOISE[0] > 100)


@pytest.mark.parametrize("extension", [".png", ".bmp"])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_picture_gives_indices_and_colours_and_stays_valid(tmp_path, extension, transparent):
    index = RNG.integers(0, 3, (40, 50)).astype(np.uint8)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 1, 2, 3])
    picture.save(tmp_path / f"a{extension}", **({"transparency": 0} if transparent else {}))
    raster = images.read(tmp_path / f"a{extension}")
    assert np.array_equal(raster.pixels[0], index) and raster.valid.all()
    assert raster.info.palette[:3] == ((0, 0, 0), (255, 0, 0), (1, 2, 3))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_becomes_validity(tmp_path, mode):
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:4] = 0
    colours = NOISE if mode == "RGBA" else NOISE[:1]
    save(tmp_path / "a.png", np.moveaxis(np.stack([*colours, alpha]), 0, -1))
    raster = images.read(tmp_path / "a.png")
    assert raster.info.bands == len(colours) == len(raster.pixels)
    assert not raster.valid[:4].any() and raster.valid[4:].all() and np.array_equal(raster.pixels, colours)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_transparent_colour_is_nodata(tmp_path, bands):
    pixels = NOISE[:bands].copy()
    pixels[:, :4] = 0
    array = pixels[0] if bands == 1 else np.moveaxis(pixels, 0, -1)
    save(tmp_path / "a.png", array, transparency=0 if bands == 1 else (0, 0, 0))
    raster = images.read(tmp_path / "a.png")
    assert not raster.valid[:4].any() and raster.valid[4:].all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_other_colours_become_rgb(tmp_path, mode):
    Image.fromarray(np.moveaxis(NOISE, 0, -1)).convert(mode).save(tmp_path / "a.jpg")
    raster = images.read(tmp_path / "a.jpg")
    assert raster.info.bands == 3 and raster.pixels.shape == (3, 40, 50)


def test_animations_without_data_pages_are_refused(tmp_path):
    frames = [Image.fromarray(NOISE[i]) for i in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    kind, what = kind_of(tmp_path / "a.png")
    assert kind == "pages" and "3 frames" in what


@pytest.mark.parametrize("extension", [".png", ".gif", ".webp"])
def test_frames_of_an_animation_are_planes_or_channels(tmp_path, extension):
    path, (planes, height, width) = tmp_path / f"a{extension}", NOISE.shape
    frames = [Image.fromarray(plane) for plane in NOISE]
    more = {"lossless": True} if extension == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    with images.open_source(path, pages="planes") as source:
        info = source.info
        assert (info.depth, info.bands, info.height, info.width) == (planes, 1, height, width)
        read = [source.read(plane=i).pixels[0] for i in range(planes)]
        assert source.read((3, 4, 5, 6), 1).pixels[0].tolist() == NOISE[1, 3:8, 4:10].tolist()
    np.testing.assert_array_equal(read, NOISE)
    with images.open_source(path, pages="channels") as source:
        np.testing.assert_array_equal(source.read().pixels, NOISE)
        assert source.info.notes[0][0] == "pages-read"


def test_values_of_a_grey_gif_are_those_that_viewers_show(tmp_path):
    values = np.where(NOISE[0] > 99, 255, 0).astype(np.uint8)
    raster = images.read(save(tmp_path / "a.gif", values))
    assert raster.info.palette is None and raster.info.bands == 1
    np.testing.assert_array_equal(raster.pixels[0], values)


def test_a_coloured_gif_keeps_its_palette(tmp_path):
    picture = Image.fromarray(NOISE[0] % 3, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.gif")
    raster = images.read(tmp_path / "a.gif")
    colours = np.array(raster.info.palette)[raster.pixels[0]]
    np.testing.assert_array_equal(colours, np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]])[NOISE[0] % 3])


def test_the_preview_in_a_cameras_jpeg_is_skipped(tmp_path):
    frames = [Image.fromarray(np.moveaxis(NOISE, 0, -1)), Image.new("RGB", (5, 4))]
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert images.read(tmp_path / "a.jpg").pixels.shape == (3, 40, 50)


def test_a_picture_of_another_format_is_named(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert kind_of(tmp_path / "a.png") == (
        "unreadable", "a.png: cannot be read (is a GIF, which does not match its file extension)"
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
            images.info(tmp_path / "a.png")
        assert caught.value.kind == "too-large"
