"""Bad pictures and masks: PNG, JPEG, WebP, BMP and PPM."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.tiny import blobs, write_tif
from tests.system.bad_inputs.case import DataSet, Pair, cut, scramble

SIZE = (48, 56)


def pair(folder: Path, name: str, seed: int) -> Pair:
    """Write images/<name>.png, and masks/<name>_m.png with 0 and 255."""
    made = Pair(folder / "images" / f"{name}.png", folder / "masks" / f"{name}_m.png", seed)
    made.image.parent.mkdir(parents=True, exist_ok=True)
    made.mask.parent.mkdir(parents=True, exist_ok=True)
    image, mask = blobs(*SIZE, seed=seed)
    Image.fromarray(image).save(made.image)
    Image.fromarray(mask * 255).save(made.mask)
    return made


PICTURES = DataSet(
    "pictures", pair, {"images": "images/{file}", "masks": "masks/{stem}_m.*", "label_values": {0: 0, 255: 1}}
)
case = PICTURES.case


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with a correct checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    """An RGB PNG with this size in its header, and only these chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def saved(pair: Pair, name: str, **options: object) -> Path:
    """Save the image under another name, whose extension selects the format."""
    picture = Image.open(pair.image)
    picture.load()
    path = pair.replace_image(name)
    picture.save(path, **options)
    return path


def mask_of(pair: Pair, values: np.ndarray, mode: str | None = None) -> None:
    Image.fromarray(values, mode).save(pair.mask)


@case("unreadable", "cannot be read")
def truncated_png(pair):
    cut(pair.image)


@case("unreadable", "Truncated File Read")
def truncated_png_header(pair):
    pair.image.write_bytes(pair.image.read_bytes()[:20])


@case("unreadable", "cannot be read")
def damaged_png_data(pair):
    scramble(pair.image)


@case("unreadable", "cannot be read", of="mask")
def truncated_mask(pair):
    cut(pair.mask)


@case("unreadable", "truncated")
def truncated_jpeg(pair):
    cut(saved(pair, "truncated_jpeg.jpg"))


@case("unreadable", "cannot be read")
def truncated_webp(pair):
    cut(saved(pair, "truncated_webp.webp", lossless=True))


@case("unreadable", "truncated")
def truncated_bmp(pair):
    cut(saved(pair, "truncated_bmp.bmp"))


@case("unreadable", "cannot be read")
def truncated_ppm(pair):
    cut(saved(pair, "truncated_ppm.ppm"))


@case("unreadable", "is not a picture")
def text_as_png(pair):
    pair.image.write_text("this is not a picture at all")


@case("unreadable", "is a GIF, which does not match its file extension")
def gif_as_png(pair):
    picture = Image.open(pair.image).convert("P")
    picture.save(pair.image, format="GIF")


@case("unreadable", "is a JPEG, which does not match its file extension", of="mask")
def jpeg_mask_named_png(pair):
    mask = Image.open(pair.mask)
    mask.load()
    mask.save(pair.mask, format="JPEG")


@case("jpeg-mask", "compression changes mask values", of="mask")
def jpeg_mask(pair):
    mask = Image.open(pair.mask)
    mask.load()
    mask.save(pair.replace_mask("jpeg_mask_m.jpg"))


@case("size-mismatch", "image 48 x 56, mask 40 x 56")
def mask_of_other_size(pair):
    mask_of(pair, np.zeros((40, 56), np.uint8))


@case("label-values", "outside the declared classes: 7 (20)", of="mask")
def undeclared_value(pair):
    mask = np.array(Image.open(pair.mask))
    mask[:4, :5] = 7
    mask_of(pair, mask)


