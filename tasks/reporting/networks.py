"""Report values on kinds of networks: which are compared, and the settings of the instance networks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from segcore.comparison.progress import progress
from segcore.names import is_ensemble
from tasks.formatting import points

if TYPE_CHECKING:
    # slow: imports charts and pictures
    from tasks.reporting.inputs import Inputs

_PROGRESS = {"rising": "still rising", "level": "levelled off"}
# keywords that the table of networks shows
_ELSEWHERE = ("encoder", "weights", "foreground")


def networks_view(inputs: "Inputs") -> dict[str, Any]:
    """Kinds of the compared networks, and a table of the settings of instance networks.

    Returns:
        "kinds": such as ["semantic", "instance"]; "instance_titles": names of the instance networks; "settings": per
        keyword its name and one (text, origin) per instance network, "" where it has no such keyword; "macs_with":
        sentence on the numbers that multiply-accumulates are counted with, "" if they depend on none; "progress":
        per network its printed name, and whether its validation score was still rising.
    """
    runs = inputs.first_runs
    found = {name: kind_of(run.summary) for name, run in runs.items()}
    instance = [name for name, kind in found.items() if kind == "instance"]
    keywords = {key: None for name in instance for key in runs[name].settings if key not in _ELSEWHERE}
    return {
        "kinds": [kind for kind in ("semantic", "instance") if kind in found.values()],
        "instance_titles": [inputs.titles[name] for name in instance],
        "macs_with": _macs_with(inputs),
        "progress": [
            (title, _progress(inputs, name)) for name, title in inputs.titles.items() if not is_ensemble(name)
        ],
        "settings": [(key, [_setting(inputs, name, key) for name in instance]) for key in keywords],
    }


def _setting(inputs: "Inputs", name: str, key: str) -> tuple[str, str]:
    """A keyword of a network as text, and "set" if params.yaml has its value; others are defaults, or were fitted."""
    settings = inputs.first_runs[name].settings
    if key not in settings:
        return "", ""
    is_set = inputs.params.for_architecture(name).model.get(key, "auto") != "auto"
    return _text(settings[key]), "set" if is_set else ""


def _progress(inputs: "Inputs", name: str) -> str:
    """Such as "+4.1 points, still rising"."""
    found = progress([run.history for run in inputs.runs if run.architecture == name])
    gain = "" if found.why == "too few validations" else f"{points(found.gain)} points, "
    return gain + _PROGRESS.get(found.state, found.why)


def _macs_with(inputs: "Inputs") -> str:
    """Such as "Mask R-CNN with 200 proposals and 50 masks."."""
    texts = []
    for name, run in inputs.first_runs.items():
        numbers = [f"{number:,} {what}" for what, number in run.summary.get("macs_with", {}).items()]
        if numbers:
            texts.append(f"{inputs.titles[name]} with {' and '.join(numbers)}")
    return f"{', '.join(texts)}." if texts else ""


def kind_of(summary: Mapping[str, Any]) -> str:
    """Kind of the network of a summary.json: semantic or instance."""
    return str(summary.get("kind", "semantic"))


def _text(value: Any) -> str:
    """A setting as text, such as "16, 32" for [16, 32]."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return f"{value:g}" if isinstance(value, float) else str(value)
    nested = any(isinstance(one, Sequence) and not isinstance(one, str) for one in value)
    return ("; " if nested else ", ").join(map(_text, value))
