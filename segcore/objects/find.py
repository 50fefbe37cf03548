"""How objects are found, and those of a semantic network, from its class probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from segcore.constants import IGNORE
from segcore.errors import ModelError
from segcore.objects.components import components
from segcore.objects.found import Objects, from_numbers
from segcore.objects.watershed import Basins, Seeds, basins, grown

Method = Literal["components", "watershed", "network"]


@dataclass(frozen=True)
class FindSettings:
    """How objects are found; chosen on the validation split, and stored in the bundle.

    Attributes:
        method: "components" (4-connected pixels of one class), "watershed" (components, divided), or "network": by an
            instance network.
        score: objects of a lower score are left out, in [0, 1].
        seeds: of the watershed: maxima of the "distance" to the edge or of the "probability" of the class.
        depth: of the watershed: maxima that rise by less above the pass to a higher one are no seeds; in pixels for
            "distance", in [0, 1] for "probability".
    """

    method: Method = "components"
    score: float = 0.0
    seeds: Seeds = "distance"
    depth: float = 1.0

    @classmethod
    def of(cls, description: dict[str, Any], method: Method) -> "FindSettings":
        """The settings that a bundle has for a method; an instance network has only those of "network".

        Args:
            description: model.json.
            method: "components" or "watershed"; of no account for an instance network.

        Raises:
            ModelError: it has none.
        """
        if description.get("kind") == "instance":
            method = "network"
        chosen = description.get("objects", {}).get(method)
        if chosen is None:
            raise ModelError(
                f"model.json: has no entry objects.{method}, so that this model cannot find objects",
                "train it again on data with objects (data.instances), or ask for no objects",
            )
        if method == "watershed":
            return cls(method, chosen["score"], chosen["seeds"], chosen["depth"])
        return cls(method, chosen["score"])


def find(
    probabilities: np.ndarray,
    classes: np.ndarray,
    foreground: Sequence[int],
    settings: FindSettings,
    touching: np.ndarray | None = None,
) -> Objects:
    """Objects of a region, in the order of their first pixels.

    Args:
        probabilities: (K, H, W) float32, those of the K classes, with sum 1.
        classes: (H, W) uint8 predicted class of each pixel; IGNORE where there are no data.
        foreground: indices of the classes that have objects.
        settings: components or watershed, and its parameters.
        touching: (H, W) float32, probability that a pixel is near two objects, of a network trained for it.

    Returns:
        Objects that do not overlap; the score of an object is the mean probability of its class over its pixels.
    """
    numbers = next(number_maps(probabilities, classes, foreground, [settings], touching))
    objects = from_numbers(numbers, *classes_and_scores(numbers, probabilities, classes))
    return objects.select(objects.scores >= np.float32(settings.score))


def number_maps(
    probabilities: np.ndarray,
    classes: np.ndarray,
    foreground: Sequence[int],
    settings: Sequence[FindSettings],
    touching: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """Objects of any score by each of the settings; other arguments as of `find`.

    Watersheds with the same seeds one after the other share most of the work.

    Yields:
        (H, W) uint32: numbers from 1 in the order of first pixels, 0 where there is no object.
    """
    divisible = classes if touching is None else _without(touching, probabilities, classes)
    made: dict[Seeds, Basins] = {}
    for one in settings:
        if one.method == "components":
            numbers = components(divisible, foreground)
        else:
            if one.seeds not in made:
                # those of other seeds take as much memory
                made.clear()
                least = min(s.depth for s in settings if (s.method, s.seeds) == (one.method, one.seeds))
                made[one.seeds] = basins(one.seeds, probabilities, divisible, foreground, least)
            numbers = made[one.seeds].objects(one.depth)
        yield numbers if touching is None else grown(numbers, classes, foreground, touching)


def _without(touching: np.ndarray, probabilities: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class map without pixels that are more probably near two objects than of their class."""
    index = np.where(classes < len(probabilities), classes, 0).astype(np.int64)
    of_class = np.take_along_axis(probabilities, index[None], axis=0)[0]
    # the classes share the probability that `touching` leaves
    return np.where(touching > of_class * (1 - touching), IGNORE, classes)


def classes_and_scores(
    numbers: np.ndarray, probabilities: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Class and score of the objects of a number map without gaps; arguments as of `find`.

    Returns:
        (N,) class index, and (N,) float64 mean probability of it over the object's pixels.
    """
    inside = np.flatnonzero(numbers)
    number, index = numbers.ravel()[inside].astype(np.int64) - 1, classes.ravel()[inside].astype(np.int64)
    count = int(number.max(initial=-1)) + 1
    of_object = np.zeros(count, np.int64)
    of_object[number] = index
    values = probabilities.reshape(len(probabilities), -1)[index, inside]
    total, areas = np.bincount(number, values, count), np.bincount(number, minlength=count)
    return of_object, total / areas
