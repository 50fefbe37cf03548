"""torchrun by forks of one process, for test_distributed.py: `forked_torchrun.py 2 SCRIPT ARGUMENTS`.

The real torchrun and each of its processes import torch, which takes longer than the tested code.
"""

import os
import runpy
import signal
import socket
import sys

import torch._dynamo  # noqa: F401 (an optimizer needs it)
import torchvision  # noqa: F401

from segcore.training import loop  # noqa: F401


def _become(rank: int, processes: int, port: int, script: str, arguments: list[str]) -> None:
    """Run the script in this process with torchrun's variables."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def main(processes: int, script: str, arguments: list[str]) -> int:
    """Run the processes; the exit status is 0 if all of them succeed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = set()
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            _become(rank, processes, port, script, arguments)
            sys.exit(0)
        children.add(child)
    worst = 0
    while children:
        ended, status = os.wait()
        children.discard(ended)
        worst = worst or abs(os.waitstatus_to_exitcode(status))
        # the others would wait for the failed process
        for left in children if worst else ():
            os.kill(left, signal.SIGKILL)
    return worst


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
