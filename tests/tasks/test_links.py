"""A managed folder behind a link to another disk, or a link that leads nowhere, is named with the right remedy."""

import subprocess
from pathlib import Path

import pytest

from segcore.errors import DataError, StageError
from segcore.files import atomic_folder, atomic_write, locked
from tasks.failures import explained
from tasks.links import require_folders


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    for name in ("data/ingested", "models", "evaluations", "reports", "work", "decisions"):
        (folder / name).mkdir(parents=True)
    return folder


def link(project: Path, name: str) -> Path:
    """Move a folder to another place, and leave a link to it."""
    target = project.parent / "other disk" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    (project / name).rename(target)
    (project / name).symlink_to(target)
    return target


@pytest.mark.parametrize("name", ["data", "data/ingested", "models", "evaluations", "reports", "decisions"])
def test_a_managed_folder_behind_a_link_is_refused_and_the_remedy_works(project: Path, name: str) -> None:
    require_folders(project)
    target = link(project, name)
    with pytest.raises(StageError, match=f"^{name}: is a link to {target}, which is outside") as caught:
        require_folders(project)
    command = caught.value.remedy.partition("(`")[2].partition("`)")[0]
    subprocess.run(command, shell=True, check=True)
    require_folders(project)
    assert (project / name).is_dir() and not (project / name).is_symlink()


def test_work_may_be_a_link_and_so_may_the_project_itself(project: Path) -> None:
    link(project, "work")
    other = project.with_name("link")
    other.symlink_to(project)
    require_folders(project)
    require_folders(other)


@pytest.mark.parametrize("name", ["data", "models", "work"])
def test_a_link_that_leads_nowhere_is_named_wherever_it_is_met(project: Path, name: str) -> None:
    link(project, name).rename(project.with_name("away"))
    with pytest.raises(StageError, match=r"which leads nowhere[\s\S]*mount or restore"):
        require_folders(project)
    for use in (atomic_folder, atomic_write, locked):
        with (
            pytest.raises(DataError, match=rf"{name}: is a link to .* leads nowhere"),
            use(project / name / "x"),
        ):
            pass
    with pytest.raises(FileExistsError) as caught:
        (project / name).mkdir(exist_ok=True)
    assert "leads nowhere" in str(explained(caught.value))
