"""The objects of a scene as a map of numbers on disk, and a table of them."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from segcore.objects.stitching import Whole

# pixels that are handled at once
_PIXELS = 2**22
# objects between two pauses
_BETWEEN = 1000
# an object of a network is left out if it keeps at most this share of its pixels
LEAST_KEPT = 0.5
# steps of a stored probability
PROBABILITY_STEPS = np.iinfo(np.uint16).max
# columns of the table of painted objects
_CLASS, _SCORE, _AREA, _TOP, _LEFT, _BOTTOM, _RIGHT, _FIRST, _ROW, _COL, _PROBABILITY, _WIDTH = range(12)


@dataclass(frozen=True)
class SceneObjects:
    """Objects of a plane, numbered from 1 in the order of their first pixels; each pixel is of one object at most.

    Attributes:
        numbers: (H, W) uint32, on disk: number of each pixel's object, 0 where there is none.
        classes: (N,) uint8 class index of each object.
        scores: (N,) float32.
        areas: (N,) int64 pixels.
        boxes: (N, 4) int64: first row, first column, height and width.
        points: (N, 2) int64: row and column of the object's pixel that is nearest to its centroid.
        pause: for what reads all numbers to call now and then: it takes them out of memory, and may raise to stop.
    """

    numbers: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    boxes: np.ndarray
    points: np.ndarray
    pause: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def cut(self) -> np.ndarray:
        """(N,) bool: whether an object touches an edge of the scene."""
        first, end = self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]
        cut: np.ndarray = ((first == 0) | (end == self.numbers.shape)).any(axis=1)
        return cut

    def mask(self, index: int) -> np.ndarray:
        """Mask of an object in its box, (height, width) bool."""
        row, col, height, width = self.boxes[index]
        mask: np.ndarray = self.numbers[row : row + height, col : col + width] == index + 1
        return mask


class Canvas:
    """Takes the objects of a plane in any order, and gives each pixel to one of them.

    Where objects overlap, a pixel is of the one of higher score, and of equal ones of that whose first pixel is first.
    With `least_kept`, an object that keeps at most this share of its own pixels is left out, and what it had is of the
    next one: duplicates leave no slivers. Neither depends on the order in which objects are added, and objects of a
    lower score change nothing.

    Args:
        numbers: (H, W) uint32 of zeros, on disk or in memory, which becomes the map of numbers.
        probability: (H, W) uint16, steps of the probability of each pixel's class; None: an object keeps its score,
            else its score is the mean over its pixels.
        pause: called now and then, to take what is on disk out of memory; may raise to stop.
        least_kept: as above; 0: every object that keeps a pixel stays.
    """

    def __init__(
        self,
        numbers: np.ndarray,
        probability: np.ndarray | None = None,
        pause: Callable[[], None] = lambda: None,
        least_kept: float = 0.0,
    ) -> None:
        self.numbers, self._probability, self._pause = numbers, probability, pause
        self._least_kept = least_kept
        self._table = array("d")
        self._contested: set[int] = set()
        # by object, pixels that stronger ones took: places in the flat map
        self._lost: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._table) // _WIDTH

    def _columns(self) -> np.ndarray:
        return np.frombuffer(self._table, np.float64).reshape(-1, _WIDTH)

    def paint(self, whole: Whole) -> None:
        """Add an object."""
        number = len(self) + 1
        facts = _outline(whole, self.numbers.shape[1])
        self._table.extend(facts)
        found, total = [], 0
        for row, col, mask in whole.parts:
            if self._least_kept:
                self._record_lost(row, col, mask, number)
            rows, cols = self._claimed(row, col, mask, number)
            found.append((rows, cols))
            if self._probability is not None:
                total += int(self._probability[rows, cols].sum(dtype=np.int64))
        facts[_AREA], facts[_PROBABILITY] = sum(len(rows) for rows, _ in found), total
        if facts[_AREA]:
            facts[_ROW], facts[_COL] = _nearest(found)
        self._table[-_WIDTH:] = array("d", facts)
        if number % _BETWEEN == 0:
            self._pause()

    def _claimed(self, row: int, col: int, mask: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Give pixels of a mask to an object; rows and columns of those that were not its own before."""
        held = self.numbers[row : row + mask.shape[0], col : col + mask.shape[1]]
        if held.any():
            mask = self._free(held, mask, number)
        rows, cols = mask.nonzero()
        held[rows, cols] = number
        return rows + row, cols + col

    def _free(self, held: np.ndarray, mask: np.ndarray, number: int) -> np.ndarray:
        """The pixels of a mask that are neither the object's own nor of one that comes before it."""
        others = held[mask]
        ids = np.unique(others[(others > 0) & (others != number)])
        if len(ids):
            stronger = [n for n in ids if self._rank(n) < self._rank(number)]
            mask = mask & ~np.isin(held, stronger)
            self._contested |= {number, *map(int, ids)}
        free: np.ndarray = mask & (held != number)
        return free

    def _record_lost(self, row: int, col: int, mask: np.ndarray, number: int) -> None:
        """Record the pixels of a mask that are of another object: one of both loses them."""
        held = self.numbers[row : row + mask.shape[0], col : col + mask.shape[1]]
        if not held.any():
            return
        rows, cols = (mask & (held > 0) & (held != number)).nonzero()
        holders, places = held[rows, cols], (rows + row) * self.numbers.shape[1] + cols + col
        for holder in np.unique(holders).tolist():
            loser = max(holder, number, key=self._rank)
            self._lost.setdefault(loser, []).append(places[holders == holder])

    def _rank(self, number: int) -> tuple[float, ...]:
        facts = self._table[(number - 1) * _WIDTH : number * _WIDTH]
        return -facts[_SCORE], *(facts[i] for i in (_FIRST, _CLASS, _BOTTOM, _RIGHT)), number

    def finish(self, min_area: int = 0, score: float = 0.0) -> SceneObjects:
        """The objects, after those of too few pixels or a lower score are left out.

        Args:
            min_area: in pixels, of what an object has got.
            score: least score.
        """
        table = self._columns().copy()
        self._settle(table)
        for place, number in enumerate(sorted(self._contested)):
            self._measure(table, number)
            if place % _BETWEEN == 0:
                self._pause()
        areas = table[:, _AREA]
        scores = table[:, _SCORE]
        if self._probability is not None:
            scores = table[:, _PROBABILITY] / (np.maximum(areas, 1) * PROBABILITY_STEPS)
        # as of a window, whose scores have this precision
        scores = scores.astype(np.float32)
        kept = np.flatnonzero((areas >= max(min_area, 1)) & (scores >= np.float32(score)))
        kept = kept[np.argsort(table[kept, _FIRST], kind="stable")]
        new = np.zeros(len(table) + 1, np.uint32)
        new[kept + 1] = np.arange(1, len(kept) + 1)
        self._renumber(new)
        chosen = table[kept]
        boxes = chosen[:, [_TOP, _LEFT, _BOTTOM, _RIGHT]].astype(np.int64)
        boxes[:, 2:] -= boxes[:, :2]
        return SceneObjects(
            self.numbers,
            chosen[:, _CLASS].astype(np.uint8),
            scores[kept],
            areas[kept].astype(np.int64),
            boxes,
            chosen[:, [_ROW, _COL]].astype(np.int64),
            self._pause,
        )

    def _settle(self, table: np.ndarray) -> None:
        """From the strongest object on, give back what objects lost to ones that are left out, or leave them out."""
        flat = self.numbers.reshape(-1)
        for place, number in enumerate(sorted(self._lost, key=self._rank)):
            lost = np.unique(np.concatenate(self._lost[number]))
            free = lost[flat[lost] == 0]
            flat[free] = number
            top, left, bottom, right = table[number - 1, [_TOP, _LEFT, _BOTTOM, _RIGHT]].astype(int)
            box = self.numbers[top:bottom, left:right]
            mine = box == number
            kept = np.count_nonzero(mine)
            if kept <= self._least_kept * (kept + len(lost) - len(free)):
                box[mine] = 0
            if place % _BETWEEN == 0:
                self._pause()

    def _measure(self, table: np.ndarray, number: int) -> None:
        """Facts of an object of which others may have taken pixels, from the map of numbers."""
        facts = table[number - 1]
        top, left, bottom, right = facts[[_TOP, _LEFT, _BOTTOM, _RIGHT]].astype(int)
        found = list(_pixels_of(self.numbers[top:bottom, left:right], number, top, left))
        facts[_AREA] = sum(len(rows) for rows, _ in found)
        if not found:
            return
        facts[_TOP], facts[_BOTTOM] = found[0][0][0], found[-1][0][-1] + 1
        facts[_LEFT] = min(cols.min() for _, cols in found)
        facts[_RIGHT] = max(cols.max() for _, cols in found) + 1
        facts[_FIRST] = found[0][0][0] * self.numbers.shape[1] + found[0][1][0]
        if self._probability is not None:
            facts[_PROBABILITY] = sum(self._probability[at].sum(dtype=np.int64) for at in found)
        facts[[_ROW, _COL]] = _nearest(found)

    def _renumber(self, new: np.ndarray) -> None:
        for rows in bands(self.numbers.shape):
            self.numbers[rows] = new[self.numbers[rows]]
            self._pause()


