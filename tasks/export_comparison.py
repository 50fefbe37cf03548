"""Comparison of an exported file with its model, on held-out regions where there are any."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from segcore.errors import ExportError
from segcore.metrics import METRICS
from segcore.models.base.bundle import Bundle
from segcore.params import Params

# torch takes seconds to import, and wrong arguments are reported at once
if TYPE_CHECKING:
    import pandas as pd

    from segcore.data.prepared import PreparedData
    from segcore.export._graph import Source
    from segcore.export._runtime import Runner
    from segcore.models.base.model import SegmentationModel

# largest share of pixels whose class differs, and of objects that only one finds or whose masks differ
_CHANGED = {"pixels": 1e-3, "objects": 1e-2}
# formats are written one after the other
_UNWRITTEN = "This file was not written, nor those of formats after it"


@dataclass
class Comparison:
    """How the files of one model are compared with it.

    Attributes:
        p: parameters; `evaluate` and `compare.metric` are used.
        bundle: the model.
        held_out: prepared data and regions, as of `tasks.held_out`; None: random pixels, without scores.
        tolerance: largest difference of an output between file and model.
        max_loss: largest loss of score of a format that rounds weights.
    """

    p: Params
    bundle: Bundle
    held_out: "tuple[PreparedData, pd.DataFrame] | None"
    tolerance: float
    max_loss: float

    @cached_property
    def score(self) -> float | None:
        """Score of the model itself; None without held-out regions."""
        return self._score(self.bundle.model()) if self.held_out else None

    @property
    def scores(self) -> dict[str, Any] | None:
        """The score by its name, for the metadata of files."""
        if self.held_out is None:
            return None
        return {f"{self.metric}/dataset/foreground_mean": self.score, "regions": len(self.held_out[1])}

    def of_file(self, source: "Source", title: str, module: ModuleType, folder: Path) -> dict[str, Any]:
        """Differences, scores and latencies of an exported file: the entry `parity` of export.json.

        Args:
            source: that was exported.
            title: of the file in errors.
            module: of its format.
            folder: with the file.

        Raises:
            ExportError: file and model, or their scores, differ by more than is accepted.
            DataError: the file cannot compute an input.
        """
        import torch

        from segcore.export._parity import HeldOut, Noise, differences, inputs_of, latencies
        from segcore.export._runtime import guarded
        from segcore.inference.device import precision_of

        run, side = guarded(module.runner(folder)), module.side(self.bundle)
        # for each format from the first region on: figures do not depend on which other formats are written
        pixels = HeldOut(*self.held_out) if self.held_out else Noise(source)
        found = differences(source, run, inputs_of(pixels, side))
        accepted = _CHANGED[found.unit]
        is_same = math.isfinite(found.largest) and found.largest <= self.tolerance and found.share <= accepted
        if not module.IS_LOSSY and not is_same:
            raise ExportError(
                f"{title}: outputs of file and model differ by up to {found.largest:.1e}, and "
                f"{100 * found.share:.2g} % of the {found.unit} in class, mask or box; accepted are "
                f"{self.tolerance:g} and {100 * accepted:g} %",
                "use another format, or the bundle itself; --tolerance accepts larger differences. "
                + _UNWRITTEN,
            )
        score = self._scores(source, run, side)
        if module.IS_LOSSY and score is not None:
            self._require_score(title, score)
        tile = side or self.p.evaluate.tile
        precision = precision_of(self.bundle.description, torch.device("cpu"))
        return {
            "pixels": pixels.title,
            "largest_difference": found.largest,
            "changed": found.changed,
            "compared": found.compared,
            "unit": found.unit,
            "least_iou": found.least_iou,
            "inputs": found.inputs,
            "score": score,
            "latency_ms": {
                "tile": tile,
                **latencies(source, run, pixels(1, tile, tile), precision, side),
            },
        }

    def _scores(self, source: "Source", run: "Runner", side: int | None) -> dict[str, Any] | None:
        """Scores of the model and of a file, in the same windows; None without held-out data."""
        from segcore.export._parity import loss
        from segcore.export._runtime import exported

        if self.score is None or self.held_out is None:
            return None
        eager = self.score if side is None else self._score(source.model, side)
        of_file = self._score(exported(source.model, run, side), side)
        facts = {"metric": self.metric, "regions": len(self.held_out[1]), "eager": eager, "exported": of_file}
        return {**facts, "loss": loss(self.metric, eager, of_file)}

    def _require_score(self, title: str, score: dict[str, Any]) -> None:
        """Check that a file of rounded weights has nearly the score of the model."""
        from segcore.export._parity_text import loss_text, score_text

        if score["loss"] > self.max_loss:
            metric = score["metric"]
            eager, exported = (score_text(metric, score[of]) for of in ("eager", "exported"))
            raise ExportError(
                f"{title}: rounded weights change {METRICS[metric].heading} from {eager} to {exported}; a loss of "
                f"{loss_text(metric, self.max_loss)} is accepted (--max-loss {self.max_loss:g})",
                "choose the format onnx; --max-loss accepts a larger loss. " + _UNWRITTEN,
            )

    @property
    def metric(self) -> str:
        """That of the comparison; surfaces are of whole volumes, whose regions are planes."""
        metric = self.p.compare.metric
        return metric if {"counts", "objects"} & set(METRICS[metric].tables) else "iou"

    def _score(self, model: "SegmentationModel", side: int | None = None) -> float:
        """Score of the model, or of a file whose input has a fixed side."""
        from segcore.export._parity import score

        held_out = self.held_out
        assert held_out is not None
        settings = self.p.evaluate
        if side is not None:
            settings = settings.model_copy(update={"tile": side, "overlap": min(settings.overlap, side // 2)})
        return score(model, *held_out, settings, self.bundle.description, self.metric)
