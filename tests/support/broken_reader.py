"""A reader that does the worst that a damaged file can make it do."""

import errno
import os
import time


def read(what: str) -> str:
    """Crash, hang, fail, or ask for all memory, as told."""
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
