"""Which operators keep two runs of one seed from giving equal weights."""

import os
import warnings

import torch

_WARNING = "does not have a deterministic implementation"


def grade(wanted: bool, names: list[str]) -> str:
    """What may be said of two runs of one seed with the same choices: "bit-exact", or what prevents it.

    Args:
        wanted: whether deterministic algorithms were asked for; nothing was watched otherwise.
        names: of `Determinism`.
    """
    if not wanted:
        return "not asked for (deterministic: false)"
    return f"not bit-exact: {', '.join(names)}" if names else "bit-exact"


class Determinism:
    """Deterministic algorithms where there are any; operators without one are named, not hidden."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.names: set[str] = set()

    def __enter__(self) -> set[str]:
        if self.wanted:
            os.environ.setdefault(
                "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
            )  # else cuBLAS may add in another order
        torch.use_deterministic_algorithms(self.wanted, warn_only=True)
        torch.backends.cudnn.benchmark = not self.wanted  # tries kernels, and may take others the next time
        # Filling fresh tensors with NaN finds bugs in operators; it costs a sixth of a step here.
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
        torch.use_deterministic_algorithms(False)
