"""How OpenMP's threads wait for each other is set before torch is loaded, unless the user has set it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.cpu import SPIN_COUNT

ROOT = Path(__file__).parents[2]
OURS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def displayed(code: str, **variables: str) -> str:
    """Settings that libgomp prints when torch loads it in a new process that runs `code`."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    env |= {"OMP_DISPLAY_ENV": "VERBOSE", "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch uses another OpenMP runtime than libgomp")
    return done.stderr


@pytest.mark.parametrize("code", ["import segcore.training.runtime", "import segcore; segcore.build_model"])
def test_waiting_threads_sleep_soon_in_training_and_library(code: str) -> None:
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in displayed(code)


def test_the_users_own_setting_is_left_alone() -> None:
    code = "import segcore.inference.device"
    assert "GOMP_SPINCOUNT = '77'" in displayed(code, GOMP_SPINCOUNT="77")
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" not in displayed(code, OMP_WAIT_POLICY="ACTIVE")


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "from tasks.forkserver import server; server.preload()",
        "import flows.compare; import torch",
    ],
)
def test_waiting_threads_sleep_soon_in_flows_and_their_stages(code: str) -> None:
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in displayed(code)
