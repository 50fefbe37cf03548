"""Deterministic algorithms, and which operators have none, so that two runs with one seed may differ."""

import os
import warnings

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_WARNING = "does not have a deterministic implementation"


def grade(wanted: bool, names: list[str]) -> str:
    """Reproducibility of a run with the same seed and runtime: "bit-exact", or what prevents it.

    Args:
        wanted: whether deterministic algorithms were requested; if not, operators were not recorded.
        names: operators without a deterministic form, from `Determinism`.
    """
    if not wanted:
        return "not asked for (deterministic: false)"
    return f"not bit-exact: {', '.join(names)}" if names else "bit-exact"


class Determinism:
    """Context with deterministic algorithms where available; its value collects the names of operators without one.

    On exit, PyTorch's switches and the environment variable of cuBLAS are restored.
    """

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.names: set[str] = set()

    def __enter__(self) -> set[str]:
        self._before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            os.environ.get(_WORKSPACE),
        )
        if self.wanted:
            # without it, the order of cuBLAS's sums may vary
            os.environ.setdefault(_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(self.wanted, warn_only=True)
        # benchmarking may choose other kernels in the next run
        torch.backends.cudnn.benchmark = not self.wanted
        # Filling new tensors with NaN only serves to find bugs in operators; it takes a sixth of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self._catch = warnings.catch_warnings(record=True)
        self._caught = self._catch.__enter__()
        warnings.simplefilter("always")
        return self.names

    def __exit__(self, *exception: object) -> None:
        self._catch.__exit__(None, None, None)
        for caught in self._caught or []:
            text = str(caught.message)
            if _WARNING in text:
                self.names.add(text.split(" ")[0])
            else:
                warnings.warn_explicit(caught.message, caught.category, caught.filename, caught.lineno)
        enabled, warn_only, benchmark, fill, workspace = self._before
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
