"""The memory of an instance network's objects does not grow with the scene."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import write_tif

ROOT = Path(__file__).parents[3]
PEAK = """
import re, sys
from pathlib import Path
from segcore.params import Predict
from segcore.prediction.predictor import Predictor
from tests.support.instance_bundle import Oracle, bundle_of

oracle = Oracle()
oracle.set_normalization([1.0, 1.0], [1.0, 1.0])
predictor = Predictor(bundle_of(oracle), Predict(tile=256, overlap=64, outputs=["classes", "objects"]))
predictor.predict_file(Path(sys.argv[1]), Path(sys.argv[2]))
# not `resource`, whose peak begins with that of the parent process
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path):
    peaks = {}
    for side in (2500, 7000):
        at = np.arange(side)
        inside, number = (at % 40 < 20) & (at // 40 * 40 + 20 <= side), at // 40
        squares = number[:, None] * (side // 40 + 1) + number + 1
        numbers = np.where(inside[:, None] & inside, squares, 0).astype(np.uint16)
        # the upper half has no object, and the lower half of it no data
        numbers[: side // 2] = 0
        numbers += 1
        numbers[side // 4 : side // 2] = 0
        write_tif(
            tmp_path / "scene.tif",
            np.stack([numbers, np.minimum(numbers, 2)]),
            nodata=0,
            tiled=True,
            compress="deflate",
        )
        command = [sys.executable, "-c", PEAK, str(tmp_path / "scene.tif"), str(tmp_path / "out")]
        (tmp_path / "out").mkdir(exist_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        peaks[side] = float(done.stdout)
    # classes and numbers of the larger scene have 245 MB
    assert peaks[7000] - peaks[2500] < 150, peaks
