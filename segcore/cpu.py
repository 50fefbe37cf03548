"""Name, usable cores and waiting threads of the processor. Import-light: standard library only."""

import ctypes
import os
import platform
import re
from pathlib import Path

# Turns in which a thread of OpenMP waits actively for the others before it sleeps; libgomp's own choice where there are
# more threads than cores. Its default, 300,000, occupies a core that the awaited thread may need: beside two busy
# processes on two cores, a training was slower by a factor of two to eight.
SPIN_COUNT = "1000"
# CPU limit of a container: quota (or "max") and period in microseconds
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def spin_briefly() -> None:
    """Let waiting threads of OpenMP sleep soon, unless the user has set how they wait; before torch is loaded."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def processor() -> str:
    """Name of the processor, such as "AMD EPYC 7B13"."""
    listing = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", listing.read_text()) if listing.exists() else None
    return model.group(1).strip() if model else platform.processor() or platform.machine()


def cores() -> int:
    """Number of CPU cores that this process may use, by its CPU affinity and control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _CPU_LIMIT.read_text().split() if _CPU_LIMIT.exists() else ("max", "1")
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))


def keep_memory() -> None:
    """Make malloc keep freed memory and not map large blocks: the kernel clears every page that it maps.

    Holds for this process from now on; only with the GNU C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    trim, top_pad, map_max = -1, -2, -4
    for option, value in ((map_max, 0), (trim, 2**31 - 1), (top_pad, 64 * 2**20)):
        libc.mallopt(ctypes.c_int(option), ctypes.c_int(value))
