"""Adding data costs only the new data: no old item is read, packed or indexed again, and memory does not grow."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import rasterio
from PIL import Image

from segcore.data.packed import Packed
from segcore.splits import prepare as preparation
from segcore.splits import windows
from tasks.ingest import ingest
from tasks.prepare import prepare
from tests.support.tiny import blobs, make_pairs, params_for

ROOT = Path(__file__).parents[2]
COUNT = 20


def _add(folder: Path, name: str, seed: int) -> None:
    image, mask = blobs(48, 56, seed)
    Image.fromarray(image).save(folder / "images" / f"{name}.png")
    Image.fromarray(mask * 255).save(folder / "masks" / f"{name}.png")


def _facts(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Inode, modification time and SHA-256 of each file, by name."""
    return {
        f.name: (f.stat().st_ino, f.stat().st_mtime_ns, hashlib.sha256(f.read_bytes()).hexdigest())
        for f in folder.iterdir()
    }


class Project:
    """A folder with images; records the packed files opened and items indexed by the last `prepare`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.source = root, make_pairs(root / "source", count=COUNT)
        self.p = params_for(self.source, split={"links": []})
        self.opened: set[str] = set()
        self.indexed: list[str] = []
        init, index_item = Packed.__init__, windows.index_item

        def opening(packed: Packed, path: Path) -> None:
            self.opened.add(path.name)
            init(packed, path)

        def indexing(row: object, *rest: object) -> np.ndarray:
            self.indexed.append(row.id)  # type: ignore[attr-defined]
            return index_item(row, *rest)

        monkeypatch.setattr(Packed, "__init__", opening)
        monkeypatch.setattr(preparation.windows, "index_item", indexing)

    def ingest(self) -> pd.DataFrame:
        return pd.read_parquet(ingest(self.p.data, self.root / "data" / "ingested"))

    def prepare(self, target: str = "prepared", work: str = "work") -> Path:
        data = self.root / "data"
        self.opened.clear()
        self.indexed.clear()
        registry = self.root / f"{target}.csv"
        return prepare(self.p, data / "ingested", data / target, registry, data / work)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


def test_new_items_only_add_packed_files(project):
    project.ingest()
    packed = project.root / "data" / "packed"
    before = _facts(packed)
    _add(project.source, "new", seed=500)
    table = project.ingest()
    after = _facts(packed)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {table.set_index("id").at["new", "packed"]}


def test_unchanged_files_are_not_read_again(project):
    project.ingest()
    images = sorted(project.source.rglob("*.png"))
    # same size, time and inode, but no longer images: reading one would fail
    for path in images:
        status = path.stat()
        with path.open("r+b") as file:
            file.write(b"\0" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    _add(project.source, "new", seed=500)
    table = project.ingest()
    assert len(table) == COUNT + 1 and (table["status"] == "accepted").all()


def test_prepare_opens_and_indexes_only_new_items(project):
    project.ingest()
    project.prepare()
    assert len(project.indexed) == COUNT and project.opened
    project.prepare()
    assert project.indexed == [] and project.opened == set()
    _add(project.source, "new", seed=500)
    table = project.ingest()
    project.prepare()
    assert project.indexed == ["new"]
    assert project.opened <= {table.set_index("id").at["new", "packed"]}


def test_items_without_training_windows_are_cached_too(project):
    project.ingest()
    regions = pd.read_parquet(project.prepare() / "regions.parquet")
    assert set(regions["split"]) == {"train", "validation", "test"}
    held_out = set(regions.loc[regions["split"] != "train", "item"])
    assert held_out & set(project.indexed)
    project.prepare()
    assert not held_out & set(project.indexed)


def test_prepared_data_are_the_same_cached_or_computed(project):
    project.ingest()
    project.prepare()
    # its name sorts between those of old items
    _add(project.source, "a05b", seed=500)
    project.ingest()
    project.prepare()
    grown = project.root / "data" / "prepared"
    registry = (project.root / "prepared.csv").read_text()
    (project.root / "again.csv").write_text(registry)
    computed = project.prepare("again", work="other work")
    assert len(project.indexed) == COUNT + 1
    for name in ("items", "regions", "windows"):
        left, right = (pd.read_parquet(folder / f"{name}.parquet") for folder in (grown, computed))
        pd.testing.assert_frame_equal(left, right)
    for name in ("statistics.json", "prepared.json"):
        assert (grown / name).read_text() == (computed / name).read_text()


def test_a_changed_item_is_read_again_and_its_old_packed_file_is_removed(project):
    first = project.ingest().set_index("id")
    _add(project.source, "a3", seed=500)
    second = project.ingest().set_index("id")
    changed = first.index[first["packed"] != second["packed"]]
    assert list(changed) == ["a3"]
    names = {f.name for f in (project.root / "data" / "packed").iterdir()}
    assert second.at["a3", "packed"] in names and first.at["a3", "packed"] not in names


def _scene(folder: Path, side: int) -> Path:
    for kind, bands in (("images", 3), ("masks", 1)):
        (folder / kind).mkdir(parents=True)
        profile = {"driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint8"}
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        profile |= {"transform": rasterio.Affine(0.5, 0, 0, 0, -0.5, 0)}
        rng = np.random.default_rng(side)
        with rasterio.open(folder / kind / "scene.tif", "w", **profile) as out:
            for row in range(0, side, 256):
                rows = min(256, side - row)
                cells = rng.integers(1, 200, (bands, -(-rows // 16), -(-side // 16)), dtype=np.uint8)
                values = cells.repeat(16, axis=1).repeat(16, axis=2)[:, :rows, :side]
                values = values if bands == 3 else (values > 120).astype(np.uint8) * 255
                out.write(values, window=rasterio.windows.Window(0, row, side, rows))
    return folder


READ = """
import sys
from pathlib import Path
from segcore.ingest import catalog
from segcore.io import layouts
from tests.support.tiny import params_for
source, work = map(Path, sys.argv[1:])
data = params_for(source, scene=True).data
(item,) = layouts.find(data, source)
from segcore.ingest import inspection
inspection.inspect_job((item, source, data, work, "settings"))
"""


def _peak(folder: Path, side: int) -> int:
    """Peak memory in bytes of reading and packing one scene."""
    _scene(folder / "source", side)
    (folder / "work").mkdir()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = psutil.Popen(
        [sys.executable, "-c", READ, str(folder / "source"), str(folder / "work")], env=env
    )
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
            process.wait(0.01)
        except (subprocess.TimeoutExpired, psutil.TimeoutExpired, psutil.NoSuchProcess):
            continue
    assert process.returncode == 0
    return peak


def test_memory_does_not_grow_with_the_size_of_a_scene(tmp_path):
    small, large = (_peak(tmp_path / str(side), side) for side in (1_000, 5_000))
    # pixels, labels and validity of the larger scene take 125 MB
    assert large < small + 60e6
