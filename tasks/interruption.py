"""Ctrl-C before a command can report it: while its modules are imported, which takes seconds."""

import sys
from types import TracebackType


def report_in_one_line() -> None:
    """Make this process print one line instead of a traceback at Ctrl-C."""
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr, flush=True)
    else:
        sys.__excepthook__(kind, error, trace)
