"""What begins before Prefect is there, and what is handed to stages."""

import os
from pathlib import Path

import pytest

from flows import run_state, startup
from segcore.cpu import cores
from segcore.params import Params
from tasks.versioning.status import Survey
from tests.support.tiny import params_for


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Survey]:
    """A folder in which a survey was begun; the surveys that were made."""
    made: list[Survey] = []

    def survey() -> Survey:
        made.append(Survey([], {str(len(made))}))
        return made[-1]

    (tmp_path / ".dvc").mkdir()
    (tmp_path / "params.yaml").write_text("seeds: [0]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["flows.compare"])
    monkeypatch.setattr(startup, "survey", survey)
    startup.begin()
    return made


def test_a_survey_that_was_begun_is_taken_once(begun: list[Survey]) -> None:
    assert startup.take_survey() is begun[0] and len(begun) == 1
    assert startup.take_survey() is begun[1]


def test_a_survey_older_than_params_yaml_is_made_anew(begun: list[Survey]) -> None:
    Path("params.yaml").write_text("seeds: [0, 1]\n")
    found = startup.take_survey()
    assert len(begun) == 2 and found is begun[1]


def test_stages_that_share_cpus_get_their_part_of_the_cores(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params: Params = params_for(pairs)
    two = params.model_copy(update={"machine": params.machine.model_copy(update={"slots": 2})})
    monkeypatch.setattr(run_state, "gpus", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_state.thread_variables(two) == {"OMP_NUM_THREADS": str(max(1, cores() // 2))}
    assert "OMP_NUM_THREADS" not in os.environ, "it is the stages' alone: the gate measures with all cores"
    assert run_state.thread_variables(params) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run_state.thread_variables(two) == {}, "the user has said"
