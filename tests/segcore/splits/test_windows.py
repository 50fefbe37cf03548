"""Training windows are cut after splitting, cover their items, and their classes are counted with little memory."""

import numpy as np

from segcore.params import Prepare, Split
from segcore.splits.windows import class_counts
from tests.support.items import FRACTIONS, decided, indexed, items


def test_windows_are_cut_after_splitting_and_cover_every_pixel_of_a_training_item():
    table = items(["a", "b", "c"]).assign(height=70, width=53)
    split = Split(fractions=FRACTIONS, given={"train": ["a"], "test": ["b"], "validation": ["c"]})
    windows = indexed(table, split, decided(table, split)[0], prepare=Prepare(window=32, stride=16))
    seen = np.zeros((70, 53), bool)
    for w in windows.itertuples():
        seen[w.row : w.row + w.height, w.col : w.col + w.width] = True
    assert seen.all() and set(windows["item"]) == {"a"}


class LazyLabel:
    """Labels that are read by slices of rows, and the size of the largest slice."""

    def __init__(self, array):
        self.array, self.shape, self.largest = array, array.shape, 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.largest = max(self.largest, self.array[rows].size)
        return self.array[rows]


def test_windows_are_counted_from_rows_read_a_few_megabytes_at_a_time():
    array = np.random.default_rng(1).integers(0, 3, (3000, 3000), dtype=np.uint8)
    label = LazyLabel(array)
    rows, cols = np.arange(0, 3000, 700), np.arange(0, 3000, 900)
    counts = class_counts(label, rows, cols, 1000, 3)
    assert label.largest <= 2**21 < array.size
    assert counts[2, 1].tolist() == [int((array[1400:2400, 900:1900] == k).sum()) for k in range(3)]


def test_class_counts_equal_plain_counting():
    label = np.random.default_rng(0).integers(0, 4, (50, 61)).astype(np.uint8)
    rows, cols = np.arange(0, 50, 9), np.arange(0, 61, 7)
    counts = class_counts(label, rows, cols, 20, 3)
    for i, r in enumerate(rows):
        for j, c in enumerate(cols):
            part = label[r : r + 20, c : c + 20]
            assert list(counts[i, j]) == [int((part == k).sum()) for k in range(3)]
