"""What a comparison says of ensembles: their whole cost stands beside their score."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segcore.comparison.verdict import Placed

NOTE = (
    "Ensembles average the probabilities of several trained networks: their parameters, GMACs, time, memory and "
    "training time are those of all of them together. Each is scored once, so its interval does not cover the "
    "choice of seeds."
)


def sentence(best: "Placed", single: "Placed", lead: str, shown: bool) -> str:
    """What an ensemble that ranks first costs, beside the best network alone.

    Args:
        best: the ensemble.
        single: the best network that is no ensemble.
        lead: of the ensemble, with its interval and unit.
        shown: whether a difference is shown.
    """
    cost = f"{best.macs / 1e9:.2f} and {single.macs / 1e9:.2f} GMACs for 256x256 pixels"
    return (
        f" {best.title} is an ensemble: it predicts with {best.members} trained networks and computes "
        f"{best.macs / max(single.macs, 1):.1f} times as much as {single.title}, the best network alone ({cost}), for "
        f"{lead} more{'' if shown else ', a difference that is not shown'}."
    )
