"""Errors that name the problem and its remedy, without the secrets of addresses."""

import re

_HIDDEN = "***"
_WORDS = (
    r"password|passwd|passphrase|pwd|secret|token|signature|credential|"
    r"access_?key|account_?key|api_?key|private_?key|auth_string"
)
_VALUE = r"(?:(['\"])(?:(?!\2).)*|[^\s&;'\"<>]+)"
# scheme://user:password@host: a password may contain @ and /, but `host:5000/a@b` is a port and a path
_PASSWORD = r"((?:\w:)?//)(?!\[)[^\s:/?#\"]*:(?!\d{1,5}[/?#'\"),;\]}])(\S*)@"
# a shorter one would be found in other words
_SHORTEST = 6
_PATTERNS = [
    (_PASSWORD, rf"\1{_HIDDEN}@"),
    # https://token@host; a name alone is no secret elsewhere: abfs://container@account, ssh://git@host
    (r"(https?://)[^\s:/?#\"]+@(?=[\w.\[-])", rf"\1{_HIDDEN}@"),
    # the same inside the query of another address
    (r"(\w%3A%2F%2F)[^\s'\"&]*%40", rf"\1{_HIDDEN}%40"),
    # in the addresses of chat services, the path is the secret
    (r"(https?://[\w.-]*(?:hook|discord)[\w.-]*/)[^\s\"'<>]+", rf"\1{_HIDDEN}"),
    (r"(https?://[^\s\"'<>]*/(?:webhooks?/|bot(?=\d+:)))[^\s\"'<>/]+", rf"\1{_HIDDEN}"),
    # tokens that are known by their beginning
    (r"\b(?:xox[abeprs]-|gh[opsru]_|github_pat_|glpat-)[\w-]{6,}", _HIDDEN),
    (r"\b((?:set-)?cookie|x-[\w-]*(?:key|token|secret))(['\"]?\s*:\s*)[^\s'\",]+", rf"\1\2{_HIDDEN}"),
    (r"(authorization['\"]?\s*[:=]\s*['\"]?(?:[\w-]+ )?)[^\s'\",]+", rf"\1{_HIDDEN}"),
    (r"\b(bearer )[\w.~+/=-]{16,}", rf"\1{_HIDDEN}"),
    # password=..., "secret": "...", access_key: ..., --token ...
    (rf"([\w.-]*(?:{_WORDS})[\w.-]*(?:\s?=\s?|['\"]\s*:\s*)){_VALUE}", rf"\1\2{_HIDDEN}"),
    (rf"(\w+_(?:{_WORDS})\w*: ?|--[\w-]*(?:{_WORDS})[\w-]* ){_VALUE}", rf"\1\2{_HIDDEN}"),
    # the same in an address inside another one
    (rf"((?:{_WORDS})%3D)(?:(?!%3B)[^\s&'\"])+", rf"\1{_HIDDEN}"),
    # words that mean a secret only in an address
    (r"([?&](?:[\w.-]*[._-])?(?:key|sig|sas|auth)=)[^\s&;'\"<>]+", rf"\1{_HIDDEN}"),
]
_SECRETS = [(re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in _PATTERNS]


def masked(text: str) -> str:
    """`text` with `***` in place of passwords, tokens and keys in addresses, queries and headers."""
    passwords = {found[2] for found in re.finditer(_PASSWORD, text)}
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    # a message may repeat a part of its address
    for password in passwords:
        if len(password) >= _SHORTEST:
            text = text.replace(password, _HIDDEN)
    return text


class SegflowError(Exception):
    """A failure that the user can fix. Secrets in both texts are masked.

    Args:
        what: what is wrong, naming the file or setting.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = masked(what), masked(remedy)
        super().__init__(f"{self.what}\n  Remedy: {self.remedy}")

    # Pickling by message alone would lose the arguments when an error is sent to another process.
    def __reduce__(self) -> tuple[type, tuple[str | None, ...]]:
        return type(self), (self.what, self.remedy)


class ParamsError(SegflowError):
    """params.yaml has an unknown key or an invalid value."""


class DataError(SegflowError):
    """An image, mask or folder cannot be used.

    Args:
        what: what is wrong, naming the file or setting.
        remedy: what to do about it.
        kind: a key of `segcore.ingest.problems.KINDS`.
    """

    def __init__(self, what: str, remedy: str, kind: str = "unusable") -> None:
        super().__init__(what, remedy)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.what, self.remedy, self.kind)


class LeakError(SegflowError):
    """Pixels or members of a group are in more than one split."""


class DownloadError(SegflowError):
    """A file could not be downloaded, or its checksum is wrong."""


class ModelError(SegflowError):
    """An architecture, encoder, weights file or bundle is unknown or damaged.

    Args:
        what: what is wrong, naming the file or setting.
        remedy: what to do about it.
        key: keyword of an architecture that has the wrong value, if it is one.
    """

    def __init__(self, what: str, remedy: str, key: str | None = None) -> None:
        super().__init__(what, remedy)
        self.key = key

    def __reduce__(self) -> tuple[type, tuple[str | None, ...]]:
        return type(self), (self.what, self.remedy, self.key)


class ExportError(SegflowError):
    """A model cannot be exported, or an exported file cannot be run."""


class StageError(SegflowError):
    """A stage of the pipeline failed."""


def missing_package(name: str, extra: str) -> ExportError:
    """The error for an optional package that is not installed.

    Args:
        name: of the package.
        extra: of the project's extras that installs it.
    """
    return ExportError(
        f"the package {name} is not installed",
        f'install the extra {extra}: pip install ".[{extra}]" in the project\'s folder',
    )
