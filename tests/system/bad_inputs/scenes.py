"""Bad GeoTIFF and VRT scenes."""

import struct
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.control import GroundControlPoint

from tests.support.tiff import write_tiff
from tests.support.tiny import blobs, write_tif
from tests.system.bad_inputs.case import DataSet, Pair, cut, scramble

SIDE = 64


def place(seed: int, x: float = 0) -> rasterio.Affine:
    """Transform of the scene of a seed, each in another place, in metres of EPSG:32633."""
    return rasterio.Affine(0.5, 0, 400_000 + 100 * seed + x, 0, -0.5, 5_000_000)


def content(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Image (3, 64, 64) and mask (1, 64, 64) with 0 and 255, both uint8."""
    image, mask = blobs(SIDE, SIDE, seed=pair.seed)
    return np.moveaxis(image, -1, 0).copy(), mask[None] * 255


def pair(folder: Path, name: str, seed: int) -> Pair:
    made = Pair(folder / "images" / f"{name}.tif", folder / "masks" / f"{name}_m.tif", seed)
    image, mask = content(made)
    write_tif(made.image, image, transform=place(seed))
    write_tif(made.mask, mask, transform=place(seed))
    return made


SCENES = DataSet(
    "scenes", pair, {"images": "images/{file}", "masks": "masks/{stem}_m.*", "label_values": {0: 0, 255: 1}}
)
case = SCENES.case


def image_as(pair: Pair, pixels: np.ndarray | None = None, **profile: object) -> None:
    pixels = content(pair)[0] if pixels is None else pixels
    write_tif(pair.image, pixels, **{"transform": place(pair.seed), **profile})


def mask_as(pair: Pair, pixels: np.ndarray | None = None, **profile: object) -> None:
    pixels = content(pair)[1] if pixels is None else pixels
    write_tif(pair.mask, pixels, **{"transform": place(pair.seed), **profile})


def tiff(width: int, height: int, samples: int = 1, **more: int) -> bytes:
    """A little-endian 8-bit TIFF with one strip of 8 bytes; `more` are further tags by number."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: samples, 278: height, 279: 8}
    tags |= {int(k): v for k, v in more.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", len(tags)) + entries + bytes(4)


def vrt(name: str, body: str = "", size: int = SIDE) -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{b}"><SimpleSource><SourceFilename relativeToVRT="1">{name}'
        f"</SourceFilename><SourceBand>{b}</SourceBand></SimpleSource></VRTRasterBand>"
        for b in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">{body or bands}</VRTDataset>'


@case("unreadable", "truncated")
def truncated_tiff(pair):
    cut(pair.image)


@case("unreadable", "cannot be read")
def truncated_tiff_header(pair):
    cut(pair.image, 0.001)


@case("unreadable", "cannot be read")
def damaged_deflate_data(pair):
    image_as(pair, compress="deflate")
    scramble(pair.image, 0.5)


@case("unreadable", "cannot be read")
def damaged_lzw_data(pair):
    image_as(pair, compress="lzw")
    scramble(pair.image, 0.5, 200)


@case("unreadable", "cannot be read")
def text_as_tiff(pair):
    pair.image.write_text("no TIFF at all")


@case("too-large", "declares 1 x 1000000 x 1000000 pixels")
def tiff_of_a_million_squared(pair):
    pair.image.write_bytes(tiff(10**6, 10**6, **{"278": 1}))


@case("too-large", "stored in blocks of 60000 x 60000 pixels")
def tiff_in_one_huge_tile(pair):
    tiles = {"322": 60_000, "323": 60_000, "324": 8, "325": 8}
    pair.image.write_bytes(tiff(60_000, 60_000, **tiles))


@case("unreadable", "cannot be read")
def tiff_of_no_bands(pair):
    pair.image.write_bytes(tiff(SIDE, SIDE, samples=0))


@case("unreadable", "cannot be read")
def tiff_of_no_width(pair):
    pair.image.write_bytes(tiff(0, SIDE))


@case("jpeg-mask", "compression changes mask values", of="mask")
def mask_in_a_tiff_compressed_as_jpeg(pair):
    mask_as(pair, compress="jpeg", tiled=True, blockxsize=64, blockysize=64)


@case("jpeg-mask", "compression changes mask values", of="mask")
def jpeg_mask_named_tif(pair):
    Image.fromarray(content(pair)[1][0]).save(pair.mask, format="JPEG")


@case("size-mismatch", "image 64 x 64, mask 60 x 64")
def mask_of_fewer_rows(pair):
    mask_as(pair, content(pair)[1][:, :60])


@case("crs-mismatch", "image EPSG:32633, mask EPSG:32634")
def mask_in_another_zone(pair):
    mask_as(pair, crs="EPSG:32634")


@case("transform-mismatch", "affine transforms differ")
def mask_one_metre_off(pair):
    mask_as(pair, transform=place(pair.seed, 1))


@case("transform-mismatch", "affine transforms differ")
def mask_of_other_pixel_size(pair):
    mask_as(pair, transform=place(pair.seed) @ rasterio.Affine.scale(2))


@case("mixed-crs", "has EPSG:32634, most others have EPSG:32633")
def pair_in_another_zone(pair):
    image_as(pair, crs="EPSG:32634")
    mask_as(pair, crs="EPSG:32634")


@case("")
def mask_without_georeference(pair):
    mask_as(pair, crs=None, transform=None)


@case("same-place", "")
def another_date_of_a_place(pair):
    image_as(pair, transform=place(0))
    mask_as(pair, transform=place(0))


@case("all-nodata", "no valid pixel")
def nodata_covers_all(pair):
    image_as(pair, np.zeros((3, SIDE, SIDE), np.uint8), nodata=0)


@case("all-ignored", "leaves nothing to train on")
def mask_all_nodata(pair):
    mask_as(pair, np.full((1, SIDE, SIDE), 9, np.uint8), nodata=9)


@case("band-count", "bands is 4, most others have 3")
def four_bands_among_three(pair):
    image = content(pair)[0]
    image_as(pair, np.concatenate([image, image[:1] + 7]), photometric="MINISBLACK")


@case("other-dtype", "dtype is uint16, most others have uint8")
def values_of_16_bits(pair):
    image_as(pair, content(pair)[0].astype(np.uint16) * 20)


@case("unreadable", "complex numbers")
def complex_values(pair):
    image_as(pair, content(pair)[0].astype(np.complex64))


@case("label-fractions", "holds fractions (float32), such as 0.5", of="mask")
def mask_resampled_to_fractions(pair):
    mask = content(pair)[1].astype(np.float32) / 255
    mask[:, 0, 0] = 0.5
    mask_as(pair, mask)


@case("label-values", "4000000000", of="mask")
def mask_of_32_bits_with_huge_numbers(pair):
    mask_as(pair, np.where(content(pair)[1] > 0, 4_000_000_000, 0).astype(np.uint32))


@case("swapped", "image and mask are swapped")
def swapped_scenes(pair):
    image, mask = pair.image.read_bytes(), pair.mask.read_bytes()
    pair.image.write_bytes(mask)
    pair.mask.write_bytes(image)


@case("outside", "outside its folder")
def vrt_of_a_file_outside(pair):
    write_tif(pair.source.parent / "secret.tif", content(pair)[0])
    pair.replace_image("vrt_of_a_file_outside.vrt").write_text(vrt("../../secret.tif"))


@case("outside", "outside its folder")
def vrt_of_an_address(pair):
    pair.replace_image("vrt_of_an_address.vrt").write_text(vrt("/vsicurl/http://127.0.0.1:9/x.tif"))


@case("outside", "VRTDerivedRasterBand")
def vrt_with_code(pair):
    body = (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionType>f</PixelFunctionType></VRTRasterBand>"
    )
    pair.replace_image("vrt_with_code.vrt").write_text(vrt("", body))


@case("outside", "XML entities")
def vrt_with_entities(pair):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
    pair.replace_image("vrt_with_entities.vrt").write_text(bomb + vrt("x.tif"))


@case("unreadable", "source sound9.tif is missing")
def vrt_of_a_missing_file(pair):
    pair.replace_image("vrt_of_a_missing_file.vrt").write_text(vrt("sound9.tif"))


@case("outside", "is not a GeoTIFF")
def vrt_of_itself(pair):
    pair.replace_image("vrt_of_itself.vrt").write_text(vrt("vrt_of_itself.vrt"))


@case("unreadable", "Missing one of rasterXSize, rasterYSize or bands")
def vrt_of_no_bands(pair):
    pair.replace_image("vrt_of_no_bands.vrt").write_text(vrt("", "<Metadata/>"))


@case("too-large", "declares 1 x 2000000 x 2000000 pixels")
def vrt_of_two_million_squared(pair):
    path = pair.replace_image("vrt_of_two_million_squared.vrt")
    path.write_text(vrt("sound0.tif", size=2_000_000))


@case("pages", "has 3 pages")
def pages_of_unknown_meaning(pair):
    write_tiff(pair.image, [(band, {}) for band in content(pair)[0]])


@case("pages", "source pages.tif has 2 pages", of="image")
def vrt_of_a_file_of_two_pages(pair):
    write_tiff(pair.image.with_name("pages.tif"), [(band, {}) for band in content(pair)[0][:2]])
    pair.replace_image("vrt_of_a_file_of_two_pages.vrt").write_text(vrt("pages.tif"))


@case("pages-read", "3 pages are read as 3 channels, by ImageJ")
def channels_of_imagej(pair):
    text = "ImageJ=1.54f\nimages=3\nchannels=3\n"
    write_tiff(pair.image, [(band, {270: text}) for band in content(pair)[0]])
    mask_as(pair, crs=None, transform=None)


@case("alpha-band", "band 4 is read as transparency")
def colours_with_transparency(pair):
    alpha = np.full((1, SIDE, SIDE), 255, np.uint8)
    alpha[:, :5] = 0
    image_as(pair, np.concatenate([content(pair)[0], alpha]))


@case("scale-ignored", "scale and offset of the file are not applied: x 255 + 0")
def mask_with_a_scale_that_is_not_applied(pair):
    with rasterio.open(pair.mask, "r+") as file:
        file.scales = (255,)


@case("other-scale", "declares its values x 0.0001 - 0.1, others x 1 + 0")
def image_of_another_scale(pair):
    with rasterio.open(pair.image, "r+") as file:
        file.scales, file.offsets = (1e-4,) * file.count, (-0.1,) * file.count


@case("control-points", "its position is that of 4 control points")
def control_points_in_place_of_a_transform(pair):
    image_as(pair, crs=None, transform=None)
    mask_as(pair, crs=None, transform=None)
    corners = [(row, col) for row in (0, SIDE) for col in (0, SIDE)]
    with rasterio.open(pair.image, "r+") as file:
        points = [GroundControlPoint(row, col, 15 + col * 1e-5, 45 - row * 1e-5) for row, col in corners]
        file.gcps = (points, rasterio.CRS.from_epsg(4326))


@case("sidecar", "its position is from world_file_beside_it.tfw")
def world_file_beside_it(pair):
    image_as(pair, crs=None, transform=None)
    t = place(pair.seed)
    numbers = (t.a, t.d, t.b, t.e, t.c + t.a / 2, t.f + t.e / 2)
    pair.image.with_suffix(".tfw").write_text("\n".join(map(str, numbers)))


def infrared_pair(folder: Path, name: str, seed: int) -> Pair:
    """A pair whose image has red, green, blue and near infrared."""
    made = pair(folder, name, seed)
    image_as(made, infrared(made), photometric="MINISBLACK")
    return made


def infrared(pair: Pair) -> np.ndarray:
    """(4, 64, 64) uint8."""
    image = content(pair)[0]
    return np.concatenate([image, 255 - image[:1]])


INFRARED = DataSet("infrared", infrared_pair, SCENES.data)


@INFRARED.case("alpha-as-data", "band 4, which the file calls alpha, is read as data")
def infrared_that_the_file_calls_alpha(pair):
    image_as(pair, infrared(pair))


def float_pair(folder: Path, name: str, seed: int) -> Pair:
    """A pair whose image has two bands of float32."""
    made = pair(folder, name, seed)
    image_as(made, content(made)[0][:2].astype(np.float32) / 7)
    return made


FLOATS = DataSet("floats", float_pair, {**SCENES.data, "bands": [2, 1]})


def changed(pair: Pair, value: float, part: slice) -> None:
    pixels = content(pair)[0][:2].astype(np.float32) / 7
    pixels[:, part] = value
    image_as(pair, pixels)


@FLOATS.case("nan-pixels", "640 pixels are not valid")
def some_pixels_are_nan(pair):
    changed(pair, np.nan, slice(10))


@FLOATS.case("nan-pixels", "1280 pixels are not valid")
def some_pixels_are_infinite(pair):
    changed(pair, -np.inf, slice(20))


@FLOATS.case("all-nodata", "are NaN or infinite")
def image_of_nan(pair):
    changed(pair, np.nan, slice(None))


@FLOATS.case("constant", "every valid pixel has the value")
def all_but_nan_is_one_value(pair):
    pixels = np.full((2, SIDE, SIDE), 3, np.float32)
    pixels[:, :5] = np.nan
    image_as(pair, pixels)


@FLOATS.case("band-missing", "has 1 bands, but data.bands is [2, 1]")
def one_band_too_few(pair):
    image_as(pair, content(pair)[0][:1].astype(np.float32))


@case("height-ignored", "equal on the map, heights are ignored")
def image_with_heights_in_its_system(pair):
    image_as(pair, crs="EPSG:32633+5773")


CELLS = DataSet("cells", pair, {**SCENES.data, "group": "{cell:500}"}, sound=2)


@CELLS.case("unusable", "has no transform")
def scene_without_a_place_for_its_group(pair):
    write_tif(pair.image, content(pair)[0], crs=None, transform=None)
