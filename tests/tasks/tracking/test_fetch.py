"""Registered bundles are fetched by version; altered ones are refused, and copies used where the store has none."""

import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from segcore.errors import DataError, ModelError
from segcore.files import locked
from segcore.params import Params
from tasks.bundles import read_history, read_local
from tasks.project import COMPARE_LOCK
from tasks.tracking.fetch import fetch_model, find_model, folder_name
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker
from tests.support.bundles import make_bundle, rewrite
from tests.support.tiny import params_for


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Params]:
    """A project with one registered bundle, models/unet-0, and the files that the store has of it."""
    folder = tmp_path_factory.mktemp("fetch")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        p = params_for("source", tracking={"uri": f"sqlite:///{folder}/mlflow.db"})
        Registry(Tracker.open(p)).register(make_bundle(folder / "models/unet-0"), None, {})
    return folder, p


@pytest.fixture
def project(registered: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its folder; what a test changes in it is put back."""
    folder, _ = registered
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.rmtree(folder / "work", ignore_errors=True)
    kept = {path: path.read_bytes() for path in [*stored(folder).glob("model.*"), *folder.glob("models/*/*")]}
    yield folder
    for path, content in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def p(registered: tuple[Path, Params]) -> Params:
    return registered[1]


def stored(folder: Path) -> Path:
    (path,) = folder.glob("mlruns/**/model.json")
    return path.parent


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


ADDRESS = "models:/tiny/1"


def test_a_version_has_the_hashes_of_both_files(project: Path, p: Params) -> None:
    tags = Tracker.open(p).client.get_model_version("tiny", "1").tags
    read = read_local(project / "models/unet-0")
    assert tags["weights_sha256"] == read.weights_sha256
    assert tags["description_sha256"] == read.description_sha256


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_an_altered_bundle_in_the_store_is_refused_with_its_path_in_the_store(
    project: Path, p: Params, name: str
) -> None:
    path = stored(project) / name
    if name == "model.json":
        # sound in itself, but not what was registered
        rewrite(stored(project), lambda d: d.update(classes=d["classes"][::-1]))
    else:
        flip(path)
    # a sound copy does not hide that the store was altered
    shutil.copytree(project / "models/unet-0", project / "work/champion/1")
    with pytest.raises(ModelError) as caught:
        find_model(p, ADDRESS)
    assert caught.value.what.startswith(str(path)) and "make registry" in caught.value.remedy
    assert not (project / "work/predict/tiny-1").exists()


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_an_altered_copy_in_work_is_fetched_again(project: Path, p: Params, name: str) -> None:
    folder = find_model(p, ADDRESS).bundle.folder
    assert folder == Path("work/predict/tiny-1")
    flip(folder / name, 30)
    find_model(p, ADDRESS)
    assert (folder / name).read_bytes() == (project / "models/unet-0" / name).read_bytes()


def test_a_copy_of_the_registered_files_is_used_if_those_of_the_store_are_gone(
    project: Path, p: Params
) -> None:
    gone = stored(project)
    shutil.rmtree(gone)
    with pytest.raises(ModelError) as caught:
        find_model(p, ADDRESS)
    assert f"{gone} is gone" in caught.value.what and "make registry OPTIONS=--rebuild" in caught.value.remedy
    copy = project / "work/champion/1"
    shutil.copytree(project / "models/unet-0", copy)
    flip(copy / "model.safetensors")
    with pytest.raises(ModelError, match="is gone"):
        find_model(p, ADDRESS)
    flip(copy / "model.safetensors")
    assert find_model(p, ADDRESS).version == 1
    shutil.rmtree(copy)
    assert fetch_model(Tracker.open(p).client, ADDRESS, copy) == copy, "from work/predict"


def test_a_single_file_that_is_gone_is_named(project: Path, p: Params) -> None:
    (stored(project) / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"artifacts/model\.safetensors: is not the file.*missing"):
        find_model(p, ADDRESS)
    (stored(project) / "model.json").unlink()
    with pytest.raises(ModelError, match=r"artifacts/model\.json is gone"):
        find_model(p, ADDRESS)


def test_versions_without_a_hash_of_the_description_are_accepted(project: Path, p: Params) -> None:
    client = Tracker.open(p).client
    version = client.get_model_version("tiny", "1")
    client.delete_model_version_tag("tiny", "1", "description_sha256")
    rewrite(stored(project), lambda d: None)
    try:
        assert find_model(p, ADDRESS).version == 1
        flip(stored(project) / "model.safetensors")
        shutil.rmtree(project / "work")
        with pytest.raises(ModelError, match="is not the file"):
            find_model(p, ADDRESS)
    finally:
        client.set_model_version_tag("tiny", "1", "description_sha256", version.tags["description_sha256"])


def test_folders_of_versions_are_distinct_and_inside_their_parent() -> None:
    names = ["a", "a-1", "..", ".", "a b", "a%20b", "a\\b", "é", "e", "x" * 300, "x" * 301, ".x.lock", "a\nb"]
    folders = [folder_name(name, number) for name in names for number in (1, 11)]
    assert len(set(folders)) == len(folders)
    assert all(Path(f).name == f and len(f) < 100 and f not in (".", "..") for f in folders)
    assert folder_name("tiny", 3) == "tiny-3"


@pytest.mark.slow
def test_two_processes_that_fetch_one_version_do_not_disturb_each_other(project: Path, p: Params) -> None:
    (project / "params.json").write_text(p.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from segcore.params import Params; "
        "from tasks.tracking.fetch import find_model; "
        "print(find_model(Params.model_validate_json(Path('params.json').read_text()), sys.argv[1]).version)"
    )
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}", ADDRESS]
    both = [subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=200)[0] for process in both] == ["1\n", "1\n"]
    assert not [f for f in (project / "work/predict").iterdir() if f.name.endswith((".part", ".old"))]


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_an_altered_trained_model_is_refused_with_the_command_that_restores_it(
    project: Path, p: Params, name: str
) -> None:
    flip(project / "models/unet-0" / name, 50)
    with pytest.raises(ModelError) as caught:
        find_model(p, "models/unet-0")
    assert caught.value.what.startswith(f"models/unet-0/{name}: ")
    assert "dvc checkout --force models/unet-0" in caught.value.remedy
    shutil.copytree(project / "models/unet-0", project / "elsewhere", dirs_exist_ok=True)
    with pytest.raises(ModelError) as caught:
        read_local(project / "elsewhere")
    assert "dvc" not in caught.value.remedy


def test_a_model_that_a_running_comparison_may_train_again_is_no_model_to_train_first(tmp_path: Path) -> None:
    folder = tmp_path / "models/unet-0"
    for holder, remedy in (
        (nullcontext(), "train it first"),
        (locked(tmp_path / COMPARE_LOCK), "wait until"),
    ):
        with holder, pytest.raises(ModelError, match="holds no model bundle") as caught:
            read_local(folder)
        assert remedy in caught.value.remedy


def test_a_history_that_was_altered_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "models/unet-0", files={"history.csv": "0" * 64})
    (folder / "history.csv").write_text("step,val_iou\n")
    with pytest.raises(ModelError, match=r"history\.csv: is not the file") as caught:
        read_history(folder)
    assert "dvc checkout --force models/unet-0" in caught.value.remedy


def test_work_that_cannot_be_written_to_is_an_error(project: Path, p: Params) -> None:
    (project / "work").write_text("a file")
    try:
        with pytest.raises(DataError) as caught:
            find_model(p, ADDRESS)
        assert "work" in caught.value.what
    finally:
        (project / "work").unlink()
