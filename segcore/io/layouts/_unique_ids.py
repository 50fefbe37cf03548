"""Ids that no two items share."""

from dataclasses import replace

from segcore.errors import DataError
from segcore.io.layouts._item import Item
from segcore.io.layouts._names import printable
from segcore.io.layouts._patterns import short_hash


def with_unique_ids(items: list[Item]) -> list[Item]:
    """Items with unique ids; those that shared an id get a suffix and a problem."""
    by_id: dict[str, list[Item]] = {}
    for item in items:
        by_id.setdefault(item.id, []).append(item)
    out = []
    for sharing in by_id.values():
        if len(sharing) == 1:
            out += sharing
            continue
        for number, item in enumerate(sharing):
            other = next(o for o in sharing if o is not item)
            twice = other.image == item.image
            what = (
                "is listed twice" if twice else f"and {printable(other.image)} give the same id {item.id!r}"
            )
            problem = DataError(
                f"{printable(item.image.name)}: {printable(item.image)} {what}",
                "list it once" if twice else "rename one of them",
                kind="same-id",
            )
            new = f"{item.id}-{short_hash(f'{item.image} {number}')}"
            out.append(replace(item, id=new, problem=item.problem or problem))
    return out
