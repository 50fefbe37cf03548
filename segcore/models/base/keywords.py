"""Checks of keywords of architectures by type and range; they come from params.yaml."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from segcore.errors import ModelError

AUTO = "auto"
# larger numbers are refused in model.json
LARGEST = 4096
# of height / width of anchors; the lowest is its inverse
HIGHEST_RATIO = 20


def require_whole(keywords: Mapping[str, Any], *names: str, least: int = 1, auto: bool = False) -> None:
    """Check that keywords are whole numbers from `least` to LARGEST, or "auto" if allowed.

    Raises:
        ModelError: one is not.
    """
    for name in names:
        value = keywords[name]
        is_whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST
        if not is_whole and not (auto and value == AUTO):
            raise ModelError(
                f"{name} is {value!r}",
                f"give a whole number from {least} to {LARGEST}{_or_auto(auto)}",
                name,
            )


def require_share(keywords: Mapping[str, Any], *names: str) -> None:
    """Check that keywords are numbers from 0 to 1.

    Raises:
        ModelError: one is not.
    """
    for name in names:
        if not _is_number(keywords[name]) or not 0 <= keywords[name] <= 1:
            raise ModelError(f"{name} is {keywords[name]!r}", "give a number from 0 to 1", name)


def require_number(keywords: Mapping[str, Any], name: str, above: float, largest: float) -> None:
    """Check that a keyword is a number above one limit, and at most another.

    Raises:
        ModelError: it is not.
    """
    value = keywords[name]
    if not _is_number(value) or not above < value <= largest:
        raise ModelError(f"{name} is {value!r}", f"give a number above {above:g}, at most {largest:g}", name)


def require_list(
    keywords: Mapping[str, Any],
    name: str,
    least: float = 1,
    largest: float = LARGEST,
    *,
    most: int | None = None,
    ascending: bool = False,
    whole: bool = False,
    auto: bool = True,
) -> None:
    """Check that a keyword is a list of numbers, or "auto" if allowed.

    Args:
        keywords: of an architecture.
        name: of the keyword.
        least: limit of the numbers, included.
        largest: limit of the numbers, included.
        most: largest number of values; None: any.
        ascending: whether each value has to be larger than the one before.
        whole: whether the numbers have to be whole.
        auto: whether it may be "auto".

    Raises:
        ModelError: it is not.
    """
    value = keywords[name]
    if auto and value == AUTO:
        return
    if (
        not _is_list(value)
        or not value
        or not all(_is_number(v) and least <= v <= largest for v in value)
        or (whole and not all(isinstance(v, int) for v in value))
        or (ascending and any(b <= a for a, b in pairwise(value)))
    ):
        order = ", each larger than the one before" if ascending else ""
        raise ModelError(
            f"{name} is {value!r}",
            f"give a list of {'whole ' if whole else ''}numbers from {least:g} to {largest:g}{order}{_or_auto(auto)}",
            name,
        )
    if most is not None and len(value) > most:
        raise ModelError(
            f"{name} has {len(value)} values", f"give at most {most}, one per level, or {AUTO}", name
        )


def require_pairs(keywords: Mapping[str, Any], *names: str) -> None:
    """Check that keywords are "auto", or lists of pairs of numbers above 0 and up to LARGEST, the second larger.

    Raises:
        ModelError: one is not.
    """
    for name in names:
        value = keywords[name]
        if value != AUTO and (not _is_list(value) or not value or not all(map(_is_pair, value))):
            raise ModelError(
                f"{name} is {value!r}",
                f"give pairs of a smallest and a largest value, above 0 and up to {LARGEST}, such as "
                f"[[1, 48], [24, {LARGEST}]]{_or_auto(True)}",
                name,
            )


def require_switch(keywords: Mapping[str, Any], *names: str) -> None:
    """Check that keywords are true or false; 1 and 0 are not.

    Raises:
        ModelError: one is not.
    """
    for name in names:
        if not isinstance(keywords[name], bool):
            raise ModelError(f"{name} is {keywords[name]!r}", "give true or false", name)


@contextmanager
def of_keyword(name: str) -> Iterator[None]:
    """Errors of the block that name no keyword are of this one."""
    try:
        yield
    except ModelError as error:
        error.key = error.key or name
        raise


def _is_pair(value: Any) -> bool:
    return (
        _is_list(value)
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 < value[0] < value[1] <= LARGEST
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _or_auto(auto: bool) -> str:
    return f", or {AUTO}" if auto else ""
