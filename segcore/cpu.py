"""How many CPU cores there are to use; the standard library only, for who has no time to load torch."""

import os
from pathlib import Path

_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds a period, or max


def cores() -> int:
    """CPU cores that this process may use, by its affinity and its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _CPU_LIMIT.read_text().split() if _CPU_LIMIT.exists() else ("max", "1")
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
