"""Bad polygons, COCO annotations and lists of items."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.tiny import blobs, write_tif
from tests.system.bad_inputs import pictures, scenes
from tests.system.bad_inputs.case import DataSet, Pair, cut

UTM = "urn:ogc:def:crs:EPSG::32633"


def ring(seed: int, first: float = 5, last: float = 20) -> list[list[float]]:
    """A square from pixel `first` to pixel `last`, in map coordinates."""
    place = scenes.place(seed)
    corners = [(first, first), (last, first), (last, last), (first, last), (first, first)]
    return [list(place @ corner) for corner in corners]


def geojson(path: Path, *geometries: Any, crs: str | None = UTM, kind: Any = "building") -> None:
    features = [{"type": "Feature", "properties": {"kind": kind}, "geometry": g} for g in geometries]
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if crs:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def polygon(*rings: list[list[float]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def polygon_pair(folder: Path, name: str, seed: int) -> Pair:
    made = Pair(folder / "images" / f"{name}.tif", folder / "labels" / f"{name}.geojson", seed)
    image = np.moveaxis(blobs(scenes.SIDE, scenes.SIDE, seed)[0], -1, 0)
    write_tif(made.image, image, transform=scenes.place(seed))
    geojson(made.mask, polygon(ring(seed)))
    return made


POLYGONS = DataSet(
    "polygons",
    polygon_pair,
    {
        "images": "images/{file}",
        "masks": "labels/{stem}.*",
        "label_values": {"building": "square"},
        "label_property": "kind",
        "instances": True,
    },
)
case = POLYGONS.case


@case("polygons-unreadable", "cannot be read as polygons", of="mask")
def truncated_geojson(pair):
    cut(pair.mask)


@case("polygons-unreadable", "its content is not GeoJSON", of="mask")
def text_as_geojson(pair):
    pair.mask.write_text("no polygons at all")


@case("polygons-unreadable", "its content is not GPKG", of="mask")
def geojson_as_geopackage(pair):
    pair.mask = pair.mask.rename(pair.mask.with_suffix(".gpkg"))


@case("polygons-unreadable", "holds LineString instead of polygons", of="mask")
def lines_instead_of_polygons(pair):
    geojson(pair.mask, {"type": "LineString", "coordinates": ring(pair.seed)})


@case("polygons-unreadable", "has no property 'kind'", of="mask")
def polygons_without_the_property(pair):
    pair.mask.write_text(pair.mask.read_text().replace('"kind"', '"sort"'))


@case("unknown-category", "values of 'kind' that data.label_values does not declare: road (1)", of="mask")
def property_value_that_is_not_declared(pair):
    geojson(pair.mask, polygon(ring(pair.seed)), kind="road")


@case("polygons-no-crs", "the image has no coordinate system", of="mask")
def image_without_the_polygons_crs(pair):
    image = np.moveaxis(blobs(scenes.SIDE, scenes.SIDE, pair.seed)[0], -1, 0)
    write_tif(pair.image, image, transform=scenes.place(pair.seed), crs=None)


@case("polygons-no-crs", "the image has no affine transform", of="mask")
def image_without_a_place(pair):
    Image.fromarray(blobs(64, 64, pair.seed)[0]).save(pair.replace_image("image_without_a_place.png"))


@case("polygons-outside", "no polygon of polygons_elsewhere.geojson is within")
def polygons_elsewhere(pair):
    geojson(pair.mask, polygon(ring(pair.seed, 900, 990)))


@case("polygons-outside", "")
def degrees_called_metres(pair):
    geojson(pair.mask, polygon([[13.0, 45.0], [13.1, 45.0], [13.1, 45.1], [13.0, 45.0]]))


@case("polygons-invalid", "1 features intersect themselves and were repaired")
def polygon_that_crosses_itself(pair):
    corners = ring(pair.seed)
    corners[1], corners[2] = corners[2], corners[1]
    geojson(pair.mask, polygon(corners))


@case("polygons-invalid", "1 features are empty or damaged and were left out")
def polygon_without_an_area(pair):
    corners = ring(pair.seed)
    geojson(pair.mask, polygon(corners), polygon([corners[0], corners[1], corners[0], corners[0]]))


@case("objects-vanished", "1 (0) hidden by others, 1 (2) that cover no pixel")
def polygon_under_another(pair):
    thin = polygon(ring(pair.seed, 40.6, 40.9))
    geojson(pair.mask, polygon(ring(pair.seed)), polygon(ring(pair.seed, 2, 30)), thin)


@case("empty-mask", "only background")
def file_without_polygons(pair):
    geojson(pair.mask)


def coco_pair(folder: Path, name: str, seed: int) -> Pair:
    made = pictures.pair(folder, name, seed)
    made.mask.unlink()
    return Pair(made.image, folder / "annotations.json", seed)


SQUARE = [5, 5, 20, 5, 20, 20, 5, 20]
# Case -> changes to its annotation (or, under "image", to its image entry).
OUTLINES: dict[str, dict[str, Any]] = {
    "annotation_of_another_size": {"image": {"height": 480}},
    "run_length_mask_of_another_size": {"segmentation": {"size": [10, 10], "counts": [20, 80]}},
    "run_length_mask_cut_off": {"segmentation": {"size": [48, 56], "counts": "PQ5000o"}},
    "outline_far_outside": {"segmentation": [[5, 5, 2e9, 5, 2e9, 20, 5, 20]]},
    "outline_of_words": {"segmentation": [["a", "b", "c", "d", "e", "f"]]},
    "annotation_without_outline": {"segmentation": []},
    "category_that_is_not_declared": {"category_id": 9},
    "outline_partly_outside": {"segmentation": [[-9, 5, 20, 5, 20, 20, -9, 20]]},
    "region_of_many_objects": {"iscrowd": 1},
    "outline_beside_the_image": {"segmentation": [[-9, -9, -2, -9, -2, -2, -9, -2]]},
}


def coco_json(folder: Path, pairs: dict[str, Pair]) -> None:
    images, annotations = [], []
    for i, (name, made) in enumerate(pairs.items()):
        if name == "image_that_is_not_annotated":
            continue
        over = dict(OUTLINES.get(name, {}))
        entry = {"id": i, "file_name": made.image.name, "height": 48, "width": 56}
        images.append({**entry, **over.pop("image", {})})
        annotation = {"id": i, "image_id": i, "category_id": 1, "segmentation": [SQUARE]}
        annotations.append({**annotation, **over})
    categories = [{"id": 1, "name": "building"}, {"id": 9, "name": "road"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


COCO = DataSet(
    "coco",
    coco_pair,
    {"images": "images/*", "masks": "annotations.json", "label_values": {"building": "square"}},
    finish=coco_json,
)
for name, kind, text in (
    ("annotation_of_another_size", "size-mismatch", "annotations 480 x 56, image 48 x 56"),
    ("run_length_mask_of_another_size", "bad-run-length", "has size [10, 10], but the image has [48, 56]"),
    ("run_length_mask_cut_off", "bad-run-length", "run-length mask that"),
    ("outline_far_outside", "size-mismatch", "far outside the image of 48 x 56"),
    ("outline_of_words", "polygons-unreadable", "not a list of x, y, x, y"),
    ("annotation_without_outline", "polygons-unreadable", "no outlines"),
    ("category_that_is_not_declared", "unknown-category", "'road' (id 9) (1)"),
    (
        "outline_partly_outside",
        "polygons-outside",
        "1 annotations reach outside of the image and were clipped",
    ),
    ("region_of_many_objects", "crowds-ignored", "annotation 13 is marked iscrowd and ignored"),
    ("outline_beside_the_image", "polygons-outside", "annotations that cover no pixel"),
    ("image_that_is_not_annotated", "not-annotated", "does not list the image"),
):

    def unchanged(pair: Pair) -> None:
        """The files stay valid; the damage is in annotations.json."""

    unchanged.__name__ = name
    COCO.case(kind, text, of="mask")(unchanged)


ROWS: dict[str, dict[str, str]] = {
    "listed_twice": {},
    "listed_without_a_mask": {"mask": ""},
    "listed_but_missing": {},
    "listed_by_an_absolute_path": {"mask": "/etc/hostname"},
    "listed_by_a_path_that_climbs_out": {"image": "../elsewhere.png"},
    "listed_as_its_own_mask": {"mask": "images/listed_as_its_own_mask.png"},
    "listed_with_an_unknown_split": {"split": "holdout"},
    "listed_with_a_field_of_another_size": {"valid": "small.png"},
}


def listing_csv(folder: Path, pairs: dict[str, Pair]) -> None:
    lines = ["image,mask,split,valid"]
    Image.fromarray(np.full((9, 9), 255, np.uint8)).save(folder / "small.png")
    for name, made in pairs.items():
        row = {
            "image": f"images/{name}.png",
            "mask": f"masks/{made.mask.name}",
            "split": "train",
            "valid": "",
        }
        lines += [",".join((row | ROWS.get(name, {})).values())] * (2 if name == "listed_twice" else 1)
    (folder / "items.csv").write_text("\n".join(lines))


LISTED = DataSet(
    "listing", pictures.pair, {"listing": "items.csv", "label_values": {0: 0, 255: 1}}, finish=listing_csv
)


@LISTED.case("same-id", "is listed twice")
def listed_twice(pair):
    pass


@LISTED.case("missing-mask", "has no mask, its cell in items.csv is missing")
def listed_without_a_mask(pair):
    pass


@LISTED.case("unreadable", "is named by items.csv, but images/listed_but_missing.png is missing")
def listed_but_missing(pair):
    pair.image.unlink()


@LISTED.case("outside", "/etc/hostname is outside the source folder", of="outsider")
def listed_by_an_absolute_path(pair):
    pass


@LISTED.case("outside", "../elsewhere.png is outside the source folder")
def listed_by_a_path_that_climbs_out(pair):
    pair.image = pair.image.rename(pair.source.parent / "elsewhere.png")


@LISTED.case("same-file", "same content")
def listed_as_its_own_mask(pair):
    image = Image.open(pair.mask)
    image.save(pair.image)


@LISTED.case("unknown-split", "its split 'holdout' is unknown")
def listed_with_an_unknown_split(pair):
    pass


@LISTED.case("size-mismatch", ", mask 9 x 9")
def listed_with_a_field_of_another_size(pair):
    pass


def colour_pair(folder: Path, name: str, seed: int) -> Pair:
    made = pictures.pair(folder, name, seed)
    mask = np.array(Image.open(made.mask))[..., None] // 255 * np.array([255, 200, 0], np.uint8)
    Image.fromarray(mask.astype(np.uint8)).save(made.mask)
    return made


COLOURS = DataSet(
    "colours",
    colour_pair,
    {"images": "images/*", "masks": "masks/{stem}_m.png", "label_values": {"#000000": 0, "#FFC800": 1}},
)


@COLOURS.case("label-colors", "colours outside the declared classes: #0A141E (12)", of="mask")
def colour_that_is_not_in_the_table(pair):
    mask = np.array(Image.open(pair.mask))
    mask[:3, :4] = (10, 20, 30)
    Image.fromarray(mask).save(pair.mask)


@COLOURS.case("label-colors", "colours outside the declared classes", of="mask")
def palette_of_other_colours(pair):
    mask = Image.fromarray((np.array(Image.open(pair.mask))[..., 0] > 0).astype(np.uint8), "P")
    mask.putpalette([0, 0, 0, 1, 2, 3])
    mask.save(pair.mask)
