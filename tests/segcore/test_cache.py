"""The cache: results of other settings, data or code are never used."""

import json
from pathlib import Path

import pytest

from segcore.cache import CODE, Cache, code_digest
from segcore.ingest.cache import IngestCache
from segcore.splits.prepare import PrepareCache
from tests.support.changed_code import Code, files_of
from tests.support.tiny import params_for


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Code:
    return Code(tmp_path / "code", monkeypatch)


def test_other_facts_find_an_empty_folder_and_the_same_facts_the_results(tmp_path: Path) -> None:
    one = Cache(tmp_path, "settings", "code")
    one.start()
    (one.folder / "result").write_text("1")
    assert (Cache(tmp_path, "settings", "code").folder / "result").read_text() == "1"
    assert not (Cache(tmp_path, "settings", "other code").folder / "result").exists()


def test_results_of_other_facts_are_removed_when_new_ones_are_written(tmp_path: Path) -> None:
    for facts in ("one", "two"):
        cache = Cache(tmp_path, facts)
        cache.start()
        (cache.folder / "result").write_text(facts)
    assert [path.read_text() for path in tmp_path.glob("*/result")] == ["two"]


def test_looking_into_a_cache_removes_nothing(tmp_path: Path) -> None:
    kept = Cache(tmp_path, "one")
    kept.start()
    Cache(tmp_path, "two")
    assert kept.folder.is_dir()


def test_a_room_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_room"):
        code_digest("data", "no_such_room")


@pytest.mark.parametrize("stage", CODE)
def test_every_file_of_the_rooms_of_a_stage_counts(stage: str, code: Code) -> None:
    seen = {code_digest(*CODE[stage])}
    files = files_of(*CODE[stage])
    for name in files:
        code.change(name)
        seen.add(code_digest(*CODE[stage]))
    assert len(seen) == len(files) + 1


def test_a_renamed_file_counts(code: Code) -> None:
    before = code_digest("data")
    (code.folder / "data/volumes.py").rename(code.folder / "data/volume.py")
    assert code_digest("data") != before


# Files that an earlier list of the code of the ingest lacked, such as the one that orients planes.
@pytest.mark.parametrize("name", ["data/volumes.py", "io/grid.py", "io/layouts/pairs.py", "params/data.py"])
def test_rows_that_other_code_read_are_not_recalled(name: str, tmp_path: Path, code: Code) -> None:
    data = params_for(tmp_path).data
    cache = IngestCache(tmp_path / "work", data)
    cache.save({"a": {"stamp": "s", "row": {"packed": "a.safetensors"}}})
    assert IngestCache(tmp_path / "work", data).recall("a", "s", ["a.safetensors"]) is not None
    code.change(name)
    assert IngestCache(tmp_path / "work", data).recall("a", "s", ["a.safetensors"]) is None


# An earlier list lacked the first three. Packed items are found by name only: the code of the ingest counts too.
@pytest.mark.parametrize(
    "name",
    ["splits/assignment.py", "splits/regions.py", "data/raster.py", "data/volumes.py", "io/images/nifti.py"],
)
def test_windows_and_sums_of_other_code_are_not_used(name: str, tmp_path: Path, code: Code) -> None:
    import pandas as pd

    p = params_for(tmp_path)
    windows = pd.DataFrame({"key": [0], "item": ["a"]})
    PrepareCache(tmp_path / "work", p).save({"a": {"count": 1}}, ["a"], windows)
    assert PrepareCache(tmp_path / "work", p).sums == {"a": {"count": 1}}
    code.change(name)
    found = PrepareCache(tmp_path / "work", p)
    assert (found.sums, found.keys, len(found.windows)) == ({}, [], 0)


def test_a_preparation_that_was_killed_while_it_saved_leaves_nothing_half_read(tmp_path: Path) -> None:
    import pandas as pd

    p = params_for(tmp_path)
    PrepareCache(tmp_path, p).save({"a": {}}, ["a"], pd.DataFrame({"key": [0], "item": ["a"]}))
    (sums,) = tmp_path.glob("*/sums.json")
    assert json.loads(sums.read_text()) == {"sums": {"a": {}}, "keys": ["a"]}
    # it is written last
    sums.unlink()
    found = PrepareCache(tmp_path, p)
    assert (found.sums, found.keys, len(found.windows)) == ({}, [], 0)
