"""PROJ and GDAL of another installation are kept out, and folders that fit are kept."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from segcore.io.annotations._layers import unreadable as layer_unreadable
from segcore.io.images._checks import unreadable

ROOT = Path(__file__).parents[2]
OWN = Path(find_spec("rasterio").origin).parent
VARIABLES = ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA", "GDAL_DRIVER_PATH", "OGR_DRIVER_PATH")
_USE = """
import json, os
from rasterio.warp import transform
x, y = transform("EPSG:32633", "EPSG:4326", [5e5], [5e6])
assert abs(x[0] - 15) < 1e-9
print(json.dumps({name: value for name, value in os.environ.items() if name in VARIABLES}))
"""


def run(program, **variables):
    """What is left of the variables, and stderr, of a program that reprojects."""
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | variables
    done = subprocess.run(
        [sys.executable, "-c", f"VARIABLES = {VARIABLES!r}\n{program}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def database(folder, major, minor):
    folder.mkdir(exist_ok=True)
    with sqlite3.connect(folder / "proj.db") as file:
        file.execute("create table metadata(key text, value text)")
        for part, value in (("MAJOR", major), ("MINOR", minor)):
            file.execute(
                "insert into metadata values (?, ?)", (f"DATABASE.LAYOUT.VERSION.{part}", str(value))
            )
    return folder


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
@pytest.mark.parametrize("kind", ["older", "newer", "empty", "missing", "damaged", "list"])
def test_proj_data_that_do_not_fit_are_dropped_with_one_line(tmp_path, variable, kind):
    folder = tmp_path / "a folder of PROJ"
    if kind in ("older", "newer"):
        database(folder, *((1, 0) if kind == "older" else (99, 0)))
    elif kind != "missing":
        folder.mkdir()
    if kind == "damaged":
        (folder / "proj.db").write_bytes(b"SQLite format 3\0" + bytes(50))
    value = f"{folder}{os.pathsep}{OWN / 'proj_data'}" if kind == "list" else str(folder)
    left, said = run("import segcore\n" + _USE, **{variable: value})
    assert (
        left == {} and said.count("\n") == 1 and f"{variable}={value}" in said and f"unset {variable}" in said
    )


def test_rasterio_that_was_imported_before_is_led_back_to_its_own_data(tmp_path):
    folder = database(tmp_path / "proj", 1, 0)
    _, said = run("import rasterio, segcore\n" + _USE, PROJ_LIB=str(folder))
    assert said.count("\n") == 1


def test_proj_data_that_fit_are_kept_without_a_word(tmp_path):
    folder = tmp_path / "own with grids"
    shutil.copytree(OWN / "proj_data", folder)
    (folder / "my_grid.tif").write_bytes(b"grid")
    left, said = run("import segcore\n" + _USE, PROJ_DATA=str(folder))
    assert left == {"PROJ_DATA": str(folder)} and said == ""


def test_gdal_data_and_plugins_of_others_are_dropped_together_in_one_line(tmp_path):
    (tmp_path / "gdal_FOO.so").write_bytes(b"no library")
    left, said = run(
        "import segcore\n" + _USE,
        **dict.fromkeys(("GDAL_DATA", "GDAL_DRIVER_PATH", "OGR_DRIVER_PATH"), str(tmp_path)),
    )
    assert left == {} and said.count("\n") == 1 and "unset GDAL_DATA GDAL_DRIVER_PATH OGR_DRIVER_PATH" in said


def test_gdal_data_that_are_complete_and_disabled_plugins_are_kept(tmp_path):
    shutil.copytree(OWN / "gdal_data", tmp_path / "data")
    given = {"GDAL_DATA": str(tmp_path / "data"), "GDAL_DRIVER_PATH": "disable"}
    assert run("import segcore\n" + _USE, **given) == (given, "")


def test_children_say_nothing_again(tmp_path):
    folder = database(tmp_path / "proj", 1, 0)
    program = "import subprocess, sys, segcore; subprocess.run([sys.executable, '-c', 'import segcore']); print('{}')"
    _, said = run(program, PROJ_LIB=str(folder))
    assert said.count("\n") == 1


@pytest.mark.parametrize("error_of", [unreadable, layer_unreadable])
def test_an_error_of_proj_does_not_blame_the_file(error_of):
    text = "PROJ: internal_proj_create_from_database: Cannot find proj.db"
    error = error_of(Path("a.tif"), ValueError(text))
    assert text in error.what and error.kind == "unusable" and "unset PROJ_LIB" in error.remedy
    assert error_of(Path("a.tif"), ValueError("damaged")).kind != "unusable"
