"""Objects that touch, divided by a watershed.

A surface is high inside objects: the distance to the edge of a component, or a smoothed class probability. Seeds are
its h-maxima, that is maxima that rise by at least a depth h above the pass to a higher one. Each component is divided
separately, by flooding it from its seeds.

One flooding serves all depths: it gives the basins of all maxima. For a depth, a basin whose maximum rises by less is
joined with the neighbour that it meets at its highest pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects, gaussian_filter
from skimage.measure import label
from skimage.morphology import local_maxima
from skimage.segmentation import watershed

from segcore.data.object_numbers import by_first_pixel
from segcore.objects.components import components

Seeds = Literal["distance", "probability"]
# standard deviation in pixels of the smoothed probability
_SMOOTHING = 1.0


@dataclass(frozen=True)
class Basins:
    """Basins of the maxima of a surface.

    Attributes:
        numbers: (H, W) int32, number of each pixel's basin from 1; 0 outside of objects.
        peaks: (N,) highest value of each basin.
        passes: (E, 2) int64, places of two basins in `peaks` that are neighbours.
        heights: (E,) highest value at which the two meet.
    """

    numbers: np.ndarray
    peaks: np.ndarray
    passes: np.ndarray
    heights: np.ndarray

    def objects(self, depth: float) -> np.ndarray:
        """Objects of a depth: (H, W) uint32, numbers from 1 in the order of first pixels; 0 elsewhere."""
        root = np.arange(len(self.peaks))
        order = np.lexsort((self.passes[:, 1], self.passes[:, 0], -self.heights))
        for index in order.tolist():
            first, second = (_root(root, int(basin)) for basin in self.passes[index])
            lower, higher = sorted((first, second), key=lambda basin: (self.peaks[basin], -basin))
            if lower != higher and self.peaks[lower] - self.heights[index] < depth:
                root[lower] = higher
        roots = np.array([_root(root, basin) for basin in range(len(root))], np.int64)
        return in_order(np.concatenate([[0], roots + 1])[self.numbers])


def _root(root: np.ndarray, basin: int) -> int:
    while root[basin] != basin:
        # shortens the path of later calls
        root[basin] = root[root[basin]]
        basin = int(root[basin])
    return basin


def in_order(numbers: np.ndarray) -> np.ndarray:
    """(H, W) uint32: the numbers, 0 for none, replaced by 1, 2, ... in the order of their first pixels."""
    ids = np.arange(1, int(numbers.max(initial=0)) + 1)
    return by_first_pixel(numbers, ids)[0].astype(np.uint32)


def basins(
    seeds: Seeds, probabilities: np.ndarray, classes: np.ndarray, foreground: Sequence[int], depth: float
) -> Basins:
    """Basins of the components of a class map.

    Args:
        seeds: "distance" or "probability".
        probabilities: (K, H, W) float32.
        classes: (H, W) class indices; others, such as IGNORE, are no object.
        foreground: indices of the classes that have objects.
        depth: smallest depth that objects are made of; below it, maxima may be missing.
    """
    whole = components(classes, foreground)
    numbers, surface = np.zeros(whole.shape, np.int32), np.zeros(whole.shape, np.float32)
    if seeds == "probability":
        for index in set(np.unique(classes).tolist()) & set(foreground):
            smooth = gaussian_filter(probabilities[index], _SMOOTHING)
            np.copyto(surface, smooth, where=classes == index)
    count = 0
    for number, box in enumerate(find_objects(whole.astype(np.int32)), start=1):
        place = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        mask = whole[place] == number
        if seeds == "distance":
            # an object that fills the region has no edge
            surface[place][mask] = 0 if mask.all() else distance_transform_edt(mask)[mask]
        parts = _divided(mask, surface[place], depth)
        numbers[place][mask] = parts[mask] + count
        count += int(parts.max())
    return Basins(numbers, *_graph(whole, numbers, surface, count))


def _divided(mask: np.ndarray, surface: np.ndarray, depth: float) -> np.ndarray:
    """(H, W) int32 basins of one component, numbered from 1; one where no maximum can have the depth."""
    values = surface[mask]
    if values.max() - values.min() < depth:
        return mask.astype(np.int32)
    inside = np.where(mask, surface, values.min() - 1)
    maxima = label(local_maxima(inside, connectivity=1), connectivity=1)
    divided: np.ndarray = watershed(-inside, maxima, connectivity=1, mask=mask)
    return divided


def _graph(
    whole: np.ndarray, numbers: np.ndarray, surface: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Peaks, passes and heights of basins, see `Basins`."""
    flat, inside = numbers.ravel(), numbers.ravel() > 0
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, flat[inside] - 1, surface.ravel()[inside])
    keys, heights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for a, b in (((slice(None, -1),), (slice(1, None),)), (np.s_[:, :-1], np.s_[:, 1:])):
        meets = (whole[a] == whole[b]) & (numbers[a] != numbers[b])
        low, high = np.sort(np.stack([numbers[a][meets], numbers[b][meets]]).astype(np.int64) - 1, axis=0)
        keys.append(low * count + high)
        heights.append(np.minimum(surface[a][meets], surface[b][meets]))
    unique, place = np.unique(np.concatenate(keys), return_inverse=True)
    height = np.full(len(unique), -np.inf)
    np.maximum.at(height, place, np.concatenate(heights))
    return peaks, np.stack([unique // max(count, 1), unique % max(count, 1)], axis=1), height


def grown(
    numbers: np.ndarray, classes: np.ndarray, foreground: Sequence[int], touching: np.ndarray
) -> np.ndarray:
    """Objects that grow into the pixels around them, up to the edges of their components.

    Neighbours meet where the pixels most probably touch both. A component without any object becomes one.

    Args:
        numbers: (H, W) numbers of objects, 0 for none; each is within one component.
        classes: (H, W) class indices.
        foreground: indices of the classes that have objects.
        touching: (H, W) probability that a pixel is near two objects.

    Returns:
        (H, W) uint32: numbers from 1 in the order of first pixels; 0 elsewhere.
    """
    whole, result = components(classes, foreground), numbers.astype(np.int32)
    count = int(result.max(initial=0))
    for number, place in enumerate(find_objects(whole.astype(np.int32)), start=1):
        mask = whole[place] == number
        inside = result[place][mask]
        if inside.all():
            continue
        if inside.any():
            markers = np.where(mask, result[place], 0)
            result[place][mask] = watershed(touching[place], markers, connectivity=1, mask=mask)[mask]
        else:
            count += 1
            result[place][mask] = count
    return in_order(result)
