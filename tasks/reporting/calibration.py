"""Report values on the calibration of the networks before and after temperature scaling."""

from typing import TYPE_CHECKING, Any

from segcore.data.temperature_limits import limit_text

if TYPE_CHECKING:
    # slow: imports charts and pictures
    from tasks.reporting.inputs import Inputs

# temperatures that differ by less from 1 change little
_NEAR = 0.05


def calibration_view(inputs: "Inputs") -> list[dict[str, Any]]:
    """A row per network with a temperature, of its first seed, as in the figure; those of older versions have none.

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
                    "verdict": _verdict(after["temperature"]),
                    "limit": limit_text(after["temperature"]),
                }
            )
    return rows


def _verdict(temperature: float) -> str:
    if abs(temperature - 1) < _NEAR:
        return "about right"
    return "overconfident" if temperature > 1 else "not confident enough"
