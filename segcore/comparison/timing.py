"""Latencies of a comparison, and what may be concluded from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segcore.comparison.results import Comparison
from segcore.latency import MOST_DISAGREEMENT, Latency, doubt

APART = "†"


@dataclass(frozen=True)
class Timing:
    """Milliseconds per megapixel of one architecture.

    Attributes:
        estimate: median over the rounds.
        low, high: quartiles over rounds in which all architectures took turns; None where it was measured alone.
        apart: whether other architectures were measured at other moments.
    """

    estimate: float
    low: float | None = None
    high: float | None = None
    apart: bool = False

    @property
    def median(self) -> str:
        """The median as text, with the mark of times of different moments."""
        return f"{milliseconds(self.estimate)}{f' {APART}' if self.apart else ''}"

    @property
    def spread(self) -> str:
        """The quartiles as text; empty without any."""
        return (
            ""
            if self.low is None or self.high is None
            else f"{milliseconds(self.low)} to {milliseconds(self.high)}"
        )

    def __str__(self) -> str:
        return f"{self.median} [{self.spread.replace(' to', ',')}]" if self.spread else self.median


def milliseconds(value: float, decimals: int = 1) -> str:
    """A time as text without its unit; from 1,000 on, with four significant digits."""
    return f"{value:,.{decimals}f}" if value < 1000 else f"{float(f'{value:.4g}'):,.0f}"


def timing(cost: Mapping[str, Any] | None) -> Timing | None:
    """Timing in an architecture's costs; None where it was not measured."""
    if not cost or not cost.get("ms_per_megapixel"):
        return None
    estimate, latency = float(cost["ms_per_megapixel"]), cost.get("latency_ms")
    ends = (cost.get("latency_low_ms"), cost.get("latency_high_ms"))
    low, high = (end * estimate / latency if end is not None and latency else None for end in ends)
    return Timing(estimate, low, high, bool(cost.get("apart")))


@dataclass(frozen=True)
class Fastest:
    """The fastest architecture, or None and why none is shown."""

    name: str | None
    reason: str


def fastest(timings: Mapping[str, Timing]) -> Fastest:
    """The architecture whose rounds are all but surely faster than those of every other.

    None where latencies are of different moments, where the rounds of one architecture disagree by more than
    MOST_DISAGREEMENT, or where the middle halves of the two fastest overlap.
    """
    if any(one.apart or one.low is None for one in timings.values()):
        return Fastest(None, "measured at different moments")
    latencies = {name: Latency(one.estimate, one.low, one.high) for name, one in timings.items()}
    most = max(one.disagreement for one in latencies.values())
    if most > MOST_DISAGREEMENT:
        return Fastest(None, f"rounds disagree by {most * 100:.0f} %")
    first, *others = sorted(latencies, key=lambda name: latencies[name].median)
    if any(doubt(latencies[first], latencies[name]) for name in others):
        return Fastest(None, "intervals overlap")
    return Fastest(first, "the fastest here")


def timing_notes(costs: Mapping[str, Mapping[str, Any] | None], titles: Mapping[str, str]) -> list[str]:
    """How latencies were measured, and whether they show an order; empty where none was measured.

    Args:
        costs: architecture -> costs.
        titles: architecture -> printed name.
    """
    timings = {name: one for name, cost in costs.items() if (one := timing(cost)) is not None}
    trained = sum(bool(cost and cost.get("train_seconds")) for cost in costs.values())
    notes = [
        *(["Training times are of different moments."] if trained > 1 else []),
        *_machines(costs, titles, "train_machine", "Training time"),
        *_machines(costs, titles, "memory_machine", "Memory"),
    ]
    if not timings:
        return notes
    if any(one.apart for one in timings.values()):
        return [
            f"{APART} Measured at different moments: differences of time may be those of what else the machine did.",
            *notes,
        ]
    best = fastest(timings)
    if len(timings) > 1 and best.name is not None:
        notes.insert(0, f"{titles[best.name]} is the fastest here.")
    elif len(timings) > 1:
        notes.insert(0, f"No order of times is shown: {best.reason}.")
    return notes


def finding_notes(costs: Mapping[str, Mapping[str, Any] | None], comparison: Comparison) -> list[str]:
    """What times leave out where objects are compared; empty elsewhere, and where none was measured.

    Args:
        costs: architecture -> costs.
        comparison: of these architectures.
    """
    kinds = [(row.summary or {}).get("kind", "semantic") for row in comparison.models]
    is_timed = any(timing(cost) is not None for cost in costs.values())
    if not is_timed or comparison.objects is None or "semantic" not in kinds:
        return []
    including = "; those of instance networks include it" if "instance" in kinds else ""
    return [f"Times of semantic networks leave out finding the objects in the class map{including}."]


def _machines(
    costs: Mapping[str, Mapping[str, Any] | None], titles: Mapping[str, str], key: str, what: str
) -> list[str]:
    """Machines that `what` was measured on, where they differ."""
    machines = {name: cost[key] for name, cost in costs.items() if cost and cost.get(key)}
    if len(set(machines.values())) < 2:
        return []
    where = ", ".join(f"{titles[name]} on {machine}" for name, machine in machines.items())
    return [f"{what} is of different machines: {where}."]
