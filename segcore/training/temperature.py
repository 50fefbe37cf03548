"""Temperature of a semantic network, fitted on the validation split at the end of a training (Guo et al. 2017)."""

from typing import Any

import numpy as np
import torch

from segcore.constants import IGNORE
from segcore.data.prepared import PreparedData
from segcore.data.temperature_limits import HIGHEST, LOWEST, limit_text
from segcore.files import digest
from segcore.inference.calibration import (
    Calibration,
    confidence,
    log_probabilities,
)
from segcore.inference.device import Precision
from segcore.inference.tiling import predict_patch
from segcore.models.base.model import SegmentationModel
from segcore.models.base.semantic import SemanticModel

# Probabilities that are kept to fit by, 16 MB. With more pixels times classes, a sample of each region is kept.
_MOST = 2**22
# A mean log-likelihood that is higher by less than this shows no temperature.
_SAME = 1e-5
# of the stored numbers, which the last digits of predictions then do not change
_DIGITS = 4


def fit_temperature(
    model: SegmentationModel, data: PreparedData, tile: int, precision: Precision
) -> dict[str, Any] | None:
    """The entry `calibration` of model.json: the temperature of the lowest negative log-likelihood (NLL).

    Predictions are those of the validation: windows of `tile` whose probabilities are blended, without flips. Where the
    network has an output for pixels near two objects, probabilities are those of the classes.

    Args:
        model: trained, on its device.
        data: prepared data.
        tile: side of the windows in pixels.
        precision: of the predictions.

    Returns:
        temperature; nll_before, nll_after (natural logarithms) and ece_before, ece_after of the pixels that it was
        fitted by; pixels, the number of them. None: an instance network, or no validation pixel has a label.
    """
    if not isinstance(model, SemanticModel):
        return None
    probabilities, labels = _sample(model, data, tile, precision)
    if not len(labels):
        return None
    temperature = fitted(probabilities, labels)
    entry: dict[str, Any] = {"temperature": temperature, "pixels": len(labels)}
    for when, value in (("before", 1.0), ("after", temperature)):
        entry[f"nll_{when}"] = _rounded(nll(probabilities, labels, value))
        entry[f"ece_{when}"] = _rounded(_ece(probabilities, labels, value))
    return entry


def text(entry: dict[str, Any]) -> str:
    """One line about an entry `calibration`."""
    limit = limit_text(entry["temperature"])
    where = f" ({limit})" if limit else ""
    return (
        f"calibration: temperature {entry['temperature']:.3g}{where}, expected calibration error on validation pixels "
        f"{entry['ece_before']:.2%} before, {entry['ece_after']:.2%} after"
    )


def fitted(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Temperature of the lowest NLL, to four digits; 1 where no other one changes the NLL noticeably.

    It is within `LOWEST` to `HIGHEST`, and exactly one of them where the NLL is lowest there.

    Args:
        probabilities: (K, n) float32.
        labels: (n,) class of each pixel.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log: nll(probabilities, labels, float(np.exp(log))),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    # the search does not reach its bounds
    tried = [_rounded(float(np.exp(found.x))), LOWEST, HIGHEST]
    best, temperature = min((nll(probabilities, labels, value), value) for value in tried)
    return temperature if nll(probabilities, labels, 1.0) - best > _SAME else 1.0


def nll(probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of labels (n,) by probabilities (K, n) float32 after temperature scaling."""
    logs = log_probabilities(torch.from_numpy(probabilities)).double() / temperature
    of_label = logs.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    # by numpy, whose sum does not depend on the number of threads
    return float((logs.logsumexp(dim=0) - of_label).numpy().mean())


def _ece(probabilities: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    curve, values = Calibration(), torch.from_numpy(probabilities)
    curve.add(confidence(values, temperature).numpy(), values.argmax(dim=0).numpy(), labels)
    return float(curve.result()["ece"])


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _sample(
    model: SemanticModel, data: PreparedData, tile: int, precision: Precision
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K, n) float32 and labels (n,) uint8 of validation pixels with a label.

    All of them, or the same share of each region, drawn by the region's id.
    """
    regions = data.regions[data.regions["split"] == "validation"].sort_values("id")
    share = min(1.0, _MOST / max(1, len(data.classes) * int((regions["height"] * regions["width"]).sum())))
    probabilities, labels = [np.empty((len(data.classes), 0), np.float32)], [np.empty(0, np.uint8)]
    for region in regions["id"]:
        patch = data.read_input(region)
        kept = np.flatnonzero(patch.label != IGNORE)
        if share < 1:
            draw = np.random.default_rng(int(digest(region)[:16], 16))
            kept = np.sort(draw.choice(kept, int(share * len(kept)), replace=False))
        if not len(kept):
            continue
        predicted = predict_patch(model, patch, tile, min(64, tile // 4), precision)
        probabilities.append(predicted.reshape(len(predicted), -1)[:, kept])
        labels.append(patch.label.ravel()[kept])
    return np.concatenate(probabilities, axis=1), np.concatenate(labels)
