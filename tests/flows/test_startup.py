"""Environment variables that a flow hands to its stages."""

import os
from pathlib import Path

import pytest

from flows import run_state
from segcore.cpu import cores
from segcore.params import Params
from tests.support.tiny import params_for


def test_parallel_stages_divide_the_cores(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params: Params = params_for(pairs)
    two = params.model_copy(update={"machine": params.machine.model_copy(update={"slots": 2})})
    monkeypatch.setattr(run_state, "gpus", lambda: 0)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_state.thread_variables(two) == {"OMP_NUM_THREADS": str(max(1, cores() // 2))}
    assert "OMP_NUM_THREADS" not in os.environ, "it applies to stages only: the gate measures with all cores"
    assert run_state.thread_variables(params) == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run_state.thread_variables(two) == {}, "the user's setting is kept"
