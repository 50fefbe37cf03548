"""All formats: windows agree with the whole image, and every damaged file raises a DataError that names it."""

import os

import numpy as np
import pytest

from segcore.errors import DataError
from segcore.io import images
from tests.support.images import NOISE, kind_of, save
from tests.support.tiny import write_tif

EXTENSIONS = [".png", ".jpg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".vrt"]


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_empty_file_is_reported(tmp_path, extension):
    (tmp_path / f"a{extension}").touch()
    assert kind_of(tmp_path / f"a{extension}")[0] == "empty-file"


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_a_missing_file_is_unreadable(tmp_path, extension):
    assert kind_of(tmp_path / f"a{extension}")[0] == "unreadable"


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_a_file_without_read_permission_is_reported(tmp_path, extension):
    path = sound_file(tmp_path, extension)
    images.read(path)
    path.chmod(0)
    user = os.geteuid()
    # Root may read everything.
    if user == 0:
        os.seteuid(65534)
    try:
        assert kind_of(path)[0] == "no-permission"
    finally:
        os.seteuid(user)


def sound_file(folder, extension):
    path = folder / f"a{extension}"
    if extension == ".tif":
        write_tif(path, NOISE, compress="deflate")
    elif extension == ".pgm":
        save(path, NOISE[0])
    else:
        save(path, np.moveaxis(NOISE, 0, -1))
    return path


@pytest.mark.parametrize("extension", [e for e in EXTENSIONS if e != ".vrt"])
def test_truncated_files_are_unreadable(tmp_path, extension):
    path = sound_file(tmp_path, extension)
    content = path.read_bytes()
    for fraction in (0.01, 0.1, 0.5, 0.9):
        path.write_bytes(content[: max(1, int(len(content) * fraction))])
        assert kind_of(path)[0] == "unreadable", fraction


@pytest.mark.parametrize("extension", [e for e in EXTENSIONS if e != ".vrt"])
def test_damaged_bytes_give_pixels_or_a_data_error_and_nothing_else(tmp_path, extension):
    path = sound_file(tmp_path, extension)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    kinds = []
    for i in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, 64 if i % 2 else len(content), 6):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            raster = images.read(path)
            assert raster.valid.shape == raster.pixels.shape[1:] == (raster.info.height, raster.info.width)
        except DataError as error:
            kinds.append(error.kind)
    assert kinds, "some damage must show"
    assert set(kinds) <= {"unreadable", "too-large", "unusable"}


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
        assert np.array_equal(images.read(tmp_path / name).pixels, NOISE)
        save(tmp_path / f"{name}.png", NOISE[0])
        assert np.array_equal(images.read(tmp_path / f"{name}.png").pixels[0], NOISE[0])


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_windows_of_one_open_source_agree_with_the_whole(tmp_path, name):
    write_tif(tmp_path / "a.tif", NOISE)
    if name == "a.png":
        save(tmp_path / name, np.moveaxis(NOISE, 0, -1))
    whole = images.read(tmp_path / name)
    with images.open_source(tmp_path / name) as source:
        assert source.info == whole.info and source.info.height == 40
        for window in [(0, 0, 40, 50), (3, 4, 5, 6), (39, 49, 1, 1), (10, 0, 1, 50)]:
            part = source.read(window)
            r, c, h, w = window
            assert np.array_equal(part.pixels, whole.pixels[:, r : r + h, c : c + w])
            assert part.pixels.shape == (3, h, w) and part.valid.shape == (h, w)
            assert part.info == whole.info, "the window's info is the whole file's"
