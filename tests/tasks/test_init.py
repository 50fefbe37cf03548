"""`python -m tasks init`: the section that is written is one that an ingest takes."""

import shutil
from pathlib import Path

import pytest
import yaml

from segcore import params
from segcore.errors import DataError, StageError
from tasks.ingest import ingest
from tasks.init import init
from tests.support.tiny import make_pairs

EXAMPLES = Path("examples").resolve()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_pairs(tmp_path / "My Fields", count=6)
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_becomes_params_yaml_that_an_ingest_takes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init("My Fields")
    shown, text = capsys.readouterr().out, Path("params.yaml").read_text()
    assert (
        "6 images with masks" in shown and "6 of 6 items can be used" in shown and "make check-data" in shown
    )
    assert "# guessed: values of 6 of 6 masks" in text and list(yaml.safe_load(text)) == ["data"]
    data = params.load().data
    assert (data.name, data.source, data.classes) == ("my-fields", "My Fields", ["background", "foreground"])
    catalogue = ingest(data)
    assert catalogue.exists() and not (project / "data/ingested/quarantine.csv").read_text().splitlines()[1:]


def test_the_users_own_file_is_kept_and_an_examples_is_replaced(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "data: {name: mine, source: x, classes: [background, a], label_values: {0: background, 1: a}}\n"
    Path("params.yaml").write_text(own)
    with pytest.raises(StageError, match="kept") as caught:
        init("My Fields")
    assert "--force" in caught.value.remedy and "name: my-fields" in capsys.readouterr().out
    assert Path("params.yaml").read_text() == own
    init("My Fields", force=True)
    assert params.load().data.name == "my-fields" and Path("work/params-mine.yaml").read_text() == own
    example = yaml.safe_load(Path("examples/buildings.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({"data": example["data"]}))
    init("My Fields")
    assert params.load().data.name == "my-fields"


def test_a_section_of_which_no_item_can_be_used_is_shown_and_not_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in Path("My Fields/images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        init("My Fields")
    assert not Path("params.yaml").exists()
