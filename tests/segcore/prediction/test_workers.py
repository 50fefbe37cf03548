"""Two windows at a time: the results, order and memory of one at a time, and the threads that were set."""

import threading

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


def test_results_keep_their_order_and_are_at_most_one_strip_ahead():
    started: list[int] = []
    for strip, jobs in two_at_a_time(counted(started, 5), CPU, 10):
        assert [result() for _, result in jobs] == [2 * strip, 2 * strip + 1]
        assert max(started) <= 2 * strip + 3
    assert sorted(started) == list(range(10))


@pytest.mark.parametrize(("device", "batches", "threads"), [("cuda", 10, 3), ("cpu", 3, 3), ("cpu", 10, 1)])
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
