"""What latencies that were measured in turn show: an order only where the rounds agree. Import-light."""

from typing import NamedTuple

# relative width of the middle half of the rounds, above which they show no order
MOST_DISAGREEMENT = 0.2


class Latency(NamedTuple):
    """Median and quartiles over rounds in which several models take turns; quartiles of None: it was timed alone."""

    median: float
    low: float | None = None
    high: float | None = None

    @property
    def disagreement(self) -> float:
        """Width of the middle half of the rounds, relative to the median; 0 without quartiles."""
        return 0.0 if self.low is None or self.high is None else (self.high - self.low) / self.median


def doubt(lower: Latency, other: Latency) -> str:
    """Why the rounds do not show that the latency with the lower median is lower; empty where they do.

    Latencies without quartiles, of earlier versions, count as shown.
    """
    most = max(lower.disagreement, other.disagreement)
    if most > MOST_DISAGREEMENT:
        return f"rounds of measuring disagree by {most * 100:.0f} %"
    if lower.high is not None and other.low is not None and lower.high >= other.low:
        return "intervals of the rounds overlap"
    return ""


def threads_text(count: float) -> str:
    """Number of threads as text, such as "1 thread"."""
    return f"{count:.0f} thread{'s' * (count != 1)}"
