"""segcore installs as a library: it imports fast in any folder, and the documentation's examples run."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.bundles import OBJECTS, make_bundle, noise
from tests.support.tiny import write_tif

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def python(code: str, folder: Path, packages: Path) -> str:
    """Output of a Python process in `folder` that finds segcore in `packages`."""
    env = {**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built from a copy, because a build leaves files in the source folder."""
    source = tmp_path_factory.mktemp("source")
    for name in ("segcore", "tasks", "flows"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    done = subprocess.run(
        [*command, "--wheel-dir", str(source / "dist"), "."], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("segflow-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed packages, outside the repository."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True)
    return target


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the examples read: models/unet-0, image.npy and scene.tif."""
    make_bundle(tmp_path / "models/unet-0", input={"dtype": "uint8"}, objects=OBJECTS)
    pixels = noise(70, 90)
    np.save(tmp_path / "image.npy", np.moveaxis(pixels, 0, -1))
    write_tif(tmp_path / "scene.tif", pixels)
    return tmp_path


def test_the_wheel_holds_the_packages_with_types_and_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("segcore", "tasks", "flows")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert "segcore/py.typed" in names and "tasks/templates/page.html.j2" in names


def test_an_installed_copy_predicts_an_array_in_any_folder(installed: Path, folder: Path) -> None:
    code = (
        "import numpy as np, segcore\n"
        "print(segcore.__file__)\n"
        "print(segcore.load('models/unet-0').predict(np.load('image.npy')).classes.shape)"
    )
    assert python(code, folder, installed).split("\n")[:2] == [
        str(installed / "segcore/__init__.py"),
        "(70, 90)",
    ]


def test_importing_segcore_loads_nothing_slow(installed: Path, tmp_path: Path) -> None:
    code = "import sys; before = set(sys.modules); import segcore; dir(segcore); print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in python(code, tmp_path, installed).split()}
    assert "segcore" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "rasterio", "pydantic", "PIL", "scipy", "yaml"}


@pytest.mark.parametrize("page", ["README.md", "docs/guide/library.md"])
def test_the_examples_of_the_documentation_run(page: str, installed: Path, folder: Path) -> None:
    blocks = CODE.findall((ROOT / page).read_text(encoding="utf-8"))
    assert any("segcore.load(" in block for block in blocks)
    python("\n".join(blocks), folder, installed)
    if page == "README.md":
        assert np.load(folder / "classes.npy").shape == (70, 90)
    else:
        assert (folder / "predictions/scene.tif").is_file()
