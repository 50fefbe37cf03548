"""A command in a process group ends with its parent, whatever its children do, and both outputs are returned."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks import supervisor

ROOT = Path(__file__).parents[2]
# A command and its child, which may ignore SIGTERM, like dvc and a training that does not end.
STUBBORN = """\
import signal, subprocess, sys, time
from pathlib import Path
if len(sys.argv) == 2:
    if "stubborn" in sys.argv[1]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(sys.argv[1]).touch()
    time.sleep(300)
subprocess.run([sys.executable, __file__, sys.argv[1]]) if len(sys.argv) == 3 else None
"""
PARENT = """\
import signal, sys
from tasks.supervisor import run_in_group
# background processes of a shell ignore SIGINT
signal.signal(signal.SIGINT, signal.default_int_handler)
run_in_group([sys.executable, *sys.argv[1:]])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
@pytest.mark.parametrize(
    ("number", "child"), [(signal.SIGKILL, "stubborn"), (signal.SIGTERM, "meek"), (signal.SIGINT, "meek")]
)
def test_no_descendant_outlives_a_killed_parent(tmp_path: Path, number: int, child: str) -> None:
    script, parent, ready = tmp_path / "child.py", tmp_path / "parent.py", tmp_path / f"{child} is ready"
    script.write_text(STUBBORN)
    parent.write_text(PARENT)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [sys.executable, parent, script, ready, "parent"], env=env, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 30
    while not ready.exists():
        assert time.monotonic() < deadline and started.poll() is None
        time.sleep(0.05)
    family = psutil.Process(started.pid).children(recursive=True)
    assert len(family) == 3, "supervisor, command, grandchild"
    started.send_signal(number)
    started.communicate(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=supervisor.GRACE_SECONDS + 7)
    assert not alive


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_a_command_ends_when_its_supervisor_is_killed() -> None:
    with supervisor.in_background([sys.executable, "-c", "import time; time.sleep(300)"]) as process:
        deadline = time.monotonic() + 30
        while not (family := psutil.Process(process.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        _, alive = psutil.wait_procs(family, timeout=supervisor.GRACE_SECONDS)
    for left in alive:
        left.kill()
    assert not alive


def test_exit_status_and_both_outputs_are_returned() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    seen: list[str] = []
    status, output, tail = supervisor.run_in_group([sys.executable, "-c", code], live=seen.append)
    assert (status, output, "".join(seen)) == (7, "out\n", "err\n")
    assert "out" in tail and "err" in tail


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_deferred_stop_waits_for_the_next_check_or_the_end(
    number: signal.Signals, error: type[BaseException], check: bool
) -> None:
    before, steps = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with supervisor.deferred_stop() as stop_if_asked:
            signal.raise_signal(number)
            steps.append("after the signal")
            if check:
                stop_if_asked()
            steps.append("end")

    supervisor.exit_on_sigterm()
    try:
        with pytest.raises(error):
            work()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert steps == ["after the signal", *([] if check else ["end"])]
