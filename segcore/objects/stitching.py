"""Objects of overlapping windows become objects of the scene.

Objects that lie in one window only are finished at once. Others wait until all windows that they can reach were added:

1. An object that touches a window's edge where the scene goes on is *open*; any other one is whole. The core of a
   window, which ends in the middle of each overlap, *owns* the objects whose box has its centre there.
2. Two whole objects of one class are the same if their IoU in the pixels that both windows have is above one half, or
   if more than half of one lies in the other. The owned one stays, else that of higher score.
3. A whole object replaces an open one of its class if that IoU is above one half, or if more than half of the open one
   lies in it.
4. Open objects of one class that overlap are joined, transitively, so that objects larger than a window survive.
5. An object that no other window has stays if it is owned.

All decisions depend on the windows' objects alone, not on the order in which windows are added. If the objects of each
window are those of a scene clipped to it, each as one object, connected or not, the result is exactly those of the
scene. If a clipped object of several parts is several objects of the window, this holds only where open objects are
joined wherever they overlap (`least_shared` 0).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import shapely

from segcore.objects.found import Objects
from segcore.objects.groups import groups_of
from segcore.objects.windows import Windows

# share above which two masks are of the same object
_SAME = 0.5


@dataclass(frozen=True)
class Whole:
    """A finished object of the scene.

    Attributes:
        class_index: of its class.
        score: mean score of its parts, weighted by their areas.
        parts: first row, first column and mask (h, w) of each part; parts may overlap.
    """

    class_index: int
    score: float
    parts: list[tuple[int, int, np.ndarray]]


@dataclass(eq=False)
class _Part:
    """An object of one window, at its place in the scene."""

    window: tuple[int, int]
    class_index: int
    score: float
    # first row, first column, and end of both
    box: tuple[int, int, int, int]
    mask: np.ndarray
    is_open: bool
    is_owned: bool
    # parts of other windows that it is joined with, replaces or is replaced by, or is the same as
    links: list["_Part"] = field(default_factory=list)

    @property
    def order(self) -> tuple[object, ...]:
        """Sorts parts by which of the same ones stays."""
        return not self.is_owned, -self.score, self.box, self.window

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))

    def inside(self, box: tuple[int, int, int, int]) -> np.ndarray:
        """The mask within a box of the scene that lies in that of the part."""
        top, left = self.box[:2]
        return self.mask[box[0] - top : box[2] - top, box[1] - left : box[3] - left]


class Stitcher:
    """Collects the objects of windows, and passes each object of the scene on as soon as it is complete.

    Windows may be added in any order. Memory does not grow with the scene if they come row by row.

    Args:
        windows: of the scene.
        done: called with each object of the scene, in no certain order.
        least_shared: two open objects are joined if they share more than this part of the smaller one, within the
            pixels that both windows have; 0 for components, which are one object wherever they overlap.
    """

    def __init__(self, windows: Windows, done: Callable[[Whole], None], least_shared: float = _SAME) -> None:
        self.windows, self._done, self._least_shared = windows, done, least_shared
        self._rows, self._cols = np.array(windows.rows), np.array(windows.cols)
        self._is_missing = np.ones((len(windows.rows), len(windows.cols)), bool)
        # by window
        self._waiting: dict[tuple[int, int], list[_Part]] = {}

    def add(self, i: int, j: int, objects: Objects) -> None:
        """Add the objects of the window of row i and column j.

        Raises:
            ValueError: the window was added before, or the objects are of a region of another size.
        """
        windows = self.windows
        if (objects.height, objects.width) != (windows.tall, windows.wide) or not self._is_missing[i, j]:
            raise ValueError(f"objects of {objects.height} x {objects.width} pixels for window {(i, j)}")
        self._is_missing[i, j] = False
        shared = []
        for part in self._parts(i, j, objects):
            if self._windows_of(part.box) == ((i, i + 1), (j, j + 1)):
                self._pass_on([part])
            else:
                shared.append(part)
        self._link(shared)
        self._waiting[i, j] = shared
        if not self._is_missing[i].any():
            self._complete()

    def _parts(self, i: int, j: int, objects: Objects) -> list[_Part]:
        windows = self.windows
        top, left = windows.rows[i], windows.cols[j]
        core = np.array(windows.core(i, j))
        first = objects.boxes[:, :2] + np.array([top, left])
        end = first + objects.boxes[:, 2:]
        scene = np.array([windows.height, windows.width])
        begins, ends = np.array([top, left]), np.array([top + windows.tall, left + windows.wide])
        is_open = (((first == begins) & (begins > 0)) | ((end == ends) & (ends < scene))).any(axis=1)
        centre = (first + end) / 2
        is_owned = ((centre >= core[:2]) & (centre < core[2:])).all(axis=1)
        boxes = np.concatenate([first, end], axis=1).tolist()
        return [
            _Part(
                (i, j),
                int(objects.classes[n]),
                float(objects.scores[n]),
                tuple(boxes[n]),
                objects.masks[n],
                bool(is_open[n]),
                bool(is_owned[n]),
            )
            for n in range(len(objects))
            if objects.masks[n].any()
        ]

    def _windows_of(self, box: tuple[int, int, int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Half-open ranges of the rows and columns of windows that have a pixel of a box."""
        down = _reached(self._rows, self.windows.tall, box[0], box[2])
        return down, _reached(self._cols, self.windows.wide, box[1], box[3])

    def _link(self, added: list[_Part]) -> None:
        """Link new parts with those of other windows that are about the same pixels."""
        if not added:
            return
        (top, bottom), (left, right) = self._windows_of(self._extent(added[0].window))
        windows = itertools.product(range(top, bottom), range(left, right))
        others = [part for window in windows for part in self._waiting.get(window, ())]
        tree = shapely.STRtree(_boxes(others))
        for one, other in tree.query(_boxes(added), "intersects").T.tolist():
            a, b = added[one], others[other]
            if a.class_index == b.class_index and self._is_linked(a, b):
                a.links.append(b)
                b.links.append(a)

    def _is_linked(self, a: _Part, b: _Part) -> bool:
        box = _common(a.box, b.box)
        both = int(np.count_nonzero(a.inside(box) & b.inside(box)))
        if both == 0:
            return False
        strip = _common(self._extent(a.window), self._extent(b.window))
        in_strip = [int(np.count_nonzero(part.inside(_common(part.box, strip)))) for part in (a, b)]
        if a.is_open and b.is_open:
            return both > self._least_shared * min(in_strip)
        if both > _SAME * (sum(in_strip) - both):
            return True
        # of a whole and an open object, the open one is replaced
        replaced = [part for part in (a, b) if part.is_open] or [a, b]
        return both > _SAME * min(part.area for part in replaced)

    def _extent(self, window: tuple[int, int]) -> tuple[int, int, int, int]:
        row, col = self.windows.rows[window[0]], self.windows.cols[window[1]]
        return row, col, row + self.windows.tall, col + self.windows.wide

    def _complete(self) -> None:
        """Pass on what no missing window can reach."""
        waiting = [part for parts in self._waiting.values() for part in parts]
        if not waiting:
            return
        index = {id(part): n for n, part in enumerate(waiting)}
        pairs = [(n, index[id(other)]) for n, part in enumerate(waiting) for other in part.links]
        ends = np.array(pairs, int).reshape(-1, 2).T
        groups = groups_of(ends[0], ends[1], len(waiting))
        is_waiting = np.zeros(len(waiting), bool)
        for part, group in zip(waiting, groups, strict=True):
            (top, bottom), (left, right) = self._windows_of(part.box)
            if not is_waiting[group] and self._is_missing[top:bottom, left:right].any():
                is_waiting[group] = True
        members: dict[int, list[_Part]] = {}
        self._waiting = {}
        for part, group in zip(waiting, groups.tolist(), strict=True):
            parts = self._waiting.setdefault(part.window, []) if is_waiting[group] else None
            (members.setdefault(group, []) if parts is None else parts).append(part)
        for parts in members.values():
            for joined in _resolved(parts):
                self._pass_on(joined)

    def _pass_on(self, parts: list[_Part]) -> None:
        parts = sorted(parts, key=lambda part: part.window)
        areas = [part.area for part in parts]
        # exact, because parts of one window come in no certain order
        score = math.fsum(part.score * area for part, area in zip(parts, areas, strict=True)) / sum(areas)
        placed = [(part.box[0], part.box[1], part.mask) for part in parts]
        self._done(Whole(parts[0].class_index, score, placed))

    def finish(self) -> None:
        """Check that no window is missing; all objects were passed on by then.

        Raises:
            ValueError: a window was not added.
        """
        if self._is_missing.any():
            raise ValueError(f"{int(self._is_missing.sum())} windows were not added")
        self._complete()


