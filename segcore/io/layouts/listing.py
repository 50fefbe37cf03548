"""A table of the image and mask of each item: data.listing, a CSV or Parquet file within the source folder.

Columns: image and mask; optional: group, split, valid, the column that data.objects names, and those in data.baselines
(annotator: column). Each further column whose name has only letters, digits and `_` is a word. Paths are relative to
the source folder.
"""

import re
from pathlib import Path, PurePosixPath

import pandas as pd

from segcore.errors import DataError
from segcore.io.layouts import _patterns as patterns
from segcore.io.layouts._builder import NUMBERS, Builder
from segcore.io.layouts._files import Folder
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
from segcore.io.layouts._unique_ids import with_unique_ids
from segcore.io.layouts.pairs import no_images
from segcore.params.data import Data


def find(data: Data, folder: Path) -> list[Item]:
    """Items of the table's rows.

    The split column is mapped by data.splits; common names such as train, val and test need no entry there. An empty
    cell leaves the split open.

    Raises:
        DataError: the table is missing, unreadable or lacks a column (kind "no-list"), or has no row ("no-images").
    """
    if not data.listing:
        raise _bad_list("data.listing", "is not set", "name the CSV or Parquet file in params.yaml")
    source = Folder(folder, data.links_to)
    name = data.listing
    table = _table(source, PurePosixPath(name))
    of_settings = [*([data.objects] if data.objects else []), *data.baselines.values()]
    for column in ("image", "mask", *of_settings):
        if column not in table:
            raise _bad_list(
                name,
                f"lacks the column {column!r}; it has {', '.join(map(repr, map(str, table.columns)))}",
                "add the column: image and mask are needed, and those that data.objects and data.baselines name",
            )
    rows = [row for row in table.to_dict("records") if row["image"] or row["mask"]]
    if not rows:
        raise no_images(name, folder)
    return with_unique_ids([_item(data, source, row, name) for row in rows])


def _item(data: Data, source: Folder, row: dict[str, str], name: str) -> Item:
    path = _path(source, row["image"] or row["mask"])
    build = Builder(data, source, patterns.Match(path, is_folder=(source.path / path).is_dir()))
    if not row["image"]:
        build.note_problem(_bad_row(row["mask"], f"{name} names it as a mask without an image"))
    build.check_image_exists(name)
    mask = _file(build, row["mask"], "mask")
    if not row["mask"]:
        build.note_problem(source.missing(path, "mask", f"its cell in {name}"))
    valid = _file(build, row.get("valid", ""), "valid mask")
    objects = _file(build, row[data.objects], NUMBERS) if data.objects else None
    if data.objects and not row[data.objects]:
        build.note_problem(source.missing(path, NUMBERS, f"its cell in {name}"))
    baselines = {
        annotator: _file(build, row[column], f"baseline {annotator}")
        for annotator, column in data.baselines.items()
    }
    text = row.get("split", "")
    split = build.split(text, common_names=True) if text else None
    if text and split is None:
        build.note_problem(
            DataError(
                f"{printable(path.name)}: its split {text!r} is unknown",
                "use train, validation or test, or map it by data.splits in params.yaml",
                kind="unknown-split",
            )
        )
    stem = path.name if build.match.is_folder else patterns.stem_of(path.name)
    group = row.get("group") or build.group(data.group)
    id_text = patterns.safe_id(path.with_name(stem).as_posix().lstrip("/"))
    files = {"image", "mask", "valid", "group", "split", data.objects, *data.baselines.values()}
    words = {name: cell for name, cell in row.items() if name not in files and re.fullmatch(r"\w+", name)}
    return build.item(id_text, printable(group), mask, split, valid, baselines, words, objects=objects)


def _path(source: Folder, text: str) -> PurePosixPath:
    """Path in a cell, relative to the source folder if it is inside."""
    path = PurePosixPath(text.replace("\\", "/"))
    root = PurePosixPath(source.path.absolute())
    return path.relative_to(root) if path.is_relative_to(root) else path


def _file(build: Builder, text: str, what: str) -> Path | None:
    return build.file(_path(build.source, text), what) if text else None


def _bad_row(text: str, what: str) -> DataError:
    return DataError(
        f"{printable(PurePosixPath(text).name)}: {what}", "complete or remove the row", kind="missing-mask"
    )


def _bad_list(name: str, what: str, remedy: str) -> DataError:
    return DataError(f"{printable(PurePosixPath(name).name)}: {what}", remedy, kind="no-list")


def _table(source: Folder, path: PurePosixPath) -> pd.DataFrame:
    """The table with text in every cell, empty for missing values.

    Raises:
        DataError: it is missing, outside the source folder, or cannot be read (kind "no-list").
    """
    if not source.is_inside(path):
        raise _bad_list(str(path), "is outside the source folder", "copy the list into the folder")
    if not source.exists(path):
        raise _bad_list(
            str(path), f"{path} is missing", "correct data.listing in params.yaml or add the file"
        )
    full = source.path / path
    if not full.is_file():
        raise _bad_list(str(path), "is a folder, FIFO or device, not a file", "use a CSV or Parquet file")
    try:
        table = _parquet(full) if path.suffix.lower() in (".parquet", ".pq") else _csv(full)
    # The errors of pandas and pyarrow are subclasses of ValueError and OSError.
    except (OSError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(printable(str(error).replace(f"{full.parent}/", "").replace("\n", " ")).split())
        raise _bad_list(
            str(path), f"cannot be read as CSV or Parquet ({reason[:200]})", "save it again as UTF-8 CSV"
        ) from error
    table.columns = [str(column).strip() for column in table.columns]
    if not table.columns.is_unique:
        raise _bad_list(str(path), "has a column twice", "keep each column once")
    return table.map(lambda cell: "" if pd.isna(cell) else str(cell).strip()).reset_index(drop=True)


def _csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=_separator(path))


def _parquet(path: Path) -> pd.DataFrame:
    """The table as objects; metadata of pandas is ignored, because it may be damaged.

    Raises:
        ValueError: damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            table = file.read()
        table.validate(full=True)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, KeyError, IndexError, AttributeError) as error:
        raise ValueError(str(error)) from error
    return pd.DataFrame(dict(enumerate(columns)), dtype=object).set_axis(table.column_names, axis=1)


def _separator(path: Path) -> str:
    """Most frequent separator in the header; spreadsheets write semicolons in many countries."""
    with path.open(encoding="utf-8-sig") as file:
        header = file.readline()
    return max((",", ";", "\t"), key=header.count)
