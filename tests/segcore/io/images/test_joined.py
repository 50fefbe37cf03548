"""An image whose bands are in several files is one image on the grid of the first."""

import nibabel
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from scipy import ndimage

from segcore.data.raster import pieces
from segcore.errors import DataError
from segcore.io import images
from tests.support.tiny import params_for, write_tif

rng = np.random.default_rng(0)


def data_for(**data):
    return params_for(".", data=data).data


def read(paths, window=None, plane=0, **data):
    with images.open_declared(paths, data_for(**data)) as source:
        return source.read(window, plane)


def problem(*paths):
    with pytest.raises(DataError) as caught:
        read(paths)
    return caught.value.kind, caught.value.what


def band(folder, name, pixel, size, dtype=np.uint16, left=500000, top=5000000, **profile):
    pixels = (np.arange(size[0] * size[1]).reshape(size) * 7 % 4001 + rng.integers(1, 50, size)).astype(dtype)
    write_tif(folder / name, pixels[None], transform=from_origin(left, top, pixel, pixel), **profile)
    return folder / name, pixels


def test_bands_of_equal_grids_follow_the_order_of_the_files(tmp_path):
    paths, bands = zip(*(band(tmp_path, f"B{i}.tif", 10, (40, 30)) for i in range(3)), strict=True)
    assert np.array_equal(read(paths).pixels, np.stack(bands))
    assert np.array_equal(read(paths[::-1]).pixels, np.stack(bands[::-1]))
    with images.open_declared(paths, data_for()) as source:
        assert (source.info.bands, source.info.notes) == (3, ())


