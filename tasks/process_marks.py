"""Marks that identify a process across processes and reuse of process ids: host, process id and start time."""

import socket

import psutil


def process_mark(pid: int | None = None) -> str:
    """Mark of a process on this machine, unique even when its process id is reused.

    Args:
        pid: process id; None: this process.

    Raises:
        psutil.NoSuchProcess: no process has this id.
    """
    process = psutil.Process(pid)
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def is_alive(mark: str) -> bool:
    """Whether the process of a mark is running; processes of other hosts count as running."""
    host, pid, _ = mark.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return process_mark(int(pid)) == mark
    except psutil.NoSuchProcess:
        return False
