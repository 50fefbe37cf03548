"""With new data, DVC runs ingest and prepare again, and stores and transfers only the new files."""

import hashlib
import shutil
from pathlib import Path

import yaml
from PIL import Image

from tests.support import workspaces
from tests.support.tiny import blobs, make_pairs, values_for

COUNT = 40
# may change with every new item; all others are one file per item
TABLES = {
    *("catalog.parquet", "links.parquet", "quarantine.csv"),
    *("items.parquet", "regions.parquet", "windows.parquet", "statistics.json", "prepared.json"),
}


def _stored(remote: Path) -> set[str]:
    """MD5 sums of the files in a remote; those of folder lists end in .dir."""
    return {f.parent.name + f.name for f in (remote / "files" / "md5").glob("*/*")}


def _prepared_and_pushed(folder: Path, remote: Path) -> tuple[set[str], dict[Path, str]]:
    """MD5 sums in the remote after a push, and the MD5 sum of every data file."""
    workspaces.dvc(folder, "repro", "prepare")
    workspaces.dvc(folder, "push", "ingest", "prepare")
    files = [f for f in (folder / "data").rglob("*") if f.is_file()]
    return _stored(remote), {
        f.relative_to(folder / "data"): hashlib.md5(f.read_bytes(), usedforsecurity=False).hexdigest()
        for f in files
    }


def test_a_second_push_transfers_one_packed_file_and_the_tables(tmp_path):
    folder, remote = workspaces.copy_code(tmp_path / "project"), tmp_path / "remote"
    shutil.copy(workspaces.ROOT / "dvc.yaml", folder)
    source = make_pairs(folder / "pictures", count=COUNT)
    values = values_for("pictures", split={"links": []})
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    workspaces.dvc(folder, "remote", "add", "--local", "--default", "store", str(remote))
    before, files = _prepared_and_pushed(folder, remote)
    packed = {path for path in files if path.parts[0] == "packed"}
    assert len(packed) == COUNT and {files[path] for path in packed} <= before

    image, mask = blobs(48, 56, seed=500)
    Image.fromarray(image).save(source / "images" / "new.png")
    Image.fromarray(mask * 255).save(source / "masks" / "new.png")
    after, grown = _prepared_and_pushed(folder, remote)
    assert {path: grown[path] for path in packed} == {path: files[path] for path in packed}
    name = {md5: path for path, md5 in grown.items()}
    new = after - before
    lists = {md5 for md5 in new if md5.endswith(".dir")}
    # ingested, packed, prepared
    assert len(lists) == 3
    (added,) = (name[md5] for md5 in new - lists if name[md5].parts[0] == "packed")
    assert added.name.startswith("new-")
    assert {name[md5].name for md5 in new - lists} - {added.name} <= TABLES
