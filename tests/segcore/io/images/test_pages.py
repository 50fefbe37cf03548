"""TIFFs of several pages: planes or channels, by the settings, OME-XML or ImageJ; never the first page alone."""

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling

from segcore.errors import DataError
from segcore.io import images
from tests.support.images import RNG
from tests.support.tiff import noise, write_tiff
from tests.support.tiny import write_tif

PAGES = noise(6, 40, 50)


def write_pages(path, pages, description=""):
    pictures = [Image.fromarray(page) for page in pages]
    options = {"description": description} if description else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


def planes(path, **options):
    """All planes (D, bands, H, W), their validity, and the header."""
    with images.open_source(path, **options) as source:
        rasters = [source.read(plane=plane) for plane in range(source.info.depth)]
        info = source.info
    pixels = np.stack([raster.pixels for raster in rasters])
    assert pixels.shape == (info.depth, info.bands, info.height, info.width)
    return pixels, np.stack([raster.valid for raster in rasters]), info


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        planes(path, **options)
    assert caught.value.kind == "pages" and path.name in caught.value.what
    return f"{caught.value}"


def ome(order, z=1, c=1, t=1, channels="", tiff_data="", images=1):
    pixels = (
        f'<Image><Pixels DimensionOrder="{order}" Type="uint8" SizeX="50" SizeY="40" SizeZ="{z}" SizeC="{c}" '
        f'SizeT="{t}">{channels}{tiff_data}</Pixels></Image>'
    )
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    return f'<?xml version="1.0"?><OME xmlns="{namespace}">{pixels * images}</OME>'


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pages_are_planes_or_channels_as_the_setting_says(tmp_path, dtype):
    pages = PAGES.astype(dtype)
    path = tmp_path / "a.tif"
    write_tiff(path, [(page, {}) for page in pages])
    pixels, valid, info = planes(path, pages="planes")
    assert np.array_equal(pixels[:, 0], pages) and valid.all() and info.dtype == dtype and info.is_stack
    assert info.notes == (("pages-read", "6 pages are read as 6 planes, by data.pages"),)
    pixels, _, info = planes(path, pages="channels")
    assert np.array_equal(pixels[0], pages) and (info.depth, info.bands, info.is_stack) == (1, 6, False)
    assert info.notes[0] == ("pages-read", "6 pages are read as 6 channels, by data.pages")


@pytest.mark.parametrize(
    "options",
    [{"endianness": "BIG"}, {"bigtiff": "YES"}, {"bigtiff": "YES", "endianness": "BIG"}, {"compress": "lzw"}],
)
def test_pages_of_all_kinds_of_tiff_are_read(tmp_path, options):
    for number, page in enumerate(PAGES):
        write_tif(tmp_path / "a.tif", page[None], append_subdataset=number > 0, **options)
    pixels, _, info = planes(tmp_path / "a.tif", pages="planes")
    assert np.array_equal(pixels[:, 0], PAGES)
    assert info.crs == "EPSG:32633" and info.transform == (0.5, 0.0, 500000.0, 0.0, -0.5, 5000000.0)


def test_pages_of_unknown_meaning_are_refused_with_the_choice(tmp_path):
    text = refused(write_pages(tmp_path / "a.tif", PAGES))
    assert "has 6 pages" in text and "data.pages" in text and "planes" in text and "channels" in text


def test_a_window_of_a_plane_is_that_of_its_page(tmp_path):
    write_pages(tmp_path / "a.tif", PAGES)
    with images.open_source(tmp_path / "a.tif", pages="planes") as source:
        for plane in (5, 0, 3, 5):
            assert np.array_equal(source.read((7, 9, 11, 13), plane).pixels[0], PAGES[plane, 7:18, 9:22])
    with images.open_source(tmp_path / "a.tif", pages="channels") as source:
        assert np.array_equal(source.read((7, 9, 11, 13)).pixels, PAGES[:, 7:18, 9:22])


def test_more_pages_than_are_kept_open_are_read(tmp_path):
    many = noise(70, 8, 9)
    write_pages(tmp_path / "a.tif", many)
    assert np.array_equal(planes(tmp_path / "a.tif", pages="planes")[0][:, 0], many)
    assert np.array_equal(planes(tmp_path / "a.tif", pages="channels")[0][0], many)


def test_pages_in_colour_keep_their_bands(tmp_path):
    colours = RNG.integers(1, 250, (4, 40, 50, 3)).astype(np.uint8)
    write_pages(tmp_path / "a.tif", colours)
    pixels, _, info = planes(tmp_path / "a.tif", pages="planes")
    assert np.array_equal(pixels, np.moveaxis(colours, -1, 1)) and (info.depth, info.bands) == (4, 3)
    pixels, _, info = planes(tmp_path / "a.tif", pages="channels")
    assert np.array_equal(pixels[0], np.moveaxis(colours, -1, 1).reshape(12, 40, 50))


