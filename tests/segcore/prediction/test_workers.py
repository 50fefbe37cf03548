"""Two windows at a time: the results, order and memory of one at a time, and the threads that were set."""

import threading
import weakref

import numpy as np
import pytest
import torch

from segcore.inference.device import worker_threads
from segcore.prediction import mosaic
from segcore.prediction.grid import Grid
from segcore.prediction.strips import ahead, strips_of_planes
from segcore.prediction.workers import two_at_a_time
from tests.segcore.prediction.test_mosaic import Small

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def threads_used() -> int:
    # torch sets its default at a thread's first operator
    torch.ones(100_000).exp()
    return torch.get_num_threads()


def test_workers_compute_with_their_share_and_the_caller_with_its_own():
    both = threading.Barrier(2)

    def used():
        both.wait()
        return threads_used()

    with worker_threads([2, 1], own=1) as pool:
        assert sorted(future.result() for future in [pool.submit(used), pool.submit(used)]) == [1, 2]
        assert threads_used() == 1
    assert threads_used() == 3


def test_threads_are_set_back_after_an_error():
    with pytest.raises(ValueError, match="broken"), worker_threads([1, 1], own=1):
        raise ValueError("broken")
    assert threads_used() == 3


def counted(started: list[int], strips: int):
    """Strips of two jobs each that note when they start."""

    def job(number):
        started.append(number)
        return number

    for strip in range(strips):
        yield strip, [([strip], lambda n=2 * strip + k: job(n)) for k in range(2)]


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_results_keep_their_order_and_few_are_in_memory(threads):
    torch.set_num_threads(threads)
    started: list[int] = []
    most, taken = 2 * (3 if threads == 3 else 2), 0
    for strip, jobs in two_at_a_time(counted(started, 20), CPU, 40):
        for k, (_, result) in enumerate(jobs):
            assert result() == 2 * strip + k
            taken += 1
            assert len(started) <= taken + most
    assert sorted(started) == list(range(40))
    torch.set_num_threads(3)


def test_results_are_given_away():
    class Scores:
        pass

    alive: list[weakref.ref[Scores]] = []

    def job():
        scores = Scores()
        alive.append(weakref.ref(scores))
        return scores

    # a strip of many windows, as of a wide scene
    for _, jobs in two_at_a_time(iter([(0, [([n], job) for n in range(50)])]), CPU, 50):
        for _, result in jobs:
            result()
            assert sum(scores() is not None for scores in alive) <= 7


@pytest.mark.parametrize(("threads", "share"), [(2, 1), (3, 1), (4, 2), (6, 3), (9, 3), (5, 5)])
def test_every_window_is_predicted_with_as_many_threads(threads, share):
    torch.set_num_threads(threads)
    planned = ((strip, [([0], threads_used)] * 2) for strip in range(20))
    found = {result() for _, jobs in two_at_a_time(planned, CPU, 40) for _, result in jobs}
    torch.set_num_threads(3)
    assert found == {share}


@pytest.mark.parametrize(
    ("device", "batches", "threads"), [("cuda", 10, 3), ("cpu", 3, 3), ("cpu", 10, 1), ("cpu", 10, 5)]
)
def test_jobs_begin_when_they_are_used_if_there_are_no_workers(device, batches, threads):
    torch.set_num_threads(threads)
    started: list[int] = []
    for strip, jobs in two_at_a_time(counted(started, 5), torch.device(device), batches):
        assert len(started) == 2 * strip
        assert [result() for _, result in jobs] == [2 * strip, 2 * strip + 1]
    torch.set_num_threads(3)


def test_an_error_of_a_window_is_raised_and_ends_the_workers():
    def broken():
        raise ValueError("broken")

    alive = threading.active_count()
    rows = two_at_a_time(iter([(0, [([0], broken)] * 4)]), CPU, 4)
    _, jobs = next(rows)
    with pytest.raises(ValueError, match="broken"):
        jobs[0][1]()
    rows.close()
    assert threading.active_count() == alive


@pytest.mark.parametrize("columns", [1, 10_000])
def test_planes_are_the_same_bit_for_bit_with_one_thread(columns, tmp_path):
    planes = np.random.default_rng(0).random((3, 3, 100, 130)).astype(np.float32)
    model, grid = Small().eval(), Grid(100, 130, 48, 16, columns)

    def read(window, plane):
        row, col, tall, wide = window
        area = (slice(row, row + tall), slice(col, col + wide))
        return planes[plane, :, *area], np.ones((tall, wide), bool)

    def predicted():
        found = np.full((3, 3, 100, 130), np.nan, np.float32)
        blending = mosaic.Mosaic(model, grid, "probabilities", "fp32", tmp_path)
        for block in blending.blocks(ahead(strips_of_planes(grid, 3, read)), depth=3):
            height, width = block.scores.shape[1:]
            at = slice(block.row, block.row + height), slice(block.col, block.col + width)
            found[block.plane, :, *at] = block.scores
        return found

    two = predicted()
    torch.set_num_threads(1)
    one = predicted()
    torch.set_num_threads(3)
    assert not np.isnan(one).any() and np.array_equal(one, two)
    assert not np.array_equal(one[0], one[1])
