"""Writers of annotation files of labelme, CVAT, YOLO and Cityscapes, and their labels."""

import base64
import io
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest
from PIL import Image

from segcore.data.raster import Info, Note
from segcore.errors import DataError
from segcore.io.annotations import Labels, open_labels
from segcore.params.data import Data
from tests.support.coco import HEIGHT, IMAGE, WIDTH, data_for

CAR = [[5, 5], [15, 5], [15, 15], [5, 15]]
TREE = [[30, 5], [40, 5], [40, 25], [30, 25]]


def png(mask: np.ndarray) -> str:
    """A mask as labelme stores it."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def shape(label: Any, points: Any, kind: str | None = "polygon", **over: Any) -> dict[str, Any]:
    found = {"label": label, "points": points, "group_id": None, "flags": {}, **over}
    return found if kind is None else {**found, "shape_type": kind}


def labelme(path: Path, shapes: list[Any], **over: Any) -> Path:
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.png", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": HEIGHT, "imageWidth": WIDTH, **over}))
    return path


def element(tag: str, label: str | None = "car", inner: str = "", **attributes: Any) -> str:
    """A shape of CVAT."""
    values = {**({} if label is None else {"label": label}), **attributes}
    return f"<{tag} {' '.join(f'{k}={quoteattr(str(v))}' for k, v in values.items())}>{inner}</{tag}>"


def points(corners: list[list[float]]) -> str:
    return ";".join(f"{x},{y}" for x, y in corners)


def cvat(path: Path, *images: tuple[str, list[str]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Names of images, each with its shapes."""
    body = "".join(
        f'<image id="{i}" name={quoteattr(name)} width="{size[1]}" height="{size[0]}">{"".join(shapes)}</image>'
        for i, (name, shapes) in enumerate(images)
    )
    text = f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta/>{body}</annotations>'
    path.write_text(text, encoding="utf-8")
    return path


def yolo(path: Path, *lines: tuple[Any, list[list[float]]]) -> Path:
    """Classes with corners in pixels."""
    texts = [
        f"{c} " + " ".join(f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in corners) for c, corners in lines
    ]
    path.write_text("\n".join(texts))
    return path


def cityscapes(path: Path, *objects: tuple[str, Any], **over: Any) -> Path:
    content = {
        "imgHeight": HEIGHT,
        "imgWidth": WIDTH,
        "objects": [{"label": n, "polygon": p} for n, p in objects],
    }
    path.write_text(json.dumps({**content, **over}))
    return path


def opened(
    path: Path, data: Data | None = None, image: str = "a.png", info: Info = IMAGE
) -> tuple[Labels, list[Note], dict[str, int]]:
    """Labels, notes and counted labels of an image."""
    with open_labels(path, path.with_name("images") / image, info, data or data_for()) as source:
        found = source.read((0, 0, info.height, info.width))
        return found, source.notes, source.found


def refused(path: Path, kind: str, *texts: str, data: Data | None = None, image: str = "a.png") -> None:
    """Check that reading fails with this kind and these texts, and a remedy."""
    with pytest.raises(DataError) as caught:
        opened(path, data, image)
    error = caught.value
    assert error.kind == kind and error.what.startswith(path.name) and error.remedy, error
    assert all(text in str(error) for text in texts), error
