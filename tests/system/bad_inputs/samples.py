"""A valid file of each supported format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tests.support import drawn as support
from tests.system.bad_inputs import annotations, drawn, pictures, scenes, series, volumes
from tests.system.bad_inputs.case import Pair


class Sample(NamedTuple):
    """A valid data set of one item.

    Attributes:
        make: writes it into a folder.
        files: pattern of the files of which one is damaged.
        data: see `data_section`.
    """

    make: Callable[[Path], Any]
    files: str
    data: dict[str, Any]


def _picture(extension: str, **options: Any) -> Sample:
    def make(folder: Path) -> None:
        pair = pictures.pair(folder, "x", 1)
        pictures.saved(pair, f"x{extension}", **options)

    return Sample(make, f"images/x{extension}", {**pictures.PICTURES.data})


def _palette_mask(folder: Path) -> None:
    pair = pictures.pair(folder, "x", 1)
    Image.open(pair.mask).convert("P").save(pair.mask)


def _tiff(**profile: Any) -> Sample:
    def make(folder: Path) -> None:
        pair = scenes.pair(folder, "x", 1)
        pixels = scenes.content(pair)[0].astype(profile.get("dtype", "uint8"))
        scenes.image_as(pair, pixels, **profile)

    return Sample(make, "images/x.tif", {**scenes.SCENES.data})


def _vrt(folder: Path) -> None:
    pair = scenes.pair(folder, "x", 1)
    (folder / "images" / "parts").mkdir()
    pair.image.rename(folder / "images" / "parts" / "x.tif")
    pair.image.with_suffix(".vrt").write_text(scenes.vrt("parts/x.tif"))


def _nifti(folder: Path) -> None:
    pair = volumes.nifti_pair(folder, "x", 1)
    volumes.write_nifti(pair.replace_image("x.nii"), volumes.content(1)[0])


def _polygons(extension: str) -> Sample:
    def make(folder: Path) -> None:
        import pyogrio.raw
        import shapely

        pair = annotations.polygon_pair(folder, "x", 1)
        pair.mask.unlink()
        shapes = [shapely.Polygon(annotations.ring(1, at, at + 9)) for at in (3, 20, 44)]
        pyogrio.raw.write(
            pair.mask.with_suffix(extension),
            shapely.to_wkb(np.array(shapes)),
            [np.array(["building"] * 3, object)],
            ["kind"],
            crs="EPSG:32633",
            geometry_type="Polygon",
        )

    return Sample(make, "labels/*", {**annotations.POLYGONS.data, "masks": f"labels/{{stem}}{extension}"})


def _coco(folder: Path) -> None:
    pair = annotations.coco_pair(folder, "x", 1)
    other = annotations.coco_pair(folder, "run_length_mask_of_another_size", 2)
    annotations.coco_json(folder, {"x": pair, "y": other})


def _coco_layout(folder: Path) -> None:
    _coco(folder)
    (folder / "annotations").mkdir()
    (folder / "annotations.json").rename(folder / "annotations" / "instances_train.json")


def _cvat(folder: Path) -> None:
    pair = drawn.drawn_pair(folder, "x", 1)
    shapes = [support.element("box", "land", xtl=0, ytl=0, xbr=56, ybr=48)]
    shapes += [support.element("mask", "square", rle="3,9", left=9, top=9, height=3, width=4, z_order=2)]
    shapes += [support.element("ellipse", "square", cx=30, cy=20, rx=9, ry=4, rotation=20)]
    shapes += [support.element("polygon", "square", points=support.points(support.CAR))]
    support.cvat(pair.replace_mask("x.xml"), ("x.png", shapes), size=(48, 56))


def _yolo(folder: Path) -> None:
    pair = drawn.drawn_pair(folder, "x", 1)
    support.yolo(pair.replace_mask("x.txt"), (0, [[0, 0], [50, 0], [50, 40], [0, 40]]), (1, support.CAR))


def _cityscapes(folder: Path) -> None:
    pair = drawn.drawn_pair(folder, "x", 1)
    land = [[0, 0], [56, 0], [56, 48], [0, 48]]
    support.cityscapes(pair.mask, ("land", land), ("square", support.CAR), imgHeight=48, imgWidth=56)


def _listing(folder: Path) -> None:
    annotations.listing_csv(folder, {"x": pictures.pair(folder, "x", 1), "y": pictures.pair(folder, "y", 2)})


def _parquet(folder: Path) -> None:
    _listing(folder)
    pd.read_csv(folder / "items.csv").to_parquet(folder / "items.parquet")


def _seg_pair(folder: Path) -> Pair:
    return series.series_pair(folder, "x", 1)


SAMPLES = {
    "png": _picture(".png"),
    "png palette mask": Sample(_palette_mask, "masks/x_m.png", {**pictures.PICTURES.data}),
    "jpeg": _picture(".jpg"),
    "jpeg progressive": _picture(".jpg", progressive=True),
    "bmp": _picture(".bmp"),
    "webp": _picture(".webp"),
    "webp lossless": _picture(".webp", lossless=True),
    "ppm": _picture(".ppm"),
    "tiff striped": _tiff(blockysize=8),
    "tiff tiled": _tiff(tiled=True, blockxsize=32, blockysize=32),
    "tiff deflate": _tiff(compress="deflate", predictor=2),
    "tiff lzw": _tiff(compress="lzw", tiled=True, blockxsize=16, blockysize=16),
    "tiff jpeg": _tiff(compress="jpeg", photometric="YCBCR"),
    "tiff zstd": _tiff(compress="zstd", dtype="float32", predictor=3),
    "bigtiff": _tiff(bigtiff="YES", compress="packbits", nodata=7),
    "vrt": Sample(_vrt, "images/**/x.*", {**scenes.SCENES.data, "images": "images/{file}.vrt"}),
    "nifti": Sample(_nifti, "images/x.nii", {**volumes.VOLUMES.data}),
    "nifti gz": Sample(lambda f: volumes.nifti_pair(f, "x", 1), "*/x*.nii.gz", {**volumes.VOLUMES.data}),
    "dicom": Sample(_seg_pair, "images/x/*.dcm", {**series.SERIES.data}),
    "dicom seg": Sample(_seg_pair, "masks/x.dcm", {**series.SERIES.data}),
    "geojson": _polygons(".geojson"),
    "gpkg": _polygons(".gpkg"),
    "shp": _polygons(".shp"),
    "flatgeobuf": _polygons(".fgb"),
    "coco": Sample(_coco, "annotations.json", {**annotations.COCO.data}),
    "coco layout": Sample(
        _coco_layout, "annotations/*", {"layout": "coco", "label_values": {"building": "square"}}
    ),
    "labelme": Sample(lambda f: drawn.drawn_pair(f, "x", 1), "shapes/*", {**drawn.DRAWN.data}),
    "cvat": Sample(_cvat, "shapes/*", {**drawn.DRAWN.data}),
    "yolo": Sample(_yolo, "shapes/*", {**drawn.DRAWN.data}),
    "cityscapes polygons": Sample(_cityscapes, "shapes/*", {**drawn.DRAWN.data}),
    "csv": Sample(_listing, "items.csv", {**annotations.LISTED.data}),
    "parquet": Sample(_parquet, "items.parquet", {**annotations.LISTED.data, "listing": "items.parquet"}),
}
