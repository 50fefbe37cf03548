"""Report values on the calibration of the networks before and after temperature scaling."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore.data.temperature_limits import limit_text

if TYPE_CHECKING:
    # slow: imports charts and pictures
    from tasks.reporting.inputs import Inputs

# temperatures that differ by less from 1 change little
_NEAR = 0.05


def calibration_view(inputs: "Inputs") -> list[dict[str, Any]]:
    """A row per network with a temperature, of its first seed or round, as in the figure; older versions have none.

    Returns:
        title, temperature, ece (expected calibration error, as a fraction) and after, that after temperature scaling;
        verdict, on the probabilities as predicted; limit, what a temperature at its limit means, else empty.
    """
    rows = []
    for name, run in inputs.first_runs.items():
        after = run.calibration.get("after_temperature")
        if after:
            rows.append(
                {
                    "title": inputs.titles[name],
                    "temperature": after["temperature"],
                    "ece": run.calibration["ece"],
                    "after": after["ece"],
                    "verdict": _verdict(after.get("temperatures", [after["temperature"]])),
                    "limit": limit_text(after["temperature"]),
                }
            )
    return rows


def pooled_calibration(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The calibration of several networks on images of their own, as one; the temperature is their geometric mean.

    Args:
        curves: contents of calibration.json, with equal bins.
    """
    count = np.sum([curve["count"] for curve in curves], axis=0)

    def mean(name: str) -> np.ndarray:
        total = np.sum([np.multiply(curve[name], curve["count"]) for curve in curves], axis=0)
        return np.asarray(total / np.maximum(count, 1))

    confidence, accuracy = mean("confidence"), mean("accuracy")
    gap = float((count * np.abs(accuracy - confidence)).sum() / max(count.sum(), 1))
    result = {
        "confidence": confidence.tolist(), "accuracy": accuracy.tolist(), "count": count.tolist(), "ece": gap
    }  # fmt: skip
    after = [curve["after_temperature"] for curve in curves if "after_temperature" in curve]
    if len(after) == len(curves):
        each = [float(curve["temperature"]) for curve in after]
        temperature = float(np.exp(np.mean(np.log(each))))
        pooled = {"temperature": temperature, "temperatures": each, **pooled_calibration(after)}
        result["after_temperature"] = pooled
    return result


def _verdict(temperatures: Sequence[float]) -> str:
    texts = {_text(temperature) for temperature in temperatures}
    return texts.pop() if len(texts) == 1 else "not alike in all folds"


def _text(temperature: float) -> str:
    if abs(temperature - 1) < _NEAR:
        return "about right"
    return "overconfident" if temperature > 1 else "not confident enough"