@pytest.mark.parametrize("factor", [2, 6])
def test_coarser_bands_are_resampled_as_gdal_and_scipy_do(tmp_path, factor):
    first, fine = band(tmp_path, "B02.tif", 10, (120, 60))
    second, coarse = band(tmp_path, "B05.tif", 10 * factor, (120 // factor, 60 // factor))
    raster = read([first, second])
    rows, columns = ((np.arange(n) + 0.5) / factor - 0.5 for n in fine.shape)
    places = np.meshgrid(rows, columns, indexing="ij")
    expected = ndimage.map_coordinates(coarse.astype(float), places, order=1, mode="nearest")
    assert np.abs(raster.pixels[1] - expected).max() <= 0.5 + 1e-6
    with (
        rasterio.open(second) as source,
        WarpedVRT(
            source,
            transform=from_origin(500000, 5000000, 10, 10),
            width=60,
            height=120,
            resampling=Resampling.bilinear,
        ) as warped,
    ):
        assert np.abs(warped.read(1).astype(int) - raster.pixels[1]).max() <= 1
    assert np.array_equal(raster.pixels[0], fine) and raster.valid.all()
    ((kind, text),) = raster.info.notes
    assert kind == "resampled-bands"
    assert text == f"B05.tif is resampled from pixels of {factor}0 x {factor}0 to 10 x 10, as B02.tif"


def test_finer_bands_are_averaged_over_the_pixels_of_the_first(tmp_path):
    first, _ = band(tmp_path, "a.tif", 60, (8, 8))
    second, fine = band(tmp_path, "b.tif", 10, (48, 48), np.float32)
    constant = tmp_path / "c.tif"
    write_tif(constant, np.full((1, 48, 48), 5, np.uint16), transform=from_origin(500000, 5000000, 10, 10))
    raster = read([first, second, constant])
    assert (raster.pixels[2] == 5).all()
    means = fine.reshape(8, 6, 8, 6).mean((1, 3))
    assert raster.pixels.shape == (3, 8, 8) and abs(raster.pixels[1].mean() / means.mean() - 1) < 0.05


def test_windows_give_the_pixels_of_the_whole(tmp_path):
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    first, _ = band(tmp_path, "a.tif", 10, (96, 64), **tiled)
    second, _ = band(tmp_path, "b.tif", 20, (48, 32), **tiled)
    third, _ = band(tmp_path, "c.tif", 60, (16, 11))
    whole = read([first, second, third])
    with images.open_declared([first, second, third], data_for()) as source:
        for window in pieces(source.info, 256):
            row, col, height, width = window
            part = source.read(window)
            assert np.array_equal(part.pixels, whole.pixels[:, row : row + height, col : col + width])


def test_pixels_without_data_in_a_coarse_band_are_invalid_and_do_not_blur_others(tmp_path):
    first, _ = band(tmp_path, "a.tif", 10, (16, 16))
    pixels = np.full((1, 8, 8), 100, np.float32)
    pixels[0, :4] = np.nan
    write_tif(tmp_path / "b.tif", pixels, transform=from_origin(500000, 5000000, 20, 20))
    raster = read([first, tmp_path / "b.tif"])
    assert not raster.valid[:8].any() and raster.valid[8:].all()
    assert (raster.pixels[1][8:] == 100).all()


def test_a_nodata_of_zero_counts_where_all_bands_have_it_as_in_one_file(tmp_path):
    pixels = rng.integers(1, 99, (2, 6, 6)).astype(np.uint16)
    pixels[0, 0] = 0
    pixels[:, 1] = 0
    for i in range(2):
        write_tif(tmp_path / f"{i}.tif", pixels[i : i + 1], nodata=0)
    write_tif(tmp_path / "both.tif", pixels, nodata=0)
    joined, both = read([tmp_path / "0.tif", tmp_path / "1.tif"]), images.read(tmp_path / "both.tif")
    assert np.array_equal(joined.valid, both.valid) and not joined.valid.all()


def test_a_transparent_pixel_of_one_file_is_invalid(tmp_path):
    colours = rng.integers(1, 99, (6, 6, 4)).astype(np.uint8)
    colours[..., 3] = 255
    colours[2, 2, 3] = 0
    Image.fromarray(colours).save(tmp_path / "a.png")
    Image.fromarray(colours[..., 0]).save(tmp_path / "nir.png")
    raster = read([tmp_path / "nir.png", tmp_path / "a.png"])
    assert raster.pixels.shape == (4, 6, 6)
    assert np.argwhere(~raster.valid).tolist() == [[2, 2]]


def test_bands_of_different_types_get_a_type_that_holds_both(tmp_path):
    first, counts = band(tmp_path, "a.tif", 10, (8, 8), np.int16)
    second, floats = band(tmp_path, "b.tif", 10, (8, 8), np.float32)
    raster = read([first, second])
    assert raster.pixels.dtype == np.float32 == np.dtype(raster.info.dtype)
    assert np.array_equal(raster.pixels, np.stack([counts.astype(np.float32), floats]))


def test_rasters_of_another_area_system_or_rotation_are_refused(tmp_path):
    first, _ = band(tmp_path, "a.tif", 10, (12, 12))
    moved, _ = band(tmp_path, "moved.tif", 20, (6, 6), left=500000 + 45)
    assert problem(first, moved)[0] == "transform-mismatch"
    smaller, _ = band(tmp_path, "smaller.tif", 20, (6, 4))
    assert problem(first, smaller)[0] == "transform-mismatch"
    other, _ = band(tmp_path, "other.tif", 10, (12, 12), crs="EPSG:32634")
    kind, text = problem(first, other)
    assert kind == "crs-mismatch" and "a.tif and other.tif" in text
    write_tif(
        tmp_path / "turned.tif",
        np.ones((1, 12, 12), np.uint16),
        transform=rasterio.Affine(9, 4, 500000, 4, -9, 5000000),
    )
    assert problem(first, tmp_path / "turned.tif")[0] == "transform-mismatch"


def test_a_band_that_ends_half_a_pixel_further_is_resampled_by_place(tmp_path):
    """The panchromatic band of Landsat lies half of its pixels off the others."""
    first, _ = band(tmp_path, "a.tif", 30, (10, 10))
    ramp = np.arange(21, dtype=np.float32)[None, None] * np.ones((1, 21, 1), np.float32)
    write_tif(tmp_path / "pan.tif", ramp, transform=from_origin(500000 - 7.5, 5000000 + 7.5, 15, 15))
    raster = read([first, tmp_path / "pan.tif"])
    # centre of the first pixel: 15 m, on the ramp (15 + 7.5) / 15 - 0.5
    assert np.allclose(raster.pixels[1][5, 1:-1], np.arange(1, 9) * 2 + 1.0, atol=1e-5)


def test_pictures_must_have_one_size_and_no_palette(tmp_path):
    for name, size in (("a", 8), ("b", 9)):
        Image.fromarray(np.ones((size, size), np.uint8)).save(tmp_path / f"{name}.png")
    kind, text = problem(tmp_path / "a.png", tmp_path / "b.png")
    assert kind == "size-mismatch" and "8 x 8 and 9 x 9" in text
    picture = Image.fromarray(np.zeros((8, 8), np.uint8), mode="P")
    picture.putpalette([9, 9, 9] * 256)
    picture.save(tmp_path / "p.png")
    assert "palette" in problem(tmp_path / "a.png", tmp_path / "p.png")[1]


def volume(path, values, affine):
    nibabel.Nifti1Image(values, affine).to_filename(path)
    return path


def test_channels_of_volumes_are_joined_in_one_orientation(tmp_path):
    values = rng.integers(0, 99, (2, 6, 5, 4)).astype(np.int16)
    affine = np.diag([1.0, 1, 3, 1])
    flipped = affine.copy()
    flipped[0] = [-1, 0, 0, 5]
    first = volume(tmp_path / "a_0000.nii.gz", values[0], affine)
    second = volume(tmp_path / "a_0001.nii.gz", values[1][::-1], flipped)
    stacked = volume(tmp_path / "both.nii.gz", np.moveaxis(values, 0, -1), affine)
    for plane in range(4):
        assert np.array_equal(
            read([first, second], plane=plane).pixels, images.read(stacked, plane=plane).pixels
        )
    with images.open_declared([first, second], data_for()) as source:
        assert (source.info.bands, source.info.depth) == (2, 4)


def test_channels_of_volumes_on_other_grids_are_refused(tmp_path):
    affine = np.diag([1.0, 1, 3, 1])
    first = volume(tmp_path / "a_0000.nii.gz", np.ones((6, 5, 4), np.int16), affine)
    shifted = affine.copy()
    shifted[0, 3] = 2
    moved = volume(tmp_path / "a_0001.nii.gz", np.ones((6, 5, 4), np.int16), shifted)
    assert problem(first, moved)[0] == "affine-mismatch"
    longer = volume(tmp_path / "a_0002.nii.gz", np.ones((6, 5, 5), np.int16), affine)
    assert problem(first, longer)[0] == "size-mismatch"
