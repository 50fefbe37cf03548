"""Patterns of paths: what they match, and how the path of a mask or a group's name follows from an image's path."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import PurePosixPath

from segcore.errors import DataError
from segcore.files import digest
from segcore.io import images as formats

BUILT_IN = ("stem", "name", "parent", "parent2", "parent3")
_TOKEN = re.compile(r"(\{[^{}/]*\}|\*+|\?)")
_LONGEST_ID = 120
Token = tuple[str, str]  # kind ("text", "{", "*", "**" or "?") and text (of "text"), or name (of "{")


@cache
def tokens_of(pattern: str) -> list[list[Token]]:
    """Tokens of each component of a path; `**` is one only where it is a whole component."""
    components = []
    for component in pattern.split("/"):
        if component == "**":
            components.append([("**", "")])
            continue
        tokens: list[Token] = []
        for part in filter(None, _TOKEN.split(component)):
            if part[0] == "{" and part[-1] == "}" and len(part) > 1:
                tokens.append(("{", part[1:-1]))
            elif part[0] == "*":
                tokens.append(("*", ""))
            elif part == "?":
                tokens.append(("?", ""))
            else:
                tokens.append(("text", part))
        components.append(tokens)
    return components


def _bad(setting: str, pattern: str, what: str, remedy: str) -> DataError:
    return DataError(f"{setting} {pattern!r}: {what}", remedy + " in params.yaml", kind="bad-pattern")


@dataclass(frozen=True)
class Match:
    """An image that a pattern matches.

    Attributes:
        path: relative to the source folder.
        words: text of each `{word}`.
        wild: texts of each `*`, `**` and `?`, in their order.
        is_folder: whether it is a DICOM series.
    """

    path: PurePosixPath
    words: dict[str, str] = field(default_factory=dict)
    wild: dict[str, list[str]] = field(default_factory=dict)
    is_folder: bool = False


class Pattern:
    """A pattern with `*`, `**`, `?` and `{word}`; a word that comes twice must match the same text.

    Args:
        components: tokens of each component of the path.
    """

    def __init__(self, components: list[list[Token]]) -> None:
        self._names: dict[str, str] = {}  # group of the expression -> word
        self._wild: dict[str, list[str]] = {"*": [], "**": [], "?": []}
        texts = [self._expression(tokens) for tokens in components]
        joined = ""
        for i, (tokens, text) in enumerate(zip(components, texts, strict=True)):
            last = i == len(texts) - 1
            if tokens == [("**", "")]:
                joined += text if last else f"(?:{text}/)?"
            else:
                joined += text if last else text + "/"
        self._whole = re.compile(joined, re.DOTALL)
        # One expression a component, for a walk that does not enter folders in vain; None for `**`.
        self.components = [
            None if tokens == [("**", "")] else re.compile(_loose(tokens), re.DOTALL) for tokens in components
        ]

    def _expression(self, tokens: list[Token]) -> str:
        out = ""
        for kind, text in tokens:
            if kind == "text":
                out += re.escape(text)
            elif kind == "{":
                known = next((group for group, word in self._names.items() if word == text), None)
                group = known or f"w{len(self._names)}"
                self._names[group] = text
                out += f"(?P={group})" if known else f"(?P<{group}>[^/]+?)"
            else:
                group = f"{'sdq'[('*', '**', '?').index(kind)]}{len(self._wild[kind])}"
                self._wild[kind].append(group)
                out += f"(?P<{group}>{ {'*': '[^/]*', '**': '.+?', '?': '[^/]'}[kind] })"
        return out

    def wildcards(self, kind: str) -> int:
        """How many `*`, `**` or `?` there are."""
        return len(self._wild[kind])

    @property
    def words(self) -> set[str]:
        """Names of its `{word}`s."""
        return set(self._names.values())

    def match(self, path: str, is_folder: bool = False) -> Match | None:
        """What a path relative to the source folder gives; None if it does not match."""
        found = self._whole.fullmatch(path)
        if not found:
            return None
        return Match(
            PurePosixPath(path),
            {word: found[group] for group, word in self._names.items()},
            {kind: [found[group] or "" for group in groups] for kind, groups in self._wild.items()},
            is_folder,
        )


def _loose(tokens: list[Token]) -> str:
    return "".join(
        re.escape(text) if kind == "text" else {"{": "[^/]+?", "*": "[^/]*", "?": "[^/]"}[kind]
        for kind, text in tokens
    )


def images_pattern(pattern: str) -> Pattern:
    """The pattern of data.images.

    Raises:
        DataError: it is absolute, has "..", or a placeholder that is no word.
    """
    components = tokens_of(pattern)
    texts = pattern.split("/")
    if pattern.startswith("/") or ".." in texts or "\0" in pattern or not pattern.strip("/"):
        raise _bad("data.images", pattern, "is no path inside data.source", "give a pattern relative to it")
    for kind, text in [token for tokens in components for token in tokens]:
        if kind == "{" and not re.fullmatch(r"\w+", text):
            raise _bad(
                "data.images", pattern, f"{{{text}}} is no word", "give letters and digits in the braces"
            )
    return Pattern([tokens for tokens in components if tokens and tokens != [("text", ".")]])


def check_placeholders(setting: str, pattern: str, images: Pattern) -> None:
    """Check that data.images gives what a pattern asks for.

    Raises:
        DataError: a placeholder does not exist; the message names those that do.
    """
    known = [*dict.fromkeys([*sorted(images.words), *BUILT_IN])]
    for kind, text in [token for tokens in tokens_of(pattern) for token in tokens]:
        if kind != "{" or text in known:
            continue
        if text.startswith("cell:"):
            _cell_size(setting, pattern, text)
            continue
        listed = ", ".join(f"{{{name}}}" for name in [*known, "cell:500"])
        raise _bad(setting, pattern, f"{{{text}}} does not exist", f"use one of {listed}")
    if "\0" in pattern:
        raise _bad(setting, pattern, "holds a zero byte", "remove it")


def _cell_size(setting: str, pattern: str, text: str) -> Decimal:
    try:
        size = Decimal(text.removeprefix("cell:"))
    except InvalidOperation:
        size = Decimal(0)
    if not size.is_finite() or not Decimal("1e-9") <= size <= Decimal("1e9"):
        raise _bad(setting, pattern, f"{{{text}}} has no size", "give {cell:500}, in units of the CRS,")
    return size


def cell_name(info_transform: tuple[float, ...], height: int, width: int, size: Decimal) -> str:
    """The square of a grid that an image's centre lies in, such as "E499500N5000000": its south-west corner."""
    a, b, c, d, e, f = info_transform
    column, row = width / 2, height / 2
    parts = []
    for value, signs in ((a * column + b * row + c, "EW"), (d * column + e * row + f, "NS")):
        corner = (Decimal(str(value)) / size).to_integral_value("ROUND_FLOOR") * size
        parts.append(f"{signs[corner < 0]}{abs(corner).normalize():f}")
    return "".join(parts)