@case("label-values", "outside the declared classes: 1 (", of="mask")
def mask_of_0_and_1(pair):
    mask_of(pair, np.array(Image.open(pair.mask)) // 255)


@case("label-values", "65534 (", of="mask")
def mask_of_16_bits_with_huge_numbers(pair):
    mask = np.array(Image.open(pair.mask)).astype(np.uint16)
    mask[mask > 0] = 65534
    Image.fromarray(mask).save(pair.mask)


@case("label-values", "outside the declared classes", of="mask")
def palette_with_too_few_entries(pair):
    mask = Image.fromarray(np.array(Image.open(pair.mask)) // 255 * 9, "P")
    mask.putpalette([0, 0, 0, 255, 255, 255])
    mask.save(pair.mask)


@case("label-bands", "3 bands that differ", of="mask")
def coloured_mask_where_values_are_declared(pair):
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[:9] = (255, 200, 0)
    mask_of(pair, mask)


@case("")
def mask_with_an_opaque_alpha(pair):
    Image.open(pair.mask).convert("RGBA").save(pair.mask)


@case("transparent", "560 pixels of the mask are transparent or without data, and are ignored")
def mask_partly_transparent(pair):
    opacity = np.full(SIZE, 255, np.uint8)
    opacity[:10] = 0
    mask_of(pair, np.stack([np.array(Image.open(pair.mask)), opacity], -1), "LA")


@case("all-ignored", "leaves nothing to train on")
def mask_all_transparent(pair):
    mask_of(pair, np.stack([np.array(Image.open(pair.mask)), np.zeros(SIZE, np.uint8)], -1), "LA")


@case("empty-mask", "only background")
def mask_of_background_alone(pair):
    mask_of(pair, np.zeros(SIZE, np.uint8))


@case("one-class", "only square")
def mask_of_one_class_alone(pair):
    mask_of(pair, np.full(SIZE, 255, np.uint8))


@case("all-nodata", "nodata or transparent")
def image_all_transparent(pair):
    image = Image.open(pair.image).convert("RGBA")
    image.putalpha(0)
    image.save(pair.image)


@case("constant", "every valid pixel has the value")
def image_of_one_value(pair):
    Image.new("RGB", SIZE[::-1], (90, 91, 92)).save(pair.image)


@case("constant-band", "band 2 has a single value")
def band_of_one_value(pair):
    image = np.array(Image.open(pair.image))
    image[..., 1] = 77
    Image.fromarray(image).save(pair.image)


@case("band-count", "bands is 1, most others have 3")
def grey_among_colours(pair):
    Image.open(pair.image).convert("L").save(pair.image)


@case("other-dtype", "dtype is uint16, most others have uint8")
def colours_of_16_bits(pair):
    image = np.moveaxis(np.array(Image.open(pair.image)), -1, 0).astype(np.uint16) * 257
    write_tif(pair.image, image, driver="PNG", crs=None, transform=None)
    pair.image.with_name(pair.image.name + ".aux.xml").unlink(missing_ok=True)


@case("too-large", "more than 268435456 pixels")
def png_of_a_million_squared(pair):
    pair.image.write_bytes(png(10**6, 10**6, chunk(b"IDAT", zlib.compress(bytes(1000)))))


@case("too-large", "more than 268435456 pixels", of="mask")
def mask_of_a_million_squared(pair):
    pair.mask.write_bytes(png(10**6, 10**6, chunk(b"IDAT", zlib.compress(bytes(1000)))))


@case("too-large", "pixels")
def jpeg_of_65500_squared(pair):
    path = saved(pair, "jpeg_of_65500_squared.jpg")
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 65500, 65500)
    path.write_bytes(bytes(content))


@case("too-large", "pixels")
def bmp_of_a_million_squared(pair):
    path = saved(pair, "bmp_of_a_million_squared.bmp")
    content = bytearray(path.read_bytes())
    content[18:26] = struct.pack("<ii", 10**6, 10**6)
    path.write_bytes(bytes(content))


@case("too-large", "pixels")
def ppm_of_a_million_squared(pair):
    pair.replace_image("ppm_of_a_million_squared.ppm").write_bytes(b"P6 1000000 1000000 255\n" + bytes(99))


@case("unreadable", "cannot be read")
def png_of_no_width(pair):
    pair.image.write_bytes(png(0, 48, chunk(b"IDAT", zlib.compress(b""))))


@case("unreadable", "cannot be read")
def ppm_of_no_width(pair):
    pair.replace_image("ppm_of_no_width.ppm").write_bytes(b"P6 0 48 255\n")


@case("unreadable", "cannot be read")
def png_text_that_unpacks_to_gigabytes(pair):
    bomb = zlib.compress(bytes(2**26))
    text = chunk(b"zTXt", b"Comment\0\0" + bomb)
    pair.image.write_bytes(png(56, 48, text, chunk(b"IDAT", zlib.compress(bytes(48 * 169)))))


@case("pages", "has 2 frames")
def animated_png(pair):
    frames = [Image.fromarray(blobs(*SIZE, seed=s)[0]) for s in (1, 2)]
    frames[0].save(pair.image, save_all=True, append_images=frames[1:])


@case("pages", "has 2 frames", of="mask")
def animated_mask(pair):
    frames = [Image.fromarray(blobs(*SIZE, seed=s)[1] * 255) for s in (1, 2)]
    frames[0].save(pair.replace_mask("animated_mask_m.gif"), save_all=True, append_images=frames[1:])


@case("orientation-tag", "turned as viewers show them (orientation 6)")
def photo_of_a_turned_phone(pair):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(pair.image).transpose(Image.Transpose.ROTATE_90)
    stored.save(pair.replace_image("photo_of_a_turned_phone.jpg"), exif=exif)


@case("mask-turned", "has the size of the stored pixels of")
def mask_of_the_stored_pixels(pair):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(pair.image).save(pair.replace_image("mask_of_the_stored_pixels.webp"), exif=exif)


@case("sidecar", "its georeference is read from picture_with_a_world_file.pgw")
def picture_with_a_world_file(pair):
    pair.image.with_suffix(".pgw").write_text("0.5\n0\n0\n-0.5\n400000\n5000000\n")


@case("unknown-format", "unsupported file extension '.nc' (NetCDF)")
def netcdf_among_pictures(pair):
    pair.replace_image("netcdf_among_pictures.nc").write_bytes(b"CDF\1" + bytes(40))
