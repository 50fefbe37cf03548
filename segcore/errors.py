"""Errors that say what is wrong and how to mend it."""


class SegflowError(Exception):
    """A failure that a user can mend.

    Args:
        what: what is wrong, naming the file or setting.
        remedy: what to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  Remedy: {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:  # crosses process borders whole
        return type(self), (self.what, self.remedy)


class ParamsError(SegflowError):
    """params.yaml holds an unknown key or a value out of range."""


class DataError(SegflowError):
    """An image, mask or folder cannot be used as it is.

    Args:
        kind: which of `segcore.ingest.problems.KINDS` it is.
    """

    def __init__(self, what: str, remedy: str, kind: str = "unusable") -> None:
        super().__init__(what, remedy)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.what, self.remedy, self.kind)


class LeakError(SegflowError):
    """Pixels or members of one split reach another."""


class DownloadError(SegflowError):
    """A file could not be fetched, or is not the file that was asked for."""


class ModelError(SegflowError):
    """An architecture, encoder, weights file or bundle is unknown or damaged."""


class StageError(SegflowError):
    """A stage of the pipeline failed."""
