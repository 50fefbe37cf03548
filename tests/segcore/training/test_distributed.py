"""A training on two processes gives the batches, loss, gradients and scores of one process."""

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
# Adam divides by the gradient's size: if a gradient is almost 0, rounding alone changes its weight by the learning
# rate, so that weights agree to a few parts in a thousand and scores to four digits.
TOLERANCE = 1e-4
SETTINGS = {
    "weights": "none",
    "steps": 6,
    # two processes take one and two items
    "batch": 3,
    "crop": 32,
    "validate_every": 2,
    "warmup_steps": 1,
    "learning_rate": 0.0003,
    # `auto` is bf16 on a CPU with AMX, where rounding differs by more than TOLERANCE
    "precision": "fp32",
    "model": {"encoder": "plain", "width": 4},
}


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
FORKED = [str(ROOT / "tests/support/forked_torchrun.py")]


def launch(launcher, script, processes, *arguments, **variables):
    """Run a script of tests/support, by `launcher` if there are several processes."""
    script = str(ROOT / "tests/support" / script)
    start = [*launcher, str(processes)] if processes > 1 else []
    command = [sys.executable, *start, script, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def trained(prepared_scene, folder, processes, launcher=FORKED, **variables):
    """The results of each process, and its weights."""
    p, data = prepared_scene
    folder.mkdir(exist_ok=True)
    arguments = (data.folder, json.dumps(SETTINGS), p.prepare.window, folder)
    launch(launcher, "training_process.py", processes, *arguments, **variables)
    results = [json.loads((folder / f"results-{rank}.json").read_text()) for rank in range(processes)]
    return results, [load_file(folder / f"weights-{rank}.safetensors") for rank in range(processes)]


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
    assert (regions["split"] == "validation").sum() % 2 == 1, "the test needs an odd number"
    (alone,), _ = one
    first, second = two[0]
    close(alone, first)
    assert first["facts"] == second["facts"] == alone["facts"]


@pytest.mark.slow
def test_both_processes_end_with_the_same_weights_near_those_of_one(one, two):
    (alone,), (first, second) = one[1], two[1]
    assert first.keys() == alone.keys(), "the bundle of a distributed training has the same tensors"
    for name in first:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], alone[name], rtol=0, atol=5e-3, msg=name)


@pytest.mark.slow
def test_a_distributed_training_is_repeatable_and_resumes_exactly(two, prepared_scene, tmp_path):
    whole, weights = two
    # the first step after the second checkpoint kills both processes
    with pytest.raises(AssertionError):
        trained(prepared_scene, tmp_path / "cut", 2, SEGFLOW_TEST_KILL_AT="5")
    assert (tmp_path / "cut/checkpoint.safetensors").exists()
    results, resumed = trained(prepared_scene, tmp_path / "cut", 2)
    assert results[0]["resumed"] and results[0]["history"] == whole[0]["history"]
    for name, tensor in resumed[0].items():
        assert torch.equal(tensor, weights[0][name]), name


@pytest.mark.slow
def test_labels_of_several_annotators_give_the_training_of_one_process(prepared_annotated, tmp_path):
    ((alone,), (weights,)), (both, of_both) = (
        trained(prepared_annotated, tmp_path / str(number), number) for number in (1, 2)
    )
    close(alone, both[0])
    for name, tensor in of_both[0].items():
        assert torch.equal(tensor, of_both[1][name]), name
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=5e-3, msg=name)


@pytest.mark.slow
def test_loss_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path):
    """In float64, where only a wrong formula could differ; the loss itself is float32."""
    launch(FORKED, "gradient_process.py", 2, tmp_path, "unet", "deeplab", "fcn")
    for rank in range(2):
        for name, distances in json.loads((tmp_path / f"distances-{rank}.json").read_text()).items():
            assert distances["loss"] < 1e-6 and distances["gradient"] < 1e-6, name
            assert distances["statistics"] < 1e-12, name


@pytest.mark.slow
def test_loss_and_gradients_of_instance_networks_on_each_process_are_those_of_the_whole_batch(tmp_path):
    """One of the processes has no object."""
    launch(FORKED, "object_gradient_process.py", 2, tmp_path)
    for rank in range(2):
        found = json.loads((tmp_path / f"distances-{rank}.json").read_text())
        assert len(found) >= 5
        for name, distances in found.items():
            assert distances["loss"] < 1e-5 and distances["gradient"] < 1e-3, (name, distances)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("prepared", ["prepared_scene", "prepared_annotated"])
def test_the_parts_of_all_processes_are_the_batch_of_one(prepared, world, request):
    p, data = request.getfixturevalue(prepared)
    sampler = Sampler(data, TrainSettings(**{**SETTINGS, "batch": 5}), p.prepare.window, 0)
    whole = sampler.batch(4)
    parts = [sampler.batch(4, Distributed(rank, world).of_batch(5)) for rank in range(world)]
    for name, tensor in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), tensor)


@pytest.mark.parametrize(("batch", "world"), [(8, 3), (3, 3), (7, 2), (1, 1)])
def test_every_item_is_in_one_part_and_parts_differ_by_one_at_most(batch, world):
    parts = [range(batch)[Distributed(rank, world).of_batch(batch)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(batch))
    assert np.ptp([len(part) for part in parts]) <= 1


def test_more_processes_than_items_are_refused():
    with pytest.raises(ParamsError, match="cannot be divided among 4 processes"):
        Distributed(0, 4).of_batch(3)
