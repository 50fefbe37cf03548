"""Path patterns: matching of images, and derivation of mask paths and group names from an image's path."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import PurePosixPath

from segcore.data.longitudes import within_turn
from segcore.errors import DataError
from segcore.files import digest
from segcore.io import images as formats

BUILT_IN = ("stem", "name", "parent", "parent2", "parent3")
_TOKEN = re.compile(r"(\{[^{}/]*\}|\*+|\?)")
_LONGEST_ID = 120
# Kind ("text", "{", "*", "**" or "?"), and the text (of "text") or name (of "{").
Token = tuple[str, str]


@cache
def tokens_of(pattern: str) -> list[list[Token]]:
    """Tokens of each component of a path; `**` is special only as a whole component."""
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
    """A match of a pattern.

    Attributes:
        path: relative to the source folder.
        words: word -> text that its `{word}` matched.
        wild: kind of wildcard -> texts that the `*`, `**` or `?` matched, in order.
        is_folder: whether the path is a folder (a DICOM series).
    """

    path: PurePosixPath
    words: dict[str, str] = field(default_factory=dict)
    wild: dict[str, list[str]] = field(default_factory=dict)
    is_folder: bool = False


class Pattern:
    """A pattern with `*`, `**`, `?` and `{word}`; a repeated word must match the same text.

    Args:
        components: tokens of each component of the path.
    """

    def __init__(self, components: list[list[Token]]) -> None:
        # Group of the regular expression -> word.
        self._names: dict[str, str] = {}
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
        # One expression per component, so that a walk skips folders that cannot match; None for `**`.
        self.components = [
            None if tokens == [("**", "")] else re.compile(_loose(tokens), re.DOTALL) for tokens in components
        ]

    def _expression(self, tokens: list[Token]) -> str:
        out = ""
        for kind, text in tokens:
            if kind == "text":
                out += re.escape(text)
            elif kind == "{":
                earlier = next((group for group, word in self._names.items() if word == text), None)
                group = earlier or f"w{len(self._names)}"
                self._names[group] = text
                out += f"(?P={group})" if earlier else f"(?P<{group}>[^/]+?)"
            else:
                group = f"{'sdq'[('*', '**', '?').index(kind)]}{len(self._wild[kind])}"
                self._wild[kind].append(group)
                out += f"(?P<{group}>{ {'*': '[^/]*', '**': '.+?', '?': '[^/]'}[kind] })"
        return out

    def wildcards(self, kind: str) -> int:
        """Number of wildcards of a kind (`*`, `**` or `?`)."""
        return len(self._wild[kind])

    @property
    def words(self) -> set[str]:
        """Names of the pattern's `{word}`s."""
        return set(self._names.values())

    def match(self, path: str, is_folder: bool = False) -> Match | None:
        """Match of a path relative to the source folder; None if it does not match."""
        result = self._whole.fullmatch(path)
        if not result:
            return None
        return Match(
            PurePosixPath(path),
            {word: result[group] for group, word in self._names.items()},
            {kind: [result[group] or "" for group in groups] for kind, groups in self._wild.items()},
            is_folder,
        )


def _loose(tokens: list[Token]) -> str:
    return "".join(
        re.escape(text) if kind == "text" else {"{": "[^/]+?", "*": "[^/]*", "?": "[^/]"}[kind]
        for kind, text in tokens
    )


def images_pattern(pattern: str) -> Pattern:
    """The pattern of data.images, or the first of several.

    Raises:
        DataError: it is absolute, has "..", or has a placeholder that is not a word.
    """
    components = tokens_of(pattern)
    texts = pattern.split("/")
    if pattern.startswith("/") or ".." in texts or "\0" in pattern or not pattern.strip("/"):
        raise _bad("data.images", pattern, "is not a path inside data.source", "use a pattern relative to it")
    for kind, text in [token for tokens in components for token in tokens]:
        if kind == "{" and not re.fullmatch(r"\w+", text):
            raise _bad(
                "data.images", pattern, f"{{{text}}} is not a word", "use letters and digits in the braces"
            )
    return Pattern([tokens for tokens in components if tokens and tokens != [("text", ".")]])


def check_placeholders(setting: str, pattern: str, images: Pattern) -> None:
    """Check that all placeholders of a pattern exist.

    Args:
        setting: name of the setting, for errors.
        pattern: its value.
        images: pattern of data.images, whose words are placeholders.

    Raises:
        DataError: a placeholder does not exist; the message lists those that do.
    """
    available = [*dict.fromkeys([*sorted(images.words), *BUILT_IN])]
    for kind, text in [token for tokens in tokens_of(pattern) for token in tokens]:
        if kind != "{" or text in available:
            continue
        if text.startswith("cell:"):
            _cell_size(setting, pattern, text)
            continue
        listed = ", ".join(f"{{{name}}}" for name in [*available, "cell:500"])
        raise _bad(setting, pattern, f"{{{text}}} does not exist", f"use one of {listed}")
    if "\0" in pattern:
        raise _bad(setting, pattern, "contains a zero byte", "remove it")


