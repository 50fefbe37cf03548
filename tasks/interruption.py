"""Ctrl-C and failures before a command can report them: while its modules are imported, which takes seconds."""

import sys
from types import TracebackType


def report_in_one_line() -> None:
    """Make this process print one line instead of a traceback at Ctrl-C, and for known failures."""
    sys.excepthook = _report


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr, flush=True)
        return
    # it imports further modules
    from tasks.failures import explained

    known = explained(error)
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"\nError: {known}", file=sys.stderr, flush=True)