def _reached(starts: np.ndarray, size: int, first: int, end: int) -> tuple[int, int]:
    """Half-open range of the windows of one axis that have one of the pixels from `first` to before `end`."""
    return (
        int(starts.searchsorted(first - size, side="right")),
        int(starts.searchsorted(end, side="left")),
    )


def _boxes(parts: list[_Part]) -> np.ndarray:
    """Boxes as polygons, of which those that only touch do not intersect."""
    first, end = np.reshape([part.box for part in parts], (-1, 2, 2)).transpose(1, 2, 0)
    top, left = first + 0.25
    bottom, right = end - 0.25
    boxes: np.ndarray = shapely.box(left, top, right, bottom)
    return boxes


def _common(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _resolved(parts: list[_Part]) -> list[list[_Part]]:
    """Objects of the scene, each as the parts that it is joined of, from parts that are linked with each other."""
    kept: list[list[_Part]] = []
    gone: set[int] = set()
    for part in sorted((p for p in parts if not p.is_open), key=lambda p: p.order):
        undecided = [other for other in part.links if id(other) not in gone]
        if id(part) in gone or not (part.is_owned or undecided):
            continue
        kept.append([part])
        gone |= {id(part), *(id(other) for other in undecided)}
    remaining = {id(part): part for part in parts if part.is_open and id(part) not in gone}
    while remaining:
        joined, reached = [], [remaining.popitem()[1]]
        while reached:
            part = reached.pop()
            joined.append(part)
            reached += [remaining.pop(id(p)) for p in part.links if id(p) in remaining]
        if len(joined) > 1 or joined[0].is_owned:
            kept.append(joined)
    return kept
