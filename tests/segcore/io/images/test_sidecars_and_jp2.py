"""World files and .aux.xml beside an image, and JPEG 2000."""

import os
import subprocess
import sys

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from segcore.errors import DataError
from segcore.ingest.source_files import sidecars_of
from segcore.io import annotations, images
from segcore.io.layouts._item import Item
from segcore.params.data import Data
from tests.support.images import NOISE, RNG, kind_of
from tests.support.tiny import write_tif

WORLD = "0.5\n0\n0\n-0.5\n500000.25\n4999999.75\n"
TRANSFORM = (0.5, 0.0, 500000.0, 0.0, -0.5, 5000000.0)
PLACED = "<PAMDataset><SRS>EPSG:32633</SRS><GeoTransform>500000, 0.5, 0, 5000000, 0, -0.5</GeoTransform></PAMDataset>"
STATISTICS = (
    '<PAMDataset><PAMRasterBand band="1"><Metadata><MDI key="STATISTICS_MAXIMUM">9</MDI></Metadata></PAMRasterBand>'
    "</PAMDataset>"
)


def write_jp2(path, pixels, **options):
    plain = path.with_name("plain.tif")
    write_tif(plain, pixels)
    rasterio.shutil.copy(plain, path, driver="JP2OpenJPEG", **options)
    plain.unlink()


LOSSLESS = {"QUALITY": "100", "REVERSIBLE": "YES"}


def sidecars(path):
    item = Item(id="a", group="a", image=path.relative_to(path.parent), mask=None)
    return [file.name for file in sidecars_of(item, path.parent)]


@pytest.mark.parametrize("ending", ["tfw", "TFW", "tifw", "TIFW", "wld", "WLD"])
@pytest.mark.parametrize("name", ["a.tif", "a b.TIF"])
def test_a_world_file_of_any_spelling_places_a_tiff_with_a_note(tmp_path, ending, name):
    path = tmp_path / name
    write_tif(path, NOISE, crs=None, transform=None)
    path.with_suffix(f".{ending}").write_text(WORLD)
    info = images.info(path)
    assert info.transform == TRANSFORM
    assert info.notes == (("sidecar", f"its position is from {path.stem}.{ending} beside it"),)
    assert sidecars(path) == [f"{path.stem}.{ending}"]


@pytest.mark.parametrize("ending", ["tfw", "tiffw", "wld"])
def test_a_world_file_of_the_long_ending_is_read(tmp_path, ending):
    write_tif(tmp_path / "a.tiff", NOISE, crs=None, transform=None)
    (tmp_path / f"a.{ending}").write_text(WORLD)
    assert images.info(tmp_path / "a.tiff").transform == TRANSFORM and sidecars(tmp_path / "a.tiff") == [
        f"a.{ending}"
    ]


