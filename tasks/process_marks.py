"""Marks by which a process is recognised later, by another process: host, process id and start time."""

import socket

import psutil


def process_mark(pid: int | None = None) -> str:
    """Mark of a process of this machine, unique for all time.

    Args:
        pid: process id; None: this process.

    Raises:
        psutil.NoSuchProcess: there is no such process.
    """
    process = psutil.Process(pid)
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def is_alive(mark: str) -> bool:
    """Whether the process of a mark is running; a process of another host counts as running."""
    host, pid, _ = mark.rsplit(":", 2)
    if host != socket.gethostname():
        return True
    try:
        return process_mark(int(pid)) == mark
    except psutil.NoSuchProcess:
        return False
