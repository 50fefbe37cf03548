"""Deterministic training restores the switches of PyTorch."""

import os

import pytest
import torch

from segcore.training.determinism import Determinism


def switches() -> tuple[object, ...]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.fixture
def restored():
    """Restore the switches after a test."""
    enabled, warn_only, benchmark, fill, _ = switches()
    yield
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.utils.deterministic.fill_uninitialized_memory = fill


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize(
    "before", [(False, False, False, True), (True, True, True, False), (True, False, False, True)]
)
def test_every_switch_is_afterwards_as_it_was_before(wanted, before, monkeypatch):
    enabled, warn_only, benchmark, fill = before
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    torch.utils.deterministic.fill_uninitialized_memory = fill
    expected = switches()

    def fail_inside():
        with Determinism(wanted):
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert torch.backends.cudnn.benchmark == (not wanted)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert switches() == expected


def test_a_workspace_that_the_user_chose_stays(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with Determinism(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
