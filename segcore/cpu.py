"""Number of usable CPU cores. Import-light: standard library only."""

import os
from pathlib import Path

# CPU limit of a container: quota (or "max") and period in microseconds
_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Number of CPU cores that this process may use, by its CPU affinity and control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = _CPU_LIMIT.read_text().split() if _CPU_LIMIT.exists() else ("max", "1")
    return allowed if quota == "max" else max(1, min(allowed, round(int(quota) / int(period))))