def test_a_world_file_beside_a_placed_tiff_is_not_used(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    (tmp_path / "a.tfw").write_text("9\n0\n0\n-9\n0\n0\n")
    info = images.info(tmp_path / "a.tif")
    assert info.transform == TRANSFORM and info.notes == ()


def test_an_aux_xml_places_a_tiff_with_a_note(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE, crs=None, transform=None)
    (tmp_path / "a.tif.aux.xml").write_text(PLACED)
    info = images.info(tmp_path / "a.tif")
    assert (info.crs, info.transform) == ("EPSG:32633", TRANSFORM)
    assert info.notes == (("sidecar", "its position is from a.tif.aux.xml beside it"),)


def test_statistics_beside_a_placed_tiff_are_no_position(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    (tmp_path / "a.tif.aux.xml").write_text(STATISTICS)
    assert images.info(tmp_path / "a.tif").notes == ()


def test_pyramids_and_masks_beside_a_tiff_are_no_position(tmp_path):
    path = tmp_path / "a.tif"
    write_tif(path, np.tile(NOISE, (1, 20, 20)))
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as out:
        out.build_overviews([2])
        out.write_mask(True)
    assert {p.name for p in tmp_path.iterdir()} >= {"a.tif.ovr", "a.tif.msk"}
    assert images.info(path).notes == ()


@pytest.mark.parametrize("ending", ["jp2", "JP2", "j2k", "j2c", "jpx"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_jpeg_2000_is_read_with_windows_and_place(tmp_path, ending, dtype):
    pixels = RNG.integers(0, 100, (3, 300, 400)).astype(dtype)
    path = tmp_path / f"a.{ending}"
    plain = "jp2" if ending in ("jp2", "JP2", "jpx") else "j2k"
    write_jp2(tmp_path / f"b.{plain}", pixels, BLOCKXSIZE=128, BLOCKYSIZE=128, **LOSSLESS)
    (tmp_path / f"b.{plain}").rename(path)
    with images.open_source(path) as source:
        whole, part = source.read(), source.read((130, 200, 100, 150))
    assert np.array_equal(whole.pixels, pixels) and whole.valid.all()
    assert np.array_equal(part.pixels, pixels[:, 130:230, 200:350]) and whole.info.block == (128, 128)
    assert not whole.info.lossy and (plain == "j2k" or whole.info.crs == "EPSG:32633")


@pytest.mark.parametrize("ending", ["j2w", "jp2w", "wld", "J2W"])
def test_a_world_file_places_a_jpeg_2000(tmp_path, ending):
    write_jp2(tmp_path / "a.jp2", NOISE, GMLJP2="NO", GeoJP2="NO", **LOSSLESS)
    (tmp_path / "a.jp2.aux.xml").unlink(missing_ok=True)
    assert images.info(tmp_path / "a.jp2").transform is None
    (tmp_path / f"a.{ending}").write_text(WORLD)
    info = images.info(tmp_path / "a.jp2")
    assert info.transform == TRANSFORM and [kind for kind, _ in info.notes] == ["sidecar"]
    assert sidecars(tmp_path / "a.jp2") == [f"a.{ending}"]


def test_near_infrared_of_a_jpeg_2000_is_data(tmp_path):
    infrared = np.concatenate([NOISE, RNG.integers(0, 250, (1, 40, 50)).astype(np.uint8)])
    write_jp2(tmp_path / "a.jp2", infrared, **LOSSLESS)
    raster = images.read(tmp_path / "a.jp2")
    assert np.array_equal(raster.pixels, infrared) and raster.valid.all()


def test_a_mask_may_be_a_lossless_jpeg_2000_alone(tmp_path):
    write_tif(tmp_path / "a.tif", NOISE)
    labels = np.zeros((1, 40, 50), np.uint8)
    labels[:, :9] = 1
    data = Data(
        name="x",
        source=".",
        classes=["a", "b"],
        background="a",
        colors=[(0, 0, 0), (9, 9, 9)],
        label_values={0: 0, 1: 1},
    )
    write_jp2(tmp_path / "m.jp2", labels, **LOSSLESS)
    read = annotations.read_labels(
        tmp_path / "m.jp2", tmp_path / "a.tif", images.info(tmp_path / "a.tif"), data
    )
    assert np.array_equal(read.classes, labels[0])
    write_jp2(tmp_path / "n.jp2", labels, QUALITY="30")
    with pytest.raises(DataError) as caught:
        annotations.read_labels(tmp_path / "n.jp2", tmp_path / "a.tif", images.info(tmp_path / "a.tif"), data)
    assert caught.value.kind == "jpeg-mask"


@pytest.mark.parametrize("start", [b"II*\0", b"\x89PNG", b"CDF\x01", b"not a picture"])
def test_other_content_with_the_ending_of_jpeg_2000_is_not_opened(tmp_path, start):
    (tmp_path / "a.jp2").write_bytes(start + bytes(500))
    assert kind_of(tmp_path / "a.jp2")[0] == "unreadable"


@pytest.mark.parametrize("driver", ["JP2OpenJPEG", "HFA"])
def test_a_format_without_a_driver_is_refused_with_the_conversion(tmp_path, driver):
    path = tmp_path / ("a.jp2" if driver == "JP2OpenJPEG" else "a.img")
    path.write_bytes(b"\xff\x4f\xff\x51" if driver == "JP2OpenJPEG" else b"EHFA_HEADER_TAG")
    program = f"""
from pathlib import Path
from segcore.errors import DataError
from segcore.io import images
try:
    images.info(Path({str(path)!r}))
except DataError as error:
    print(error.kind, error.what, error.remedy)
"""
    environment = {**os.environ, "GDAL_SKIP": driver}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"unknown-format {path.name}: ") and "gdal_translate" in done.stdout


def test_an_erdas_file_is_read_with_its_place(tmp_path):
    write_tif(tmp_path / "a.img", NOISE, driver="HFA", nodata=7)
    raster = images.read(tmp_path / "a.img")
    assert np.array_equal(raster.pixels, NOISE) and raster.info.crs == "EPSG:32633"
    assert raster.info.transform == TRANSFORM and raster.info.nodata == 7


def test_an_erdas_file_with_its_pixels_elsewhere_is_refused(tmp_path):
    write_tif(tmp_path / "a.img", NOISE, driver="HFA", use_spill="YES")
    kind, what = kind_of(tmp_path / "a.img")
    assert kind == "unreadable" and "(.ige)" in what


def test_the_voxels_of_a_nifti_pair_are_no_erdas_file(tmp_path):
    (tmp_path / "a.img").write_bytes(bytes(1000))
    kind, what = kind_of(tmp_path / "a.img")
    assert kind == "unreadable" and "is not ERDAS IMAGINE" in what


@pytest.mark.parametrize("kept", [0.2, 0.7])
def test_a_truncated_jpeg_2000_is_unreadable(tmp_path, kept):
    write_jp2(tmp_path / "a.jp2", RNG.integers(0, 255, (3, 300, 400)).astype(np.uint8), **LOSSLESS)
    content = (tmp_path / "a.jp2").read_bytes()
    (tmp_path / "a.jp2").write_bytes(content[: int(len(content) * kept)])
    assert kind_of(tmp_path / "a.jp2")[0] == "unreadable"