@pytest.mark.parametrize("order", ["XYCZT", "XYZCT", "XYZTC", "XYTCZ"])
@pytest.mark.parametrize("setting", [None, "planes"])
def test_ome_xml_says_which_page_is_which_plane_and_channel(tmp_path, order, setting):
    sizes = {"Z": 3, "C": 2, "T": 1}
    axes = [sizes[axis] for axis in order[:1:-1]]
    stored = PAGES.reshape(*axes, 40, 50)
    wanted = np.moveaxis(stored, [order[:1:-1].index(axis) for axis in "TZC"], [0, 1, 2]).reshape(
        3, 2, 40, 50
    )
    write_pages(tmp_path / "a.tif", PAGES, ome(order, z=3, c=2))
    pixels, _, info = planes(tmp_path / "a.tif", pages=setting)
    assert np.array_equal(pixels, wanted)
    assert info.notes == (("pages-read", "6 pages are read as 3 planes of 2 channels, by OME-XML"),)


@pytest.mark.parametrize(
    ("sizes", "depth", "bands"),
    [({"z": 6}, 6, 1), ({"t": 6}, 6, 1), ({"c": 6}, 1, 6), ({"t": 2, "z": 3}, 6, 1)],
)
def test_ome_axes_of_space_and_time_are_planes_and_channels_are_bands(tmp_path, sizes, depth, bands):
    write_pages(tmp_path / "a.ome.tif", PAGES, ome("XYZCT", **sizes))
    pixels, _, info = planes(tmp_path / "a.ome.tif")
    assert (info.depth, info.bands) == (depth, bands) and np.array_equal(pixels.reshape(6, 40, 50), PAGES)


def test_tiff_data_of_ome_xml_gives_the_order_of_pages(tmp_path):
    blocks = "".join(f'<TiffData IFD="{5 - z}" FirstZ="{z}" PlaneCount="1"/>' for z in range(6))
    write_pages(tmp_path / "a.tif", PAGES, ome("XYZCT", z=6, tiff_data=blocks))
    assert np.array_equal(planes(tmp_path / "a.tif")[0][:, 0], PAGES[::-1])


def test_ome_channels_of_several_samples_are_bands_of_one_page(tmp_path):
    colours = RNG.integers(1, 250, (4, 40, 50, 3)).astype(np.uint8)
    channel = '<Channel SamplesPerPixel="3"/>'
    write_pages(tmp_path / "a.tif", colours, ome("XYCZT", z=4, c=3, channels=channel))
    pixels, _, info = planes(tmp_path / "a.tif")
    assert np.array_equal(pixels, np.moveaxis(colours, -1, 1)) and info.depth == 4


@pytest.mark.parametrize(
    "description",
    [
        ome("XYZCT", z=7),
        ome("XYZCT", z=3, images=2),
        ome("XYQCT", z=6),
        ome("XYZCT", z=6, tiff_data='<TiffData IFD="3"/>'),
        ome("XYZCT", z=6, tiff_data='<TiffData FirstZ="9"/>'),
        ome("XYZCT", z=6).replace("<Image>", '<!DOCTYPE x [<!ENTITY a "b">]><Image>'),
        ome("XYZCT", z=6)[:-9],
        '<OME SizeZ="6"/>',
        "a stack of OME planes",
    ],
    ids=[
        "more planes",
        "two images",
        "no order",
        "one page",
        "no plane",
        "entity",
        "truncated",
        "no pixels",
        "words",
    ],
)
def test_metadata_that_does_not_describe_the_pages_is_no_guess(tmp_path, description):
    path = write_pages(tmp_path / "a.tif", PAGES, description)
    refused(path)
    assert np.array_equal(planes(path, pages="planes")[0][:, 0], PAGES)


def test_several_files_of_one_ome_image_are_no_stack_of_the_first(tmp_path):
    blocks = "".join(
        f'<TiffData IFD="{z % 6}" FirstZ="{z}"><UUID FileName="{z // 6}.tif">urn:uuid:{z // 6}</UUID></TiffData>'
        for z in range(12)
    )
    assert "declares 12 images" in refused(
        write_pages(tmp_path / "0.tif", PAGES, ome("XYZCT", z=12, tiff_data=blocks))
    )