def fill(setting: str, pattern: str, match: Match, cell: Callable[[Decimal], str]) -> list[list[Token]]:
    """A pattern with the image's texts in the place of words and wildcards.

    Args:
        cell: gives the name of the image's cell of some size; only called if the pattern asks for it.

    Returns:
        Tokens of each component; wildcards without a counterpart in data.images remain.

    Raises:
        DataError: a placeholder does not exist, or is empty because the image lies less deep.
    """
    values = _values(match)
    wild = {kind: iter(texts) for kind, texts in match.wild.items()}
    components = []
    for tokens in tokens_of(pattern):
        filled: list[Token] = []
        for kind, text in tokens:
            if kind == "text":
                filled.append((kind, text))
            elif kind != "{":
                taken = next(wild.get(kind, iter(())), None)
                filled.append((kind, "") if taken is None else ("text", taken))
            elif text.startswith("cell:") and text not in values:
                filled.append(("text", cell(_cell_size(setting, pattern, text))))
            elif values.get(text):
                filled.append(("text", values[text]))
            else:
                what = f"{{{text}}} of {str(match.path)!r} does not exist"
                raise _bad(setting, pattern, what, "name a word or folder that every image's path has")
        components.append(filled)
    return components


def _values(match: Match) -> dict[str, str]:
    parents = [*match.path.parent.parts[::-1], "", "", ""]
    return {
        "stem": match.path.name if match.is_folder else stem_of(match.path.name),
        "name": match.path.name,
        "parent": parents[0],
        "parent2": parents[1],
        "parent3": parents[2],
        **match.words,  # a user's own {stem} is theirs
    }


def has_wildcards(components: list[list[Token]]) -> bool:
    """Whether some wildcard found no counterpart."""
    return any(kind in ("*", "**", "?") for tokens in components for kind, _ in tokens)


def text_of(components: list[list[Token]]) -> str:
    """The path or name that filled tokens give; wildcards as they were written."""
    texts = ["".join(text if kind == "text" else kind for kind, text in tokens) for tokens in components]
    return "/".join(text for text in texts if text)


@cache
def _endings() -> tuple[str, ...]:
    return tuple(sorted({".nii.gz", *formats.endings()}, key=len, reverse=True))


def stem_of(name: str) -> str:
    """A file's name without its ending; of x.nii.gz it is x."""
    ending = next((e for e in _endings() if name.lower().endswith(e) and len(name) > len(e)), None)
    return name[: -len(ending)] if ending else PurePosixPath(name).stem


def item_id(match: Match, pattern: str) -> str:
    """An id of ASCII letters, digits, `_`, `-` and `.`, from the path below the pattern's fixed folders.

    Names with other letters, and very long ones, get six digits of a hash, so that they stay apart.
    """
    fixed = re.split(r"[*?{]", pattern)[0].rpartition("/")[0]
    path = match.path
    stem = path.name if match.is_folder else stem_of(path.name)
    relative = (path.parent / stem).relative_to(PurePosixPath(fixed)).as_posix()
    return safe_id(relative)


def safe_id(relative: str) -> str:
    """As `item_id`, of any text with slashes."""
    composed = unicodedata.normalize("NFC", relative)
    plain = unicodedata.normalize("NFKD", composed).encode("ascii", "ignore").decode()
    text = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.replace("/", "__"))
    if composed.isascii() and 0 < len(text) <= _LONGEST_ID:
        return text
    return f"{text[:_LONGEST_ID]}-{short_hash(composed)}"


def short_hash(text: str) -> str:
    """Six hexadecimal digits."""
    return digest(text)[:6]
