"""A reader that fails in the worst ways that a damaged file can cause."""

import errno
import os
import time


def read(what: str) -> str:
    """Crash, hang, fail, or exhaust memory, by the name in `what`; any other text is returned."""
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(600)
    if what == "error":
        raise KeyError("no such band")
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "memory":
        return str(len(bytearray(2**40)))
    return what
