"""Which files below a folder, or of a pattern, are scenes, and what is skipped."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore.errors import DataError
from segcore.io import images
from tasks.scenes import find_scenes
from tests.support.dicom import stack
from tests.support.volumes import write_nifti, write_series


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "study"


def series(folder: Path, ending: str, count: int = 4) -> None:
    """A series whose files are named IM0001 and so on, with this file extension."""
    write_series(folder, stack(count, seed=count))
    for number, file in enumerate(sorted(folder.glob("?.dcm")), 1):
        file.rename(folder / f"IM{number:04d}{ending}")


def found(*given: str) -> tuple[list[str], Counter[str]]:
    """Scenes relative to the current folder, and what was skipped."""
    skipped: Counter[str] = Counter()
    scenes = find_scenes(given, Path("out"), skipped)
    return [scene.relative_to(Path.cwd()).as_posix() for scene in scenes], skipped


def test_a_series_hides_no_series_below_it(study: Path) -> None:
    series(study, ".dcm", count=1)
    series(study / "ct1", ".dcm")
    series(study / "ct2/deep", ".DCM")
    assert found("study")[0] == ["study", "study/ct1", "study/ct2/deep"]
    assert found("stu*")[0] == ["study", "study/ct1", "study/ct2/deep"]


@pytest.mark.parametrize("ending", ["", ".IMA", ".1234", ".img", ".dicom"])
def test_a_series_is_recognised_by_content_and_read_as_with_the_extension_dcm(
    study: Path, ending: str
) -> None:
    series(study / "named", ".dcm")
    series(study / "a/b", ending)
    (study / "a/DICOMDIR").write_bytes((study / f"a/b/IM0001{ending}").read_bytes())
    assert found("study/a") == (["study/a/b"], Counter({_ending("DICOMDIR"): 1}))
    assert np.array_equal(images.read(study / "a/b").pixels, images.read(study / "named").pixels)
    one = f"study/a/b/IM0002{ending}"
    assert found(one)[0] == found("study/a/b/IM0002*")[0] == [one]
    if ending != ".img":
        assert np.array_equal(images.read(Path(one)).pixels, images.read(study / "named/IM0002.dcm").pixels)


def _ending(name: str) -> str:
    return Path(name).suffix or "without extension"


def test_other_images_in_the_folder_of_a_series_are_scenes_and_do_not_disturb_it(study: Path) -> None:
    series(study, "")
    Image.new("RGB", (8, 8)).save(study / "photo.png")
    Image.new("RGB", (8, 8)).save(study / "map.tif")
    write_nifti(study / "v.nii.gz", np.zeros((4, 4, 4), np.int16))
    assert found("study")[0] == ["study", "study/map.tif", "study/photo.png", "study/v.nii.gz"]
    assert images.info(study).depth == 4


def test_files_that_are_no_scenes_are_counted_by_kind_except_those_that_belong_to_an_image(
    study: Path,
) -> None:
    study.mkdir()
    Image.new("RGB", (8, 8)).save(study / "photo.png")
    for name in (
        *("photo.pgw", "photo.png.aux.xml", ".hidden", "Thumbs.db"),
        *("a.txt", "b.TXT", "notes", "deep/x.docx"),
    ):
        (study / name).parent.mkdir(exist_ok=True)
        (study / name).write_text("short")
    expected = Counter({".txt": 2, "without extension": 1, ".docx": 1})
    assert found("study") == (["study/photo.png"], expected)
    with pytest.raises(DataError, match=r"no scene found \(files in the folder: 1 \.docx\)"):
        found("study/deep")


def test_an_output_folder_that_is_not_searched_is_named(study: Path) -> None:
    Path("out").mkdir()
    for name in ("out/a.tif", "out/b.tif"):
        Path(name).touch()
    for given in ("out", "ou*"):
        with pytest.raises(DataError, match=r"no scene found \(.*; the output folder out is not searched\)"):
            found(given)
    study.mkdir()
    with pytest.raises(DataError, match=r"no scene found \(files in the folder: none\)"):
        found("study")
