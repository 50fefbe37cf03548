"""Reader processes end with the process that reads with them, also when it is killed and they are in a loop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# `float in range` is a loop of the interpreter that runs no Python code, so no thread and no signal handler can end it
READING = """\
import sys
from tests.support import looping_reader
from segcore.ingest.reader_pool import run_each
for _ in run_each(looping_reader.read, sys.argv[1:], sys.argv[1:], [600.0] * len(sys.argv[1:]), 2):
    pass
"""


def of_session(session: int) -> set[int]:
    """Processes of a session that are no zombies."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            facts = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(facts[3]) == session and facts[0] != "Z":
            found.add(int(folder.name))
    return found


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("how", ["loop", "sleep"])
def test_no_reader_outlives_a_process_that_is_killed(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", READING, f"{how}:{tmp_path}/a", f"{how}:{tmp_path}/b"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    try:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60), "both readers are busy"
        assert len(of_session(process.pid)) >= 4, "itself, the fork server and two readers"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert wait_until(lambda: not of_session(process.pid), 10), "a process stayed"
    finally:
        for pid in of_session(process.pid):
            os.kill(pid, signal.SIGKILL)
