"""Errors that name the problem and its remedy."""


class SegflowError(Exception):
    """A failure that the user can fix.

    Args:
        what: what is wrong, naming the file or setting.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  Remedy: {remedy}")
        self.what = what
        self.remedy = remedy

    # Pickling by message alone would lose the arguments when an error is sent to another process.
    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
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
    """An architecture, encoder, weights file or bundle is unknown or damaged."""


class StageError(SegflowError):
    """A stage of the pipeline failed."""
