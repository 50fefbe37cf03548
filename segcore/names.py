"""Names that users choose, such as those of classes, as keys of recorded values and names of formats."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

# name of the mean over all architectures; that over the seeds of one is ENSEMBLE-architecture
ENSEMBLE = "ensemble"
# longest key of a recorded value is 250 characters, of which metric and aggregate take some 40
LONGEST = 200


def is_ensemble(name: str) -> bool:
    """Whether a name in place of an architecture's is that of an ensemble: "ensemble", or such as "ensemble-unet"."""
    return name == ENSEMBLE or name.startswith(f"{ENSEMBLE}-")


def key_of(name: str) -> str:
    """The name with characters that keys of recorded values may have: letters and digits of any script, `_-. :/`.

    It is in normal form NFC. Other characters of ASCII become `_`, all others their hexadecimal number between `_`.
    """
    return re.sub(r"[^\w\-. :/]", _replaced, unicodedata.normalize("NFC", name))


def _replaced(found: re.Match[str]) -> str:
    character = found[0]
    return "_" if character.isascii() else f"_{ord(character):x}_"


def same_key(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two names that differ at most in blanks, `/` and `.`, normal form, or what `key_of` replaces."""
    first: dict[str, str] = {}
    for name in names:
        key = key_of(" ".join(name.split())).replace("/", ".")
        if key in first:
            return first[key], name
        first[key] = name
    return None


def short_names(titles: Sequence[str]) -> list[str]:
    """A different name for each title, of letters and digits of ASCII, `_` and `-`, as STAC demands for classes."""
    names = list[str]()
    for index, title in enumerate(titles):
        name = re.sub(r"[^0-9A-Za-z_-]+", "_", title).strip("_") or f"class_{index}"
        # titles may differ in other characters alone
        while name in names:
            name += f"_{index}"
        names.append(name)
    return names
