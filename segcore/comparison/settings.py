"""Training settings that differ between the compared architectures."""

from collections.abc import Mapping, Sequence
from typing import Any

from segcore.params import Params, flat


def differing_settings(
    models: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], p: Params
) -> dict[str, dict[str, Any]]:
    """Training settings that differ, without an architecture's own keywords: setting -> architecture -> value.

    Args:
        models: name and summaries (one per seed) of each architecture.
        p: parameters; the training settings are used.
    """
    settings = {name: flat(p.for_architecture(name).model_dump(exclude={"model"})) for name, _ in models}
    for name, summaries in models:
        # values of the finished training replace those of params.yaml
        for key in ("encoder", "weights", "steps", "initial_weights"):
            recorded = sorted({summary[key] for summary in summaries if key in summary})
            if recorded:
                # seeds that stopped early at different steps
                several = f"{recorded[0]} to {recorded[-1]}"
                settings[name] |= {key: recorded[0] if len(recorded) == 1 else several}
    # only trainings that did not start anew have initial weights
    keys = {key: None for values in settings.values() for key in values}
    by_key = {key: {name: values.get(key, "none") for name, values in settings.items()} for key in keys}
    return {key: values for key, values in by_key.items() if len({repr(v) for v in values.values()}) > 1}
