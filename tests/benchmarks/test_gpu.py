"""benchmarks/gpu: the proof runs on a CPU too, and a part that fails is shown and does not stop the others."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import _device, gpu
from benchmarks._steps import ROOT
from segcore.objects.found import from_numbers

NO_DATA = _device.Plan(["unet"], 2, 64, 0, 4, 2, 1, 2, {"prepared": "missing"}, {})


def test_a_part_that_fails_or_takes_too_long_is_in_the_table():
    results = {
        "held": gpu.run_part("held", NO_DATA, 60),
        "resume": gpu.run_part("resume", NO_DATA, 0.01),
    }
    assert all(gpu.failed(result) for result in results.values())
    held, resume = (line for line in gpu.table(results) if "whole part" in line)
    assert "FAILED" in held and "took more than" in resume
    assert "missing" in results["held"]["error"]


def test_a_wrong_result_fails_its_part():
    row = _device.Row("unet: loss", "1, differs by 1", False)._asdict()
    result = {"seconds": 1.0, "error": "", "rows": [row]}
    assert gpu.failed(result) and "WRONG" in gpu.table({"agreement": result})[2]


def test_objects_of_another_place_class_or_score_are_not_the_same():
    numbers = np.zeros((20, 20), np.uint32)
    numbers[2:8, 2:8], numbers[10:18, 10:18] = 1, 2
    first = from_numbers(numbers, [1, 2], [0.5, 0.6])
    assert _device._partners(first, first) == 2
    assert _device._partners(first, from_numbers(np.roll(numbers, 1, 0), [1, 2], [0.5, 0.6])) == 0
    assert _device._partners(first, from_numbers(numbers, [1, 1], [0.5, 0.7])) == 1


@pytest.mark.slow
def test_the_proof_runs_on_a_cpu_and_says_so(tmp_path):
    parts = ["agreement", "resume", "held"]
    options = ["--architectures", "unet", "--parts", *parts, "--output", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["parts"]) == parts
    text = (tmp_path / "results.md").read_text()
    assert "unet: resumed after a kill | bit-identical" in text
    assert "No GPU" in text or "cuda" in text.lower()
