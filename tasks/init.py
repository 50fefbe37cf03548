"""Look at a folder of images and masks, and write the section `data` of params.yaml for it.

`python -m tasks init --source FOLDER` asks nothing: patterns, classes, values, and a group where names suggest one, are
guessed from names and from a bounded number of masks. Each guessed line has a comment with the reason. Some items are
then read as an ingest reads them. All other settings follow from the data (`python -m tasks plan`).
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from segcore import params
from segcore.errors import DataError, ParamsError, StageError
from segcore.files import atomic_write
from segcore.ingest import reader_pool
from tasks import console
from tasks.configure import EXAMPLES, keep
from tasks.project import PARAMS

if TYPE_CHECKING:
    import pandas as pd

    from segcore.planning.guess.section import Guess

# items that are read to check the section, and paths that are shown of a list
_CHECKED, _SHOWN = 8, 3
_WIDTH = 120


def init(source: str, output: Path = PARAMS, force: bool = False, examples: Path = EXAMPLES) -> Path:
    """Write a params.yaml that has only the section `data`, and print what was found.

    A params.yaml that describes a dataset of the user's own is kept: only one that is missing, or describes one of the
    examples, is written without `force`. The previous version is kept in work/.

    Args:
        source: folder of images and masks.
        output: the file.
        force: whether to replace any file.
        examples: folder of the examples.

    Returns:
        `output`.

    Raises:
        DataError: no images, no masks, or no item that can be read.
        StageError: the file was kept; the section is printed.
    """
    from segcore.planning.guess.section import guess

    folder = Path(source).expanduser()
    made = guess(folder, str(folder))
    text = text_of(made)
    try:
        data = _loaded(text)
        table = _read_some(data, folder, made)
    except (DataError, ParamsError) as error:
        print(text, flush=True)
        raise DataError(
            f"the section above was guessed, but cannot be used: {error.what}",
            f"correct it, and write it into {output}; {error.remedy}",
        ) from error
    print(summary(made, table, data), flush=True)
    if not (table["status"] == "accepted").any():
        print(f"\n{text}", flush=True)
        first = table.iloc[0]
        raise DataError(
            f"none of {len(table)} items can be used with the section above: {first['reason']}",
            f"{first['remedy']}; or correct the section, and write it into {output}",
        )
    if output.exists() and not force and not _is_example(output, examples):
        print(f"\n{text}", flush=True)
        raise StageError(
            f"{output}: was kept, because it describes data of your own",
            "put the section above there by hand; or add --force (with make: OPTIONS=--force) to replace the file, or "
            "--output FILE to write another one",
        )
    kept = f"; the previous version is in {keep(output, _name_in(output))}" if output.exists() else ""
    with atomic_write(output) as part:
        part.write_text(text, encoding="utf-8")
    print(
        f"{output}: written{kept}. Correct what is wrong in it; next: make check-data, then make run",
        flush=True,
    )
    return output


def text_of(made: "Guess") -> str:
    """params.yaml with the section `data` alone, and a comment with the reason at each guessed key."""
    lines = [
        '# Written by `make init`. Lines with the comment "guessed" follow from names and from masks:',
        "# correct what is wrong. More keys: docs/guide/data.md. All other settings follow from the data (make plan).",
        "data:",
    ]
    for key, value in made.ordered.items():
        line = f"  {key}: {_in_yaml(value)}"
        why = made.reasons.get(key)
        comment = f"# {'open' if value is None and key == 'view' else 'guessed'}: {why}"
        if why is None:
            lines.append(line)
        elif len(line) + len(comment) + 2 <= _WIDTH:
            lines.append(f"{line}  {comment}")
        else:
            lines += [f"  {comment}", line]
    return "\n".join(lines) + "\n"


def _in_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _loaded(text: str) -> params.Data:
    """The section as params.yaml is read.

    Raises:
        ParamsError: it is not valid.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(text, encoding="utf-8")
        return params.load(path).data


