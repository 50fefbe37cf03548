"""Post-processing of class maps by connected components, as nnU-Net does (Isensee et al. 2021, Nature Methods 18).

Which steps a network has is chosen on the validation split (`segcore.training.postprocess_settings`), and stands in its
model.json. They are applied to a whole plane: regions after their windows were blended, volumes plane by plane. A plane
is processed in bands of rows, with the same result for any number of bands.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segcore.constants import IGNORE
from segcore.objects.canvas import bands
from segcore.objects.components import BandedComponents, components

Operation = Literal["largest", "min_area", "holes"]
# (h, W) uint8 class indices to a mask of the same shape
_Mask = Callable[[np.ndarray], np.ndarray]
# areas in pixels, and whether a component touches the plane's edge, (N,) each, to which are chosen, (N,) bool
_Choice = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Step:
    """What is done to one class.

    Attributes:
        operation: "largest": only its largest component is kept, the first of equal ones; "min_area": components of
            fewer than `area` pixels become background; "holes": background pixels that the class encloses become it.
        class_index: of the class.
        area: in pixels, of "min_area" alone.
    """

    operation: Operation
    class_index: int
    area: int = 0

    def text(self) -> str:
        """What is done, as words."""
        return {
            "largest": "only the largest component kept",
            "min_area": f"components under {self.area} pixels removed",
            "holes": "holes filled",
        }[self.operation]


@dataclass(frozen=True)
class Postprocess:
    """Steps, in the order in which they are applied.

    Components and holes are 4-connected.

    Attributes:
        background: index of the class that removed pixels get, and holes have.
        steps: none: class maps stay as they are.
    """

    background: int
    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> "Postprocess":
        """That of a model.json; without any steps where it has none."""
        entry = description.get("postprocess") or {"background": 0, "steps": []}
        return cls(entry["background"], tuple(Step(**step) for step in entry["steps"]))

    def applied(self, classes: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """A class map after all steps.

        Args:
            classes: (H, W) uint8 class indices; not changed.
            valid: (H, W) bool, False without data: these pixels keep their class, belong to no component, and leave
                what they surround open only where they are at the edge of the map.
        """
        if not self.steps:
            return classes
        changed = np.where(valid, classes, np.uint8(IGNORE))
        self.apply(changed)
        return np.where(valid, changed, classes)

    def apply(self, plane: np.ndarray, pause: Callable[[], object] = lambda: None) -> None:
        """Change a class map in place.

        Args:
            plane: (H, W) uint8 class indices, IGNORE without data; also one that is mapped from a file.
            pause: called after each band of rows.
        """
        for step in self.steps:
            for rows, mask in _marked(plane, *_of_step(step), pause):
                if step.operation == "holes":
                    plane[rows][mask & (plane[rows] == self.background)] = step.class_index
                else:
                    plane[rows][mask] = self.background

    def text(self, classes: Sequence[str]) -> str:
        """The steps of each class as words, such as "building: holes filled"; empty without steps."""
        of_class: dict[int, list[str]] = {}
        for step in self.steps:
            of_class.setdefault(step.class_index, []).append(step.text())
        return "; ".join(f"{classes[index]}: {', '.join(steps)}" for index, steps in of_class.items())


def _of_step(step: Step) -> tuple[_Mask, _Choice]:
    """Of which pixels the components are, and which of them are changed."""
    if step.operation == "holes":
        return (lambda band: band != step.class_index), (lambda areas, at_edge: ~at_edge)
    if step.operation == "min_area":
        return (lambda band: band == step.class_index), (lambda areas, at_edge: areas < step.area)
    return (lambda band: band == step.class_index), _all_but_the_largest


def _all_but_the_largest(areas: np.ndarray, at_edge: np.ndarray) -> np.ndarray:
    return np.arange(len(areas)) != areas.argmax() if len(areas) else at_edge


def _marked(
    plane: np.ndarray, mask_of: _Mask, choose: _Choice, pause: Callable[[], object]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of each band, and (h, W) bool where it has pixels of chosen components of the mask."""
    banded, areas, edges = BandedComponents([1]), [np.zeros(1, np.int64)], list[np.ndarray]()
    firsts, last = list[int](), plane.shape[0]
    for rows in bands(plane.shape):
        numbers = banded.add(mask_of(plane[rows]).astype(np.uint8))
        first = sum(map(len, areas)) - 1
        firsts.append(first)
        of_band = np.bincount(np.where(numbers > 0, numbers - np.uint32(first), 0).ravel())[1:]
        areas.append(of_band)
        edges += [numbers[:, 0], numbers[:, -1]]
        edges += [numbers[0]] * (rows.start == 0) + [numbers[-1]] * (rows.stop == last)
        pause()
    table = banded.table()
    count = int(table.max())
    at_edge = np.zeros(count + 1, bool)
    at_edge[table[np.unique(np.concatenate(edges))]] = True
    of_component = np.bincount(table, np.concatenate(areas), minlength=count + 1).astype(np.int64)
    chosen = np.append(False, choose(of_component[1:], at_edge[1:]))[table]
    if not chosen.any():
        return
    for rows, first in zip(bands(plane.shape), firsts, strict=True):
        numbers = components(mask_of(plane[rows]).astype(np.uint8), [1])
        yield rows, chosen[np.where(numbers > 0, numbers + np.uint32(first), 0)]
        pause()
