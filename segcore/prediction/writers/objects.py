"""Objects of a picture as COG of their numbers, and as layer of a GeoPackage."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import shapely

from segcore.data.raster import Info
from segcore.objects.canvas import SceneObjects
from segcore.prediction.writers import cog
from segcore.prediction.writers.geopackage import Layer
from segcore.prediction.writers.placement import placement
from segcore.prediction.writers.polygons import outlines, simplified

# rows that are written at once: whole blocks of the file
_ROWS = 512
# side in pixels of the blocks that polygons are made from
_SIDE = 1024
LAYER = "objects"
# outlines in memory that wait for that of an object with a lower number
_MOST_WAITING = 50_000


def write_object_raster(objects: SceneObjects, target: Path, info: Info, tags: Mapping[str, str]) -> None:
    """Write the numbers of objects as COG, uint32, 0 where there is none.

    Args:
        objects: of the scene.
        target: a new file.
        info: of the scene.
        tags: further metadata.

    Raises:
        OSError, RasterioError: the disk is full or not writable.
    """
    plain = target.with_name("objects")
    with cog.create(plain, info, 1, "uint32", 0) as file:
        cog.describe_objects(file)
        for row in range(0, info.height, _ROWS):
            cog.put(file, row, 0, objects.numbers[None, row : row + _ROWS])
            objects.pause()
    cog.to_cog(plain, target, "NEAREST", tags)


def write_object_layer(
    objects: SceneObjects,
    target: Path,
    info: Info,
    names: Sequence[str],
    areas: np.ndarray | None,
    simplify: float = 0,
) -> None:
    """Write the layer `objects` of a GeoPackage, one feature per object, which may have several parts.

    Features are in the order of id, unless a large object would keep more than 50,000 others waiting for its outline.
    Fields are id, class (index), name, score, area_px, area_m2 if it is known, and cut (1: it touches an edge of the
    scene).

    Args:
        objects: of the scene.
        target: a file that may have other layers.
        info: of the scene.
        names: of all classes.
        areas: (N,) square metres of each object; None: unknown.
        simplify: tolerance in pixels by which outlines are simplified.

    Raises:
        OSError: the disk is full or not writable.
    """

    def read(row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = objects.numbers[row : row + height, col : col + width]
        # a format that the polygons can be made from
        return numbers.astype(np.int32), numbers > 0

    layer = Layer(target, LAYER, "MultiPolygon", placement(info))
    parts: dict[int, list[shapely.Polygon]] = {}
    cut, waiting = objects.cut, _Waiting()

    def write(index: np.ndarray, shapes: np.ndarray) -> None:
        fields: dict[str, np.ndarray] = {
            "id": index + 1,
            "class": objects.classes[index].astype(np.int32),
            "name": np.array([names[v] for v in objects.classes[index]], object),
            "score": objects.scores[index].astype(np.float64),
            "area_px": objects.areas[index],
            **({} if areas is None else {"area_m2": areas[index]}),
            "cut": cut[index].astype(np.int32),
        }
        layer.write(_valid(shapes, simplify), fields)

    for found, values in outlines(read, info.height, info.width, _SIDE):
        objects.pause()
        index, polygons, owners = _complete(found, values, objects, parts)
        waiting.add(index, shapely.multipolygons(simplified(polygons, simplify), indices=owners))
        write(*waiting.ready())
    write(*waiting.rest())


class _Waiting:
    """Outlines that wait for those of objects with a lower number."""

    def __init__(self) -> None:
        self._next, self._shapes = 0, dict[int, shapely.MultiPolygon]()

    def add(self, index: np.ndarray, shapes: np.ndarray) -> None:
        """Add outlines of objects."""
        self._shapes.update(zip(index.tolist(), shapes, strict=True))

    def ready(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) index and outline of the objects that wait for no other one; of all where they are too many."""
        if len(self._shapes) > _MOST_WAITING:
            return self.rest()
        while self._next in self._shapes:
            self._next += 1
        return self._taken([index for index in self._shapes if index < self._next])

    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """The same of all that wait."""
        self._next = max([self._next, *(index + 1 for index in self._shapes)])
        return self._taken(list(self._shapes))

    def _taken(self, chosen: list[int]) -> tuple[np.ndarray, np.ndarray]:
        shapes = np.empty(len(chosen), object)
        shapes[:] = [self._shapes.pop(index) for index in sorted(chosen)]
        return np.array(sorted(chosen), np.int64), shapes


def _complete(
    found: np.ndarray, values: np.ndarray, objects: SceneObjects, parts: dict[int, list[shapely.Polygon]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Objects of which all pixels were found; `parts` keeps the polygons of others.

    Returns:
        (N,) index of each object, (P,) its polygons, and (P,) the place of each polygon's object in the first.
    """
    # in pixels, areas are whole numbers
    areas = np.rint(shapely.area(found)).astype(np.int64)
    is_whole = areas == objects.areas[values - 1]
    index, polygons = list(values[is_whole] - 1), list(found[is_whole])
    owners = list(range(len(index)))
    for polygon, number in zip(found[~is_whole], values[~is_whole].tolist(), strict=True):
        of_object = parts.setdefault(number, [])
        of_object.append(polygon)
        if round(sum(part.area for part in of_object)) == objects.areas[number - 1]:
            owners += [len(index)] * len(of_object)
            index.append(number - 1)
            polygons += parts.pop(number)
    shapes = np.empty(len(polygons), object)
    shapes[:] = polygons
    return np.array(index, np.int64), shapes, np.array(owners, np.int64)


def _valid(shapes: np.ndarray, simplify: float) -> np.ndarray:
    """Multipolygons, repaired where simplified parts touch each other."""
    if not simplify or shapely.is_valid(shapes).all():
        return shapes
    return np.array([_repaired(shape) for shape in shapes], object)


def _repaired(shape: shapely.MultiPolygon) -> shapely.MultiPolygon:
    if shape.is_valid:
        return shape
    parts = shapely.get_parts(shapely.union_all(list(shape.geoms)))
    return shapely.MultiPolygon([part for part in parts if isinstance(part, shapely.Polygon)])
