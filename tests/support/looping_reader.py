"""A reader that does not end."""

import time
from pathlib import Path


def read(what: str) -> None:
    """Create the file of "how:path", then "loop" in the interpreter without running Python code, or "sleep"."""
    how, _, path = what.partition(":")
    Path(path).touch()
    if how == "loop":
        # a linear search
        assert 0.5 not in range(2**62)
    time.sleep(600)
