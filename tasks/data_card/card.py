"""The data card: the result of a check of the data, as text for the terminal and as one page.

Writes reports/<data.name>/data.html, one self-contained file that loads nothing from the network.
"""

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from segcore.files import atomic_write
from segcore.io.layouts import Stray
from segcore.params.data import Data

if TYPE_CHECKING:
    from segcore.params import Params

TEMPLATES = Path(__file__).parents[1] / "templates"
# columns of the printed text
WIDTH = 100
EXAMPLES = 3


def printable(text: Any) -> str:
    """Text with control characters escaped, so that no file name can control the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _wrapped(text: str, indent: str, first: str | None = None) -> list[str]:
    return textwrap.wrap(
        printable(text), WIDTH, initial_indent=indent if first is None else first, subsequent_indent=indent
    )


class _Ink:
    """Bold, red, yellow and grey on a terminal that shows them; plain text elsewhere."""

    def __init__(self) -> None:
        self.on = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, text: str, code: int) -> str:
        return f"\033[{code}m{text}\033[0m" if self.on and text else text


_BOLD, _GREY, _RED, _YELLOW = 1, 2, 31, 33


def _bar(share: float, cells: int = 40) -> str:
    try:
        "█".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return "#" * round(share * cells)
    return "█" * int(share * cells) + ("", "▎", "▌", "▊")[int(share * cells * 4) % 4]


def _class_lines(good: pd.DataFrame, ink: _Ink) -> list[str]:
    from tasks.data_card.facts import class_counts, parsed
    from tasks.formatting import amount

    names = list(dict.fromkeys(name for text in good["pixels_per_class"] for name in parsed(text) or {}))
    counts = class_counts(good, names)
    pixels, items = [int(n) for n in counts.sum(axis=0)], [int(n) for n in (counts > 0).sum(axis=0)]
    ignored = good["ignored_pixels"].fillna(0).astype("int64")
    if ignored.sum():
        names, pixels, items = [*names, "(ignored)"], [*pixels, ignored.sum()], [*items, (ignored > 0).sum()]
    wide = max(9, min(28, max((len(printable(name)) for name in names), default=0)))
    lines = [ink(f"  {'class':<{wide}}  {'items':>7}  {'pixels':>7}   share", _GREY)]
    for name, count, number in zip(names, pixels, items, strict=True):
        share = count / max(1, sum(pixels))
        start = f"  {textwrap.shorten(printable(name), wide, placeholder='…'):<{wide}}"
        lines.append(f"{start}  {number:>7,}  {amount(count):>7}  {share:>6.1%}  {_bar(share)}")
    return lines


def _block_lines(blocks: Sequence[dict[str, Any]], title: str, colour: int, ink: _Ink) -> list[str]:
    """Per kind: number of items, meaning, a few examples, then the remedies, or the advice about a note."""
    if not blocks:
        return []
    lines = ["", ink(title, _BOLD)]
    for block in blocks:
        count, *more = _wrapped(f"{block['kind']}: {block['meaning']}", " " * 9, f"  {block['count']:>5,}  ")
        lines += [ink(count, colour), *more]
        for example in block["examples"]:
            lines += _wrapped(example, " " * 13, " " * 11 + "- ")
        left = block["count"] - block["shown"]
        word = "Advice" if "advice" in block else "Remedy"
        lines += [ink(f"{'':11}  and {left:,} more", _GREY)] if left else []
        for remedy in block.get("remedies", []):
            lines += _wrapped(f"{word}: {remedy}", " " * 19, " " * 11)
    return lines


def _problems(table: pd.DataFrame) -> list[dict[str, Any]]:
    from tasks.data_card.rows import of_items, problem_blocks, with_path

    blocks = problem_blocks(table)
    for block in blocks:
        rows = block["rows"][:EXAMPLES]
        block["examples"] = [with_path(reason, path) + of_items(number) for path, reason, _, number in rows]
        remedies = [block["remedy"]] if block["remedy"] else [remedy for *_, remedy, _ in rows if remedy]
        shown = sum(number for *_, number in rows)
        block |= {"shown": shown, "remedies": list(dict.fromkeys(remedies))}
    return blocks


def _notes(table: pd.DataFrame, strays: Sequence[Stray]) -> list[dict[str, Any]]:
    from tasks.data_card.rows import note_blocks

    blocks = note_blocks(table, strays)
    for block in blocks:
        rows = [(item, text) for items, text in block["rows"] for item in items[:EXAMPLES]][:EXAMPLES]
        block["examples"] = [f"{item}: {text}" if text else item for item, text in rows]
        # An item may have several notes of one kind.
        block["shown"] = len({item for item, _ in rows})
        block["remedies"] = [block["advice"]] if block["advice"] else []
    return blocks


def _links(links: pd.DataFrame) -> list[dict[str, Any]]:
    from tasks.data_card.facts import counted
    from tasks.data_card.rows import advice, meaning

    blocks = []
    for kind, count in counted(links["kind"]):
        rows = links[links["kind"] == kind].head(EXAMPLES)
        examples = [
            f"{a} and {b}: {text}" for a, b, text in zip(rows["a"], rows["b"], rows["detail"], strict=True)
        ]
        block = {"kind": kind, "meaning": meaning(kind), "count": count, "examples": examples}
        block |= {"advice": advice(kind), "remedies": [advice(kind)] if advice(kind) else []}
        blocks.append(block | {"shown": len(rows)})
    return blocks


def _agreement(good: pd.DataFrame, data: Data | None) -> list[str]:
    """Line on how often several annotators agree."""
    from tasks.data_card.annotators import agreement

    found = agreement(good, data) if data else None
    return ["", f"  annotators agree on {found['all']:.1%} of the pixels"] if found else []


def _unused_objects(good: pd.DataFrame, data: Data | None) -> list[str]:
    """Line for annotations that have objects where no setting uses them."""
    count = 0 if data is None or data.has_objects else int(good["objects"].dropna().sum())
    if not count:
        return []
    text = f"{count:,} {'objects are' if count > 1 else 'object is'} in the annotations"
    return [
        "",
        *_wrapped(
            f"{text}; set data.instances: true to score and count {'them' if count > 1 else 'it'}", "  "
        ),
    ]


def summary(
    table: pd.DataFrame, links: pd.DataFrame, strays: Sequence[Stray], data: Data | None = None
) -> str:
    """Result of the check as text of at most 100 columns, coloured on terminals that show colours.

    Args:
        table: the catalogue.
        links: pairs that must share a split: a, b, kind, detail.
        strays: notes on files that belong to no item.
        data: the section `data` of params.yaml; None: nothing is printed about objects that it does not use.
    """
    from tasks.data_card.facts import accepted, facts, noted, plural
    from tasks.data_card.rows import look_alikes, verdict

    ink, good = _Ink(), accepted(table)
    bad, remarked = len(table) - len(good), len({item for _, item, _ in noted(table)})
    counts = [f"{len(good):,} accepted", f"{bad:,} quarantined", f"{remarked:,} with notes"]
    counts += [f"{plural(good['group'].nunique(), 'group')}"] if len(good) else []
    lines = ["", ink(f"{plural(len(table), 'item')}: {', '.join(counts)}", _BOLD), ""]
    for name, value in facts(good).items():
        lines += _wrapped(value, " " * 15, f"  {name.lower() if name != 'CRS' else name:<12} ")
    if len(good):
        lines += ["", *_class_lines(good, ink), *_agreement(good, data), *_unused_objects(good, data)]
    lines += _block_lines(_problems(table), f"Quarantined: {plural(bad, 'item')}", _RED, ink)
    lines += _block_lines(_notes(table, strays), "Noted", _YELLOW, ink)
    lines += _block_lines(_links(links), f"Linked: {plural(len(links), 'pair')}", _YELLOW, ink)
    lines += _wrapped(look_alikes(links), " " * 9) if "alike_share" in links.attrs else []
    return "\n".join([*lines, "", verdict(table)])


def limit_line(table: pd.DataFrame, data: Data, store: Path, p: "Params | None" = None) -> str | None:
    """What components of a perfect mask reach, for the terminal; None without objects; arguments as of `write_card`."""
    from tasks.data_card import component_limit, facts, objects

    return component_limit.line(objects.card_objects(facts.accepted(table), data, store), data, p)


def card_html(
    table: pd.DataFrame,
    links: pd.DataFrame,
    strays: Sequence[Stray],
    data: Data,
    store: Path,
    p: "Params | None" = None,
) -> str:
    """The card as HTML; arguments as of `write_card`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from tasks.data_card import annotators, object_pictures, objects, pictures, values
    from tasks.data_card import facts as data_facts
    from tasks.data_card import rows as views
    from tasks.data_card.item_pictures import ItemPictures
    from tasks.formatting import FILTERS, theme

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS | {
        "without_name": views.without_name,
        "of_items": views.of_items,
        "plural": data_facts.plural,
    }
    good = data_facts.accepted(table)
    classes = views.class_rows(good, data)
    colours = [row["colour"] for row in classes[: len(data.classes)]]
    drawn, notes = ItemPictures(good, data, store), views.note_blocks(table, strays)
    found = objects.card_objects(good, data, store)
    view = {
        "data": data,
        "theme": theme(),
        "colours": colours,
        "total": len(table),
        "good": len(good),
        "verdict": views.verdict(table, data.max_quarantined),
        "remarks": views.remarks(table, links, strays),
        "tiles": views.tiles(table, data),
        "facts": data_facts.declared(data) | data_facts.facts(good),
        "classes": classes,
        "problems": views.problem_blocks(table),
        "values": values.found(good, data),
        "agreement": annotators.agreement(good, data),
        "objects": objects.view(found, data, p) if found else None,
        "merges": object_pictures.merge_pictures(found, store) if found else [],
        "merge_colours": object_pictures.LEGEND,
        "notes": notes,
        "note_pictures": pictures.note_pictures(good, notes, drawn),
        "groups": views.group_rows(good, data),
        "links": links.head(views.MOST_PAIRS).to_dict("records"),
        "link_kinds": _links(links),
        "look_alikes": views.look_alikes(links) if "alike_share" in links.attrs else "",
        "pairs": pictures.pair_pictures(good, links, data, store),
        "gallery": pictures.gallery(good, data, drawn),
        "class_columns": pictures.class_columns(good, data, colours),
        "valid_columns": pictures.valid_columns(good),
        "shapes": pictures.shape_frames(good),
        "bands": pictures.band_rows(good, data),
    }
    drawn.save()
    return environment.get_template("data_card.html.j2").render(view)


def write_card(
    table: pd.DataFrame,
    links: pd.DataFrame,
    strays: Sequence[Stray],
    data: Data,
    store: Path,
    target: Path,
    p: "Params | None" = None,
) -> Path:
    """Write the data card, one self-contained HTML file, and return its path.

    Args:
        table: the catalogue, accepted and quarantined items.
        links: pairs that must share a split: a, b, kind, detail.
        strays: notes on files that belong to no item.
        data: the section `data` of params.yaml.
        store: folder of the packed files named in the column `packed`.
        target: the file to write, replaced atomically.
        p: all parameters, for what the card says of training crops and networks; None: this is left out.

    Raises:
        DataError: a packed file is missing, or the disk is full.
    """
    # file names may contain bytes that are not valid UTF-8
    content = card_html(table, links, strays, data, store, p).encode("utf-8", "backslashreplace")
    with atomic_write(target) as part:
        part.write_bytes(content)
    return target
