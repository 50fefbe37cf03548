"""The comparison of an exported model with its network, as text."""

from typing import Any

from segcore.comparison.text import difference_unit
from segcore.latency import threads_text
from segcore.metrics import METRICS


def line(facts: dict[str, Any]) -> str:
    """One line for the terminal; `facts` is the content of export.json."""
    found, parts = facts["parity"], []
    latency = found["latency_ms"]
    largest = f"largest difference {found['largest_difference']:.1e}"
    number = f"{found['changed']:,} of {found['compared']:,} {found['unit']}"
    if not found["compared"]:
        parts.append("the model found no objects in these pixels, so that nothing was compared")
    elif found["unit"] == "objects":
        least = "" if found["least_iou"] is None else f", IoU of masks at least {found['least_iou']:.3f}"
        parts.append(f"{largest} in scores{least}, {number} found by only one or with another mask or box")
    else:
        parts.append(f"{largest}, another class in {number}")
    if found["score"]:
        parts.append(_scores(found["score"]))
    how = "in fp32" if facts["max_loss"] is None else "with 8-bit weights"
    parts.append(
        f"{latency['exported']:.1f} ms per tile of {latency['tile']} pixels {how}, "
        f"the model itself {latency['eager']:.1f} ms in {latency['precision']}"
    )
    parts.append(f"{facts['size'] / 1e6:.1f} MB")
    return "; ".join(parts)


def score_text(metric: str, value: float) -> str:
    """A score with its unit, with the digits that exports differ by."""
    unit = METRICS[metric].unit
    return f"{100 * value:.3f} %" if unit == "%" else f"{value:.5f} {unit}".rstrip()


def loss_text(metric: str, value: float) -> str:
    """A difference of scores with its unit, with the digits of `score_text`."""
    return score_text(metric, value).replace("%", difference_unit("%"))


def _scores(score: dict[str, Any]) -> str:
    name = score["metric"]
    exported, eager = (score_text(name, score[of]) for of in ("exported", "eager"))
    return (
        f"{METRICS[name].heading} {exported}, of the model itself {eager} ({score['regions']} test regions)"
    )


def _summary(facts: dict[str, Any]) -> str:
    if not facts["parity"]["compared"]:
        return "was not compared with the model, which found no objects"
    if facts["max_loss"] is None:
        return f"computes what the model computes, within a tolerance of {facts['tolerance']:g}"
    score = facts["parity"]["score"]
    loss, accepted = (
        loss_text(score["metric"], value) for value in (max(score["loss"], 0), facts["max_loss"])
    )
    return f"has rounded weights: its score is worse by {loss}, accepted are {accepted}"


def markdown(facts: dict[str, Any]) -> str:
    """Content of parity.md; `facts` is the content of export.json."""
    found = facts["parity"]
    rows = [f"| {row['input']} | {row['difference']:.1e} | {row['changed']:,} |" for row in found["inputs"]]
    measured = [part.strip() for part in line(facts).split(";")]
    return "\n".join(
        [
            f"# {facts['name']} as {facts['title']}",
            "",
            f"`{facts['file']}` {_summary(facts)}. Inputs are {found['pixels']}.",
            "",
            *(f"- {part[0].upper()}{part[1:]}" for part in measured),
            f"- Weights {facts['weights_sha256'][:12]}; {found['latency_ms']['machine']}, "
            f"{threads_text(found['latency_ms']['threads'])}",
            "",
            f"| input (images x rows x columns) | largest difference | {found['unit']} that differ |",
            "|---|---:|---:|",
            *rows,
            "",
        ]
    )