def _cell_size(setting: str, pattern: str, text: str) -> Decimal:
    try:
        size = Decimal(text.removeprefix("cell:"))
    except InvalidOperation:
        size = Decimal(0)
    if not size.is_finite() or not Decimal("1e-9") <= size <= Decimal("1e9"):
        raise _bad(
            setting,
            pattern,
            f"{{{text}}} has no valid size",
            "use for example {cell:500}, in units of the CRS,",
        )
    return size


def cell_name(
    info_transform: tuple[float, ...], height: int, width: int, size: Decimal, degrees: bool = False
) -> str:
    """Name of the grid cell that contains an image's centre, by its south-west corner: such as "E499500N5000000".

    In degrees, a place has one name whatever turn its longitude counts in.
    """
    a, b, c, d, e, f = info_transform
    column, row = width / 2, height / 2
    x, y = a * column + b * row + c, d * column + e * row + f
    parts = []
    for value, signs in ((within_turn(x) if degrees else x, "EW"), (y, "NS")):
        corner = (Decimal(str(value)) / size).to_integral_value("ROUND_FLOOR") * size
        parts.append(f"{signs[corner < 0]}{abs(corner).normalize():f}")
    return "".join(parts)


def fill(setting: str, pattern: str, match: Match, cell: Callable[[Decimal], str]) -> list[list[Token]]:
    """A pattern with words and wildcards replaced by the texts that they matched in the image's path.

    Args:
        setting: name of the setting, for errors.
        pattern: its value.
        match: of the image.
        cell: size -> name of the image's grid cell; only called if the pattern has a `{cell:...}`.

    Returns:
        Tokens of each component; wildcards without a counterpart in data.images remain.

    Raises:
        DataError: a placeholder does not exist, or is empty because the image has too few parent folders.
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
                replacement = next(wild.get(kind, iter(())), None)
                filled.append((kind, "") if replacement is None else ("text", replacement))
            elif text.startswith("cell:") and text not in values:
                filled.append(("text", cell(_cell_size(setting, pattern, text))))
            elif values.get(text):
                filled.append(("text", values[text]))
            else:
                what = f"{{{text}}} of {str(match.path)!r} does not exist"
                raise _bad(setting, pattern, what, "use a word or folder that the path of every image has")
        components.append(filled)
    return components


def has_free_ending(pattern: str) -> bool:
    """Whether a pattern ends in `.*`, any file extension."""
    return pattern.endswith(".*") and pattern != ".*" and not pattern.endswith("/.*")


def _values(match: Match) -> dict[str, str]:
    parents = [*match.path.parent.parts[::-1], "", "", ""]
    return {
        "stem": match.path.name if match.is_folder else stem_of(match.path.name),
        "name": match.path.name,
        "parent": parents[0],
        "parent2": parents[1],
        "parent3": parents[2],
        # Words of data.images override the built-in placeholders.
        **match.words,
    }


def has_wildcards(components: list[list[Token]]) -> bool:
    """Whether a wildcard is left."""
    return any(kind in ("*", "**", "?") for tokens in components for kind, _ in tokens)


def text_of(components: list[list[Token]]) -> str:
    """The path or name of filled tokens; wildcards are kept as written."""
    texts = ["".join(text if kind == "text" else kind for kind, text in tokens) for tokens in components]
    return "/".join(text for text in texts if text)


@cache
def _extensions() -> tuple[str, ...]:
    return tuple(sorted({".nii.gz", *formats.extensions()}, key=len, reverse=True))


def stem_of(name: str) -> str:
    """A file's name without its extension; x for x.nii.gz."""
    extension = next((e for e in _extensions() if name.lower().endswith(e) and len(name) > len(e)), None)
    return name[: -len(extension)] if extension else PurePosixPath(name).stem


def item_id(match: Match, pattern: str) -> str:
    """An id of ASCII letters, digits, `_`, `-` and `.`, from the path below the pattern's fixed folders.

    Names with other letters, and very long ones, get six digits of a hash, so that they stay unique.
    """
    fixed = re.split(r"[*?{]", pattern)[0].rpartition("/")[0]
    path = match.path
    stem = path.name if match.is_folder else stem_of(path.name)
    relative = (path.parent / stem).relative_to(PurePosixPath(fixed)).as_posix()
    return safe_id(relative)


def safe_id(relative: str) -> str:
    """As `item_id`, for any text with slashes."""
    composed = unicodedata.normalize("NFC", relative)
    plain = unicodedata.normalize("NFKD", composed).encode("ascii", "ignore").decode()
    text = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.replace("/", "__"))
    if composed.isascii() and 0 < len(text) <= _LONGEST_ID:
        return text
    return f"{text[:_LONGEST_ID]}-{short_hash(composed)}"


def short_hash(text: str) -> str:
    """Six hexadecimal digits of a text's digest."""
    return digest(text)[:6]