def bands(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of rows that cover a map, each of a limited number of pixels."""
    step = max(1, _PIXELS // shape[1])
    for row in range(0, shape[0], step):
        yield slice(row, min(row + step, shape[0]))


def _outline(whole: Whole, width: int) -> list[float]:
    """Facts of an object before it is painted: class, score, box and first pixel."""
    facts = [0.0] * _WIDTH
    facts[_CLASS], facts[_SCORE] = whole.class_index, whole.score
    facts[_TOP] = min(row for row, _, _ in whole.parts)
    facts[_LEFT] = min(col for _, col, _ in whole.parts)
    facts[_BOTTOM] = max(row + mask.shape[0] for row, _, mask in whole.parts)
    facts[_RIGHT] = max(col + mask.shape[1] for _, col, mask in whole.parts)
    facts[_FIRST] = min(row * width + col + int(np.argmax(mask[0])) for row, col, mask in whole.parts)
    return facts


def _pixels_of(
    numbers: np.ndarray, number: int, top: int, left: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of an object's pixels within a window of the map, from top to bottom."""
    for part in bands(numbers.shape):
        rows, cols = (numbers[part] == number).nonzero()
        if len(rows):
            yield rows + (top + part.start), cols + left


def _nearest(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """Of pixels, given as rows and columns, that nearest to the mean of all; of equal ones the first."""
    count = sum(len(rows) for rows, _ in found)
    row, col = (sum(int(part[axis].sum()) for part in found) / count for axis in (0, 1))
    candidates = []
    for rows, cols in found:
        if len(rows):
            distances = (rows - row) ** 2 + (cols - col) ** 2
            index = int(distances.argmin())
            candidates.append((float(distances[index]), int(rows[index]), int(cols[index])))
    return min(candidates)[1:]
