"""Parameters, data and registry of one promotion, opened once and passed to its functions."""

from dataclasses import dataclass
from pathlib import Path

from segcore.data.prepared import PreparedData
from segcore.params import Params
from tasks.project import PREPARED, data_fingerprint
from tasks.tracking.registry import Registry
from tasks.tracking.tracker import Tracker


@dataclass(frozen=True)
class PromotionContext:
    """Parameters, prepared data and model registry of one promotion.

    Attributes:
        root: project folder.
        params: all of params.yaml.
        data: prepared data.
        data_hash: hash of the prepared data.
        registry: registry of the data set; its tracker finds the runs of the trainings.
    """

    root: Path
    params: Params
    data: PreparedData
    data_hash: str
    registry: Registry

    @classmethod
    def open(cls, p: Params, root: Path = Path(), registry: Registry | None = None) -> "PromotionContext":
        """The context of the project in `root`.

        Args:
            p: all of params.yaml.
            root: project folder.
            registry: an open registry; None: it is opened.

        Raises:
            DataError: there are no prepared data.
            StageError: the registry does not answer.
        """
        data = PreparedData(root / PREPARED)
        return cls(root, p, data, data_fingerprint(data.folder), registry or Registry(Tracker.open(p)))