def _read_some(data: params.Data, folder: Path, made: "Guess") -> "pd.DataFrame":
    """Catalogue of some items, which are read as an ingest reads them; their packed files are removed again."""
    from segcore.ingest import catalog
    from segcore.ingest.item_reading import BatchItem
    from segcore.io import layouts
    from segcore.io.layouts import pairs
    from segcore.planning.guess.values import spread

    some = spread(sorted(made.images), _CHECKED)
    if data.layout == "pairs" and not data.listing:
        items = pairs.find_some(data, folder, some)
    else:
        items = [item for item in layouts.find(data, folder) if item.image.as_posix() in set(some)]
    if not items:
        raise DataError(
            f"{folder}: {data.images!r} matches no image", "correct data.images", kind="no-images"
        )
    with tempfile.TemporaryDirectory() as work:
        table = catalog.read(data, [BatchItem(item, folder, catalog.FIRST) for item in items], Path(work))
    catalog.compare(table)
    return table


def summary(made: "Guess", table: "pd.DataFrame", data: params.Data) -> str:
    """What was found, as text: images and masks, classes with their shares, and items that cannot be used."""
    number = f"{len(made.images):,} image{'s' * (len(made.images) != 1)}"
    lines = [f"{data.name}: {number} with masks in {data.source}"]
    for what, paths in (
        ("images without a mask", made.without_mask),
        ("masks without an image", made.without_image),
    ):
        if paths:
            more = ", ..." if len(paths) > _SHOWN else ""
            lines.append(f"  {what}, left out: {len(paths):,} ({', '.join(paths[:_SHOWN])}{more})")
    if not made.reasons.get("group"):
        lines.append(
            "  group: every image is a group of its own; set data.group if several are of one patient or scene"
        )
    counts, of = _shares(made, table, data)
    total = sum(counts.values()) or 1
    width = max(map(len, counts), default=0)
    lines.append(f"  pixels of each class, in {of}:")
    lines += [f"    {name:<{width}}  {count / total:7.2%}" for name, count in counts.items()]
    good = int((table["status"] == "accepted").sum())
    lines.append(f"  checked as an ingest does: {good} of {len(table)} items can be used")
    for row in table[table["status"] != "accepted"].head(_SHOWN).to_dict("records"):
        lines.append(f"    {row['reason']}; {row['remedy']}")
    guessed = ", ".join(key for key in made.ordered if key in made.reasons)
    return "\n".join([*lines, *(f"  note: {note}" for note in made.notes), f"  guessed: {guessed}"])


def _shares(made: "Guess", table: "pd.DataFrame", data: params.Data) -> tuple[dict[str, int], str]:
    """Pixels of each class in the masks that were read, or in the checked items, and which these are."""
    if made.counts and "annotations" not in made.read:
        return made.counts, made.read
    counts = dict.fromkeys(data.classes, 0)
    for row in table.loc[table["status"] == "accepted", "pixels_per_class"]:
        for name, count in json.loads(row).items():
            counts[name] += count
    return counts, f"{len(table)} items"


def _name_in(path: Path) -> str:
    try:
        return params.load(path).data.name
    except ParamsError:
        return "invalid"


def _is_example(path: Path, examples: Path) -> bool:
    """Whether params.yaml describes one of the examples, as in a new project, and so no data of the user."""
    try:
        data = params.load(path).data
    except ParamsError:
        return False
    example = examples / f"{data.name}.yaml"
    if not example.is_file():
        return False
    theirs = params.Data.model_validate(yaml.safe_load(example.read_text(encoding="utf-8"))["data"])
    return data.model_dump(exclude={"source"}) == theirs.model_dump(exclude={"source"})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks init", description=__doc__)
    parser.add_argument("--source", required=True, help="folder of images and masks")
    parser.add_argument("--output", type=Path, default=PARAMS, help="file to write (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="replace a file that describes data of your own")

    def run(arguments: argparse.Namespace) -> None:
        reader_pool.warm_up([console.__name__])
        init(arguments.source, arguments.output, arguments.force)

    console.run(run, parser)


console.refuse_as_script(__name__)
