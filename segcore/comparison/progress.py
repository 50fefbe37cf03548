"""Whether validation scores were still rising when trainings ended, by their histories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from segcore.comparison.text import listed, value_text
from segcore.params import Params

# columns of history.csv with the score of a validation -> printed name
SCORES = {"val_iou": "IoU", "val_pq": "PQ"}
# In [0, 1]: scores of two trainings that are alike differ by about this much (docs/notes/tuning.md).
LEAST_GAIN = 0.01
# with two, a fall would not be seen, and noise not be known
_LEAST_VALIDATIONS = 3


@dataclass(frozen=True)
class Progress:
    """How the validation score of a network changed at the end of its trainings.

    Attributes:
        state: "rising", "level", or "unknown".
        score: printed name of the score.
        gain: mean over trainings of the best score in the last third of the steps minus the best before, in [-1, 1];
            0 with too few validations.
        steps: of the longest training.
        why: of "unknown", the reason; else empty.
    """

    state: Literal["rising", "level", "unknown"]
    score: str
    gain: float
    steps: int
    why: str = ""


def validation_score(history: pd.DataFrame) -> str:
    """Column of a history.csv with the score by which the best step was chosen."""
    return next(name for name in SCORES if name in history)


def progress(histories: Sequence[pd.DataFrame]) -> Progress:
    """Whether a network's score was still rising at the end of its trainings.

    Best scores are compared, because the best step is what a training keeps. The score was rising if its gain in the
    last third of the steps is above LEAST_GAIN and above the noise: the standard error over seeds, and the mean fall
    between neighbouring validations (a rise may be progress, a fall is noise).

    "level" does not show that a longer training would gain nothing: where the schedule lowers the learning rate to 0,
    scores level off at its end in any case.

    Args:
        histories: history.csv of each seed: step and val_iou or val_pq, one row per validation.
    """
    name = validation_score(histories[0])
    steps = max((int(step) for history in histories for step in history["step"]), default=0)
    gains, falls, best = [], [], 0.0
    for history in histories:
        step, scores = history[["step", name]].dropna().to_numpy(dtype=float).T
        late = 3 * step > 2 * step.max(initial=0)
        if len(step) < _LEAST_VALIDATIONS or late.all():
            return Progress("unknown", SCORES[name], 0.0, steps, "too few validations")
        gains.append(scores[late].max() - scores[~late].max())
        falls += np.maximum(-np.diff(scores), 0).tolist()
        best = max(best, float(scores.max()))
    # rounded: .926 - .916 is not above .01
    gain = round(float(np.mean(gains)), 6)
    error = float(np.std(gains, ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    if best == 0:
        return Progress("unknown", SCORES[name], gain, steps, "all validations scored 0")
    if gain <= LEAST_GAIN:
        return Progress("level", SCORES[name], gain, steps)
    if gain <= max(error, float(np.mean(falls))):
        return Progress("unknown", SCORES[name], gain, steps, "scores vary by more than they gained")
    return Progress("rising", SCORES[name], gain, steps)


def sentence(networks: Mapping[str, Progress], titles: Mapping[str, str], p: Params) -> str:
    """Whether scores were still rising, for the verdict; empty without networks.

    Args:
        networks: architecture -> its progress.
        titles: architecture -> printed name.
        p: parameters, whose keys are named.
    """
    rising, level, unknown = (
        {name: one for name, one in networks.items() if one.state == state}
        for state in ("rising", "level", "unknown")
    )
    sentences = []
    if rising:
        gains = [f"{titles[n]} by {value_text(one.gain)} points of {one.score}" for n, one in rising.items()]
        others = f"; {_named(level, titles)} had levelled off" if level else ""
        keys = {_key_of_steps(name, p): None for name in rising}
        effect = "change the ranking" if len(networks) > 1 else "raise them"
        sentences.append(
            f"Validation scores were still rising in {_last_third(rising)}: {listed(gains)}{others}; "
            f"more steps ({listed(list(keys))}) may {effect}."
        )
    elif level:
        of = "" if len(level) == len(networks) else f" of {_named(level, titles)}"
        sentences.append(
            f"Validation scores{of} had levelled off: they gained at most {100 * LEAST_GAIN:g} point in "
            f"{_last_third(level)}."
        )
    if unknown:
        why = listed(list(dict.fromkeys(one.why for one in unknown.values())))
        remedy = " (train.common.validate_every)" if "too few validations" in why else ""
        sentences.append(
            f"Whether validation scores of {_named(unknown, titles)} were still rising cannot be told: {why}{remedy}."
        )
    return " ".join(sentences)


def _key_of_steps(name: str, p: Params) -> str:
    """The key by which a network gets more steps."""
    if p.train.get(name, {}).get("steps"):
        return f"train.{name}.steps"
    is_auto = "train.common.steps" in p.auto and p.for_architecture(name).budget != "thorough"
    return "train.common.budget" if is_auto else "train.common.steps"


def _named(networks: Mapping[str, Progress], titles: Mapping[str, str]) -> str:
    return listed([titles[name] for name in networks])


def _last_third(networks: Mapping[str, Progress]) -> str:
    steps = {one.steps for one in networks.values()}
    return f"the last third of {f'the {steps.pop():,} steps' if len(steps) == 1 else 'their steps'}"
