"""One training on two processes: shares add up to the batch of one process, and so do loss, gradient and scores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segcore.errors import ParamsError
from segcore.params import TrainSettings
from segcore.training.distributed import Distributed
from segcore.training.sampler import Sampler

ROOT = Path(__file__).parents[3]
# Adam divides by the gradient's size: where a gradient is almost nothing, rounding alone moves its weight by the
# learning rate, so that weights agree to a few parts in a thousand and scores to four digits.
TOLERANCE = 1e-4
SETTINGS = {
    "weights": "none",
    "steps": 6,
    "batch": 3,  # two processes take one and two
    "crop": 32,
    "validate_every": 2,
    "warmup_steps": 1,
    "learning_rate": 0.0003,
    "precision": "fp32",  # `auto` is bf16 on a CPU with AMX, where rounding alone differs by more than TOLERANCE
    "model": {"encoder": "plain", "width": 4},
}


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
FORKED = [str(ROOT / "tests/support/forked_torchrun.py")]


def launch(launcher, script, processes, *arguments, **variables):
    """Run a script of this folder, by `launcher` where there are several processes."""
    script = str(ROOT / "tests/support" / script)
    start = [*launcher, str(processes)] if processes > 1 else []
    command = [sys.executable, *start, script, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def trained(prepared_scene, folder, processes, launcher=FORKED, **variables):
    """What each process told, and its weights."""
    p, data = prepared_scene
    folder.mkdir(exist_ok=True)
    arguments = (data.folder, json.dumps(SETTINGS), p.prepare.window, folder)
    launch(launcher, "training_process.py", processes, *arguments, **variables)
    told = [json.loads((folder / f"told-{rank}.json").read_text()) for rank in range(processes)]
    return told, [load_file(folder / f"weights-{rank}.safetensors") for rank in range(processes)]


@pytest.fixture(scope="module")
def one(prepared_scene, tmp_path_factory):
    return trained(prepared_scene, tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def two(prepared_scene, tmp_path_factory):
    return trained(prepared_scene, tmp_path_factory.mktemp("two"), 2, TORCHRUN)


def close(a, b):
    assert len(a["history"]) == len(b["history"])
    for mine, theirs in zip(a["history"], b["history"], strict=True):
        assert mine["step"] == theirs["step"] and mine["best"] == theirs["best"]
        for name in ("train_loss", "val_loss", "val_iou"):
            assert mine[name] == pytest.approx(theirs[name], abs=TOLERANCE), (name, mine, theirs)


@pytest.mark.slow
def test_two_processes_give_the_metrics_of_one(one, two, prepared_scene):
    regions = prepared_scene[1].regions
    assert (regions["split"] == "validation").sum() % 2 == 1, "an uneven number is what is to be shown"
    (alone,), _ = one
    first, second = two[0]
    close(alone, first)
    assert first["facts"] == second["facts"] == alone["facts"]


@pytest.mark.slow
def test_both_processes_end_with_the_same_weights_near_those_of_one(one, two):
    (alone,), (first, second) = one[1], two[1]
    assert first.keys() == alone.keys(), "the bundle of a divided training is any other's"
    for name in first:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=5e-3, msg=name)


@pytest.mark.slow
def test_a_divided_training_is_repeatable_and_resumes_exactly(two, prepared_scene, tmp_path):
    whole, weights = two
    with pytest.raises(AssertionError):  # the first step after the second checkpoint kills both processes
        trained(prepared_scene, tmp_path / "cut", 2, SEGFLOW_TEST_KILL_AT="5")
    assert (tmp_path / "cut/checkpoint.safetensors").exists()
    told, resumed = trained(prepared_scene, tmp_path / "cut", 2)
    assert told[0]["resumed"] and told[0]["history"] == whole[0]["history"]
    for name, tensor in resumed[0].items():
        assert torch.equal(tensor, weights[0][name]), name


@pytest.mark.slow
def test_loss_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path):
    """In float64, where nothing but a wrong formula is left to differ; the loss itself is float32."""
    launch(FORKED, "gradient_process.py", 2, tmp_path, "unet", "deeplab", "fcn")
    for rank in range(2):
        for name, far in json.loads((tmp_path / f"distances-{rank}.json").read_text()).items():
            assert far["loss"] < 1e-6 and far["gradient"] < 1e-6 and far["statistics"] < 1e-12, (name, far)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_are_the_batch_of_one_process(prepared_scene, world):
    p, data = prepared_scene
    sampler = Sampler(data, TrainSettings(**{**SETTINGS, "batch": 5}), p.prepare.window, 0)
    whole = sampler.batch(4)
    parts = [sampler.batch(4, Distributed(rank, world).of_batch(5)) for rank in range(world)]
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), tensor)


@pytest.mark.parametrize(("batch", "world"), [(8, 3), (3, 3), (7, 2), (1, 1)])
def test_every_item_has_one_owner_and_shares_differ_by_one_at_most(batch, world):
    shares = [range(batch)[Distributed(rank, world).of_batch(batch)] for rank in range(world)]
    assert [i for share in shares for i in share] == list(range(batch))
    assert np.ptp([len(share) for share in shares]) <= 1


def test_more_processes_than_items_are_refused():
    with pytest.raises(ParamsError, match="cannot be divided among 4 processes"):
        Distributed(0, 4).of_batch(3)
