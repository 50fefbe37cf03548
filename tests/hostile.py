"""A reader that does the worst that a damaged file can make it do."""

import os
import time


def read(what: str) -> str:
    """Crash, hang, or ask for all memory, as told."""
    if what == "crash":
        os.abort()
    if what == "hang":
        time.sleep(600)
    if what == "memory":
        return str(len(bytearray(2**40)))
    return what