@pytest.mark.parametrize(
    ("lines", "depth", "bands"),
    [
        ("images=6\nslices=6", 6, 1),
        ("images=6\nframes=6", 6, 1),
        ("images=6\nchannels=6", 1, 6),
        ("images=6\nchannels=2\nslices=3\nhyperstack=true\nmode=composite", 3, 2),
        ("images=6", 6, 1),
    ],
)
def test_imagej_says_what_its_pages_are(tmp_path, lines, depth, bands):
    write_pages(tmp_path / "a.tif", PAGES, f"ImageJ=1.53t\n{lines}\nloop=false\n")
    pixels, _, info = planes(tmp_path / "a.tif")
    assert (info.depth, info.bands) == (depth, bands) and np.array_equal(pixels.reshape(6, 40, 50), PAGES)
    assert info.notes[0][1].endswith("by ImageJ")


def test_imagej_files_with_images_behind_one_page_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, [(PAGES[0], {270: "ImageJ=1.53t\nimages=6\nslices=6\n"})])
    path.write_bytes(path.read_bytes() + PAGES[1:].tobytes())
    assert "6 images behind one page" in refused(path)
    write_tiff(path, [(PAGES[0], {270: "ImageJ=1.53t\nimages=6\nslices=6\n"})])
    assert images.info(path).depth == 1


@pytest.mark.parametrize("setting", [None, "planes", "channels"])
def test_pyramids_thumbnails_and_mask_pages_are_no_pages(tmp_path, setting):
    image, mask = noise(64, 64), np.ones((64, 64), np.uint8)
    mask[:, :20] = 0
    path = tmp_path / "a.tif"
    write_tiff(
        path, [(image, {254: 0}), (image[::2, ::2], {254: 1}), (image[::4, ::4], {254: 1}), (mask, {254: 4})]
    )
    pixels, valid, info = planes(path, pages=setting)
    assert np.array_equal(pixels[0, 0], image) and np.array_equal(valid[0], mask > 0) and info.notes == ()


def test_overviews_that_gdal_builds_are_no_pages(tmp_path):
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", driver="GTiff", count=1, height=600, width=600, dtype="uint8") as out:
        out.write(noise(1, 600, 600))
        out.build_overviews([2, 4], Resampling.nearest)
    assert images.info(path).notes == ()
    with rasterio.open(path, "w", driver="GTiff", count=1, height=600, width=600, dtype="uint8") as out:
        out.write(noise(1, 600, 600))
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as out:
        out.build_overviews([2, 4], Resampling.nearest)
    assert (tmp_path / "a.tif.ovr").exists()
    assert images.info(path).notes == ()


def test_a_stack_with_a_pyramid_has_its_pages_alone(tmp_path):
    pages = noise(2, 64, 64)
    path = tmp_path / "a.tif"
    write_tiff(path, [(pages[0], {254: 2}), (pages[1], {254: 2}), (pages[0, ::2, ::2], {254: 1})])
    assert np.array_equal(planes(path, pages="planes")[0][:, 0], pages)


def test_a_thumbnail_before_the_image_is_not_read_as_the_image(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, [(noise(32, 32), {254: 1}), (noise(64, 64), {254: 0})])
    assert "thumbnail" in refused(path)


@pytest.mark.parametrize("setting", ["planes", "channels"])
@pytest.mark.parametrize(
    "second", [noise(20, 25), noise(40, 50, 3), noise(40, 50, dtype="uint16")], ids=["size", "bands", "type"]
)
def test_pages_that_differ_are_refused(tmp_path, second, setting):
    path = tmp_path / "a.tif"
    write_tiff(path, [(noise(40, 50), {}), (second, {})])
    assert "differ" in refused(path, pages=setting)


def test_nodata_of_pages_is_that_of_bands(tmp_path):
    pages = noise(2, 40, 50, dtype="int16")
    pages[0, :3], pages[1, 2:4] = -9999, -9999
    path = tmp_path / "a.tif"
    write_tiff(path, [(page, {42113: "-9999"}) for page in pages])
    _, valid, _ = planes(path, pages="planes")
    assert np.array_equal(valid, pages != -9999)
    _, valid, _ = planes(path, pages="channels")
    assert np.array_equal(valid[0], (pages != -9999).all(axis=0))


def test_a_damaged_page_is_an_error_of_its_file(tmp_path):
    path = write_pages(tmp_path / "a.tif", PAGES)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(DataError) as caught:
        planes(path, pages="planes")
    assert caught.value.kind in ("unreadable", "pages")


def test_a_stack_is_read_in_another_thread(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    write_pages(tmp_path / "a.tif", PAGES)
    with images.open_source(tmp_path / "a.tif", pages="planes") as source, ThreadPoolExecutor(1) as pool:
        read = [pool.submit(source.read, None, plane).result().pixels[0] for plane in range(6)]
    assert np.array_equal(read, PAGES)
