"""Columns of the object table of prepared data."""

# columns and dtypes of objects.parquet, one row per object of an item
OBJECT_COLUMNS = {
    "item": "object",
    # id of the region that has its first pixel, "" if none has
    "region": "object",
    # its number in the item
    "id": "int64",
    "class_index": "int64",
    # pixels
    "area": "int64",
    # its box in the item
    "row": "int64",
    "col": "int64",
    "height": "int64",
    "width": "int64",
    # mean row and column of its pixels
    "center_row": "float64",
    "center_col": "float64",
    # it touches an edge of the item, or of its region where the item goes on
    "cut_item": "bool",
    "cut_region": "bool",
    # 4-connected groups of its pixels
    "parts": "int64",
    # other objects within 3 pixels
    "neighbours": "int64",
}
