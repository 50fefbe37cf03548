"""The object table: all objects of an evaluation in long form, from which every score of objects derives.

A row is of one kind:

- `image`: one per region, also without objects: pixels, ignored_pixels, pixel_area.
- `truth`: one per true object of a foreground class with a valid pixel in the region.
- `prediction`: one per predicted object with a pixel that is not ignored.
- `pair`: one per true and predicted object that share a pixel, also of different classes.

Numbers of objects (`truth`, `prediction`) count from 1 within a region, in the order of first pixels. Areas and
intersections are of valid pixels that are not ignored, unless the column says otherwise.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from segcore.errors import DataError

KINDS = ("image", "truth", "prediction", "pair")

# column -> dtype; a column is 0, False or NaN in rows of kinds that do not have it
COLUMNS: dict[str, str] = {
    "kind": "str",
    "item": "str",  # all kinds: id of the region
    "cluster": "str",  # all kinds
    "class_index": "int64",  # truth, prediction; -1 in others
    "truth": "int64",  # truth, pair: number of the true object
    "prediction": "int64",  # prediction, pair: number of the predicted object
    "score": "float64",  # prediction, in [0, 1]
    "area": "int64",  # truth, prediction: scored pixels
    "area_full": "int64",  # truth: pixels in the whole item; prediction: with ignored pixels
    "cut": "bool",  # truth, prediction: touches an edge of the region
    "out": "bool",  # truth: not required; prediction: taken out (REQUIRED_SHARE, IGNORED_SHARE)
    "crowd": "bool",  # truth: a crowd of COCO, which any number of predictions may match; False in our own data
    "ignored_share": "float64",  # prediction: share of its pixels that are ignored or not valid
    "row": "int64",  # truth, prediction: first row of the box in the region
    "col": "int64",
    "height": "int64",
    "width": "int64",
    "intersection": "int64",  # pair: scored pixels in both
    "boundary_truth": "int64",  # pair: boundary pixels of the true object
    "boundary_prediction": "int64",  # pair: boundary pixels of the predicted object
    "boundary_truth_matched": "int64",  # pair: those of the truth within the tolerance of the prediction's boundary
    "boundary_prediction_matched": "int64",  # pair: the reverse
    "pixels": "int64",  # image: scored pixels
    "ignored_pixels": "int64",  # image
    "pixel_area": "float64",  # image: of a pixel in m2; NaN without a ground unit
}


def objects_table(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of the rows of all regions, with all columns and their dtypes; absent columns get the default."""
    parts = [part for part in parts if len(part)]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    columns = {}
    for name, dtype in COLUMNS.items():
        default = {"str": "", "bool": False, "float64": np.nan}.get(dtype, -1 if name == "class_index" else 0)
        values = table[name] if name in table else pd.Series([default] * len(table))
        values = values.where(values.notna(), default) if dtype != "float64" else values
        columns[name] = values.astype(object if dtype == "str" else dtype)
    return pd.DataFrame(columns)


def require_images(table: pd.DataFrame, expected: Iterable[str]) -> None:
    """Check that the table has exactly one `image` row for each expected region, and no other region.

    Raises:
        DataError: it has not.
    """
    images, expected = table.loc[table["kind"] == "image", "item"], set(expected)
    wrong = (
        expected.symmetric_difference(images)
        | set(images[images.duplicated()])
        | (set(table["item"]) - expected)
    )
    if wrong:
        raise DataError(
            f"{len(wrong)} regions are missing from the object table, twice in it or not expected: "
            f"{', '.join(sorted(wrong)[:5])}",
            "evaluate the model on the whole test set again",
        )
