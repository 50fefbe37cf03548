"""Numbers of a comparison as text, formatted the same in terminal, report and decisions."""

from collections.abc import Sequence


def value_text(value: float, unit: str = "%", signed: bool = False) -> str:
    """A score or a difference in its unit, without the unit: 0.542 in "%" is "54.2"."""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.1f}" if unit == "%" else f"{value:{sign}.4g}"


def difference_unit(unit: str) -> str:
    """The unit of a difference between two scores: percentage points for "%"."""
    return "points" if unit == "%" else unit


def interval_text(
    low: float | None, high: float | None, unit: str = "%", signed: bool = False, between: str = " to "
) -> str:
    """An interval without its unit, such as "49.3 to 60.1"; "no interval" where an end is None."""
    if low is None or high is None:
        return "no interval"
    return f"{value_text(low, unit, signed)}{between}{value_text(high, unit, signed)}"


def duration_text(seconds: float) -> str:
    """A duration with its unit: seconds up to 90 s, then minutes, then hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a list in a sentence, such as "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
