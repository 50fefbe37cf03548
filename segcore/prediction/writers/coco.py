"""Objects of a picture as COCO instance annotations with run-length masks.

https://cocodataset.org/#format-data, as pycocotools reads it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from segcore.data.raster import Info
from segcore.objects.canvas import SceneObjects

# pixels of a mask that are handled at once
_PIXELS = 2**22
# objects whose part of the map stays in memory
_KEPT = 1000


def write_coco(
    objects: SceneObjects,
    target: Path,
    info: Info,
    scene: str,
    names: Sequence[str],
    foreground: Sequence[int],
) -> None:
    """Write one image with its objects.

    Ids of images and objects start at 1, and those of objects are their numbers. Ids of categories are class indices,
    plus 1 if class 0 has objects.

    Args:
        objects: of the scene.
        target: a new file.
        info: of the scene.
        scene: name of its file.
        names: of all classes.
        foreground: indices of the classes that have objects.

    Raises:
        OSError: the disk is full or not writable.
    """
    shift = int(0 in foreground)
    image = {"id": 1, "file_name": scene, "width": info.width, "height": info.height}
    categories = [{"id": index + shift, "name": names[index]} for index in foreground]
    with target.open("w", encoding="utf-8") as file:
        file.write(f'{{"images": [{json.dumps(image)}],\n"categories": {json.dumps(categories)},\n')
        file.write('"annotations": [')
        for index in range(len(objects)):
            row, col, height, width = objects.boxes[index].tolist()
            annotation = {
                "id": index + 1,
                "image_id": 1,
                "category_id": int(objects.classes[index]) + shift,
                "segmentation": {"size": [info.height, info.width], "counts": run_lengths(objects, index)},
                "area": int(objects.areas[index]),
                "bbox": [col, row, width, height],
                "iscrowd": 0,
                "score": round(float(objects.scores[index]), 6),
            }
            file.write(("," if index else "") + "\n" + json.dumps(annotation))
            if index % _KEPT == 0:
                objects.pause()
        file.write("\n]}\n")


def run_lengths(objects: SceneObjects, index: int) -> str:
    """The mask of an object in the compressed run lengths of COCO, column by column of the whole scene."""
    height, width = objects.numbers.shape
    edges = np.concatenate(list(_edges(objects, index)))
    # runs that go on from the last pixel of a column to the first one of the next
    joined = np.flatnonzero(edges[1:-1:2] == edges[2::2]) * 2 + 1
    edges = np.delete(edges, np.concatenate([joined, joined + 1]))
    counts = np.diff(edges, prepend=0)
    if edges[-1] < height * width:
        counts = np.append(counts, height * width - edges[-1])
    return _compressed(counts)


def _edges(objects: SceneObjects, index: int) -> Iterator[np.ndarray]:
    """First pixel and end of each run, alternately, as positions in the scene column by column."""
    top, left, height, width = objects.boxes[index].tolist()
    step = max(1, _PIXELS // height)
    for col in range(left, left + width, step):
        part = objects.numbers[top : top + height, col : min(col + step, left + width)] == index + 1
        padded = np.zeros((part.shape[1], height + 2), np.int8)
        padded[:, 1:-1] = part.T
        columns, rows = np.nonzero(np.diff(padded, axis=1))
        yield (columns + col) * objects.numbers.shape[0] + rows + top


def _compressed(counts: np.ndarray) -> str:
    """Run lengths as pycocotools packs them: differences to the last but one, in groups of five bits and a flag."""
    values = counts.astype(np.int64)
    values[3:] -= counts[1:-2]
    groups, is_last = [], np.zeros(len(values), bool)
    lengths = np.zeros(len(values), np.int64)
    while not is_last.all():
        bits = values & 0x1F
        values = values >> 5
        ends = np.where(bits & 0x10, values == -1, values == 0)
        groups.append(np.where(ends, bits, bits | 0x20) + 48)
        lengths += ~is_last
        is_last |= ends
    table = np.stack(groups, axis=1).astype(np.uint8)
    return table[np.arange(table.shape[1]) < lengths[:, None]].tobytes().decode("ascii")
