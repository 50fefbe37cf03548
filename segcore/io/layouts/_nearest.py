"""The existing file whose name is most like that of a missing one, and what differs."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from difflib import SequenceMatcher

from segcore.io.layouts._patterns import stem_of

# lowest similarity (0 to 1) of names whose letters differ, and the most names that are compared so
_SIMILAR, _MOST = 0.75, 500
_ENDING = "its file extension differs"
# what differs, and the name without that difference
_STEPS: tuple[tuple[str, Callable[[str], str]], ...] = (
    (_ENDING, stem_of),
    ("its letters have another Unicode form", lambda name: unicodedata.normalize("NFKC", name)),
    ("upper and lower case differ", str.casefold),
    ("it has other spaces", lambda name: re.sub(r"\s+", "", name)),
    ("it has other leading zeros", lambda name: re.sub(r"(?<!\d)0+(?=\d)", "", name)),
    ("its `_`, `-` or `.` differ", lambda name: re.sub(r"[_\-.]+", "", name)),
)


def same_form(name: str, names: Collection[str]) -> str:
    """The only one of some names that is the same in another Unicode form; the name itself for none or several."""
    composed = unicodedata.normalize("NFC", name)
    same = [n for n in names if unicodedata.normalize("NFC", n) == composed] if not name.isascii() else []
    return same[0] if len(same) == 1 else name


def _plain(name: str, but: int | None = None) -> str:
    """A name without any of the differences, or all but one."""
    for number, (_, step) in enumerate(_STEPS):
        name = name if number == but else step(name)
    return name


class Names:
    """The names in a folder, to be compared with names that are missing there.

    Args:
        names: of its files or folders.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._plain: dict[str, list[str]] = {}
        self._digits: dict[tuple[str, ...], list[str]] = {}
        for name in sorted(names):
            plain = _plain(name)
            self._plain.setdefault(plain, []).append(name)
            self._digits.setdefault(_numbers(plain), []).append(name)

    def nearest(
        self, wanted: str, without: str | None = None, letters: bool = True
    ) -> tuple[str, str] | None:
        """Name of the file that was probably meant, and what differs; None if no name is similar.

        Names with other numbers are never similar. What differs is empty if only the extension does.

        Args:
            wanted: the missing name.
            without: a name that is not meant.
            letters: whether names may differ in letters.
        """
        same = [name for name in self._plain.get(_plain(wanted), []) if name not in (wanted, without)]
        if same:
            found = min(same, key=lambda name: (len(_differences(wanted, name)), name))
            differences = _differences(wanted, found)
            return found, "" if differences == [_ENDING] else " and ".join(differences)
        if not letters:
            return None
        plain = _plain(wanted)
        others = [name for name in self._digits.get(_numbers(plain), []) if name not in (wanted, without)]
        if len(others) > _MOST:
            return None
        ratios = {name: _likeness(plain, _plain(name)) for name in others}
        best = min(ratios, key=lambda name: (-ratios[name], name), default="")
        return (best, "the most similar name") if ratios.get(best, 0) >= _SIMILAR else None


def _likeness(one: str, other: str) -> float:
    """From 0 to 1; at least _SIMILAR if one contains the other, which has a number or several letters."""
    ratio = SequenceMatcher(None, one, other, False).ratio()
    shorter, longer = sorted((one, other), key=len)
    is_part = shorter in longer and (len(shorter) > 3 or bool(_numbers(shorter)))
    return max(ratio, _SIMILAR) if is_part else ratio


def _numbers(plain: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\d+", plain))


def _differences(wanted: str, found: str) -> list[str]:
    if re.search(r"\s\.\w+$", found) and re.sub(r"\s+(\.\w+)$", r"\1", found) == wanted:
        return ["its name has a space before the extension"]
    differing = [
        text for number, (text, _) in enumerate(_STEPS) if _plain(wanted, number) != _plain(found, number)
    ]
    # any extension is wanted
    return [text for text in differing if text != _ENDING] if wanted.endswith(".*") else differing
