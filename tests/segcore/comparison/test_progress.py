"""Whether scores were still rising, on constructed histories and on those of the tuning log."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from segcore.comparison.compare import compare
from segcore.comparison.progress import LEAST_GAIN, Progress, progress, sentence
from tests.segcore.comparison.test_compare import TITLES, model, parameters


def history(
    scores: Sequence[float], every: int = 20, last: int | None = None, score: str = "val_iou"
) -> pd.DataFrame:
    """As history.csv: a validation every `every` steps, the last one at step `last`."""
    steps = [every * (number + 1) for number in range(len(scores))]
    return pd.DataFrame({"step": [*steps[:-1], last or steps[-1]], "val_loss": 1.0, score: scores})


# validation scores in docs/notes/tuning.md, with what more steps brought there
@pytest.mark.parametrize(
    ("scores", "state"),
    [
        ([0.802, 0.924, 0.923, 0.931], "level"),
        ([0.611, 0.916, 0.926, 0.923], "level"),
        ([0.716, 0.742, 0.744, 0.748], "level"),
        ([0.867, 0.872, 0.875], "level"),
        ([0.853, 0.926, 0.931, 0.939], "rising"),
        ([0.859, 0.859, 0.871, 0.873], "rising"),
    ],
)
def test_histories_of_the_tuning_log(scores: list[float], state: str) -> None:
    assert progress([history(scores)]).state == state


def test_the_gain_is_that_of_the_best_score_in_the_last_third() -> None:
    found = progress([history([0.3, 0.5, 0.45, 0.6, 0.55]), history([0.3, 0.5, 0.4, 0.5, 0.58])])
    # steps 80 and 100 of 100 are in the last third; the mean of .10 and .08
    assert found == Progress("rising", "IoU", pytest.approx(0.09), 100)
    # steps 25 | 50 and 60 of 60
    assert progress([history([0.3, 0.6, 0.5], 25, last=60)]).gain == pytest.approx(0.3)


def test_a_gain_below_that_between_like_trainings_is_level() -> None:
    assert progress([history([0.5, 0.8, 0.8 + LEAST_GAIN])]).state == "level"
    assert progress([history([0.5, 0.8, 0.8 + LEAST_GAIN + 0.001])]).state == "rising"
    assert progress([history([0.5, 0.8, 0.7])]).gain == pytest.approx(-0.1)


@pytest.mark.parametrize(
    "histories", [[[0.5]], [[0.5, 0.9]], [[], [0.1, 0.2, 0.3]], [[0.1, 0.2, 0.3], [0.1, 0.2]]]
)
def test_fewer_than_three_validations_are_too_few(histories: list[list[float]]) -> None:
    found = progress([history(scores) if scores else history([0.5])[:0] for scores in histories])
    assert (found.state, found.why) == ("unknown", "too few validations")


def test_noise_between_validations_or_seeds_is_no_progress() -> None:
    assert progress([history([0.5, 0.7, 0.5, 0.7, 0.5, 0.72])]).state == "unknown"
    assert progress([history([0.5, 0.6, 0.7]), history([0.5, 0.66, 0.62])]).state == "unknown"
    assert progress([history([0.5, 0.6, 0.7]), history([0.5, 0.6, 0.66])]).state == "rising"


def test_a_network_that_learned_nothing_has_not_levelled_off() -> None:
    found = progress([history([0.0, 0.0, 0.0], score="val_pq")])
    assert (found.state, found.score, found.why) == ("unknown", "PQ", "all validations scored 0")


@pytest.mark.parametrize(("count", "seeds", "most"), [(3, 1, 0.2), (4, 1, 0.3), (12, 1, 0.1), (4, 3, 0.15)])
def test_level_curves_with_the_usual_noise_are_rarely_called_rising(
    count: int, seeds: int, most: float
) -> None:
    rng, rising = np.random.default_rng(0), 0
    for _ in range(100):
        curves = 0.8 + rng.normal(0, 0.01, (seeds, count))
        rising += progress([history(curve) for curve in curves]).state == "rising"
    assert rising / 100 <= most


@pytest.mark.parametrize(("count", "seeds", "least"), [(3, 1, 0.75), (6, 1, 0.85), (4, 3, 0.95)])
def test_a_rise_of_three_points_is_seen_through_the_usual_noise(count: int, seeds: int, least: float) -> None:
    rng, rising = np.random.default_rng(0), 0
    for _ in range(100):
        curves = 0.5 + 0.09 * np.arange(1, count + 1) / count + rng.normal(0, 0.01, (seeds, count))
        rising += progress([history(curve) for curve in curves]).state == "rising"
    assert rising / 100 >= least


RISING = Progress("rising", "IoU", 0.041, 60)
LEVEL = Progress("level", "IoU", 0.002, 60)
FEW = Progress("unknown", "IoU", 0.0, 60, "too few validations")


def said(networks: dict[str, Progress], **train: dict[str, Any]) -> str:
    return sentence(networks, TITLES, parameters(list(networks), [0], **train))


def test_the_sentence_names_gains_and_the_key_to_change() -> None:
    assert said({"unet": RISING, "fcn": replace(RISING, gain=0.023), "deeplab": LEVEL}) == (
        "Validation scores were still rising in the last third of the 60 steps: U-Net by 4.1 points of IoU and FCN-8s "
        "by 2.3 points of IoU; DeepLabV3+ had levelled off; more steps (train.common.steps) may change the ranking."
    )
    own = said({"unet": replace(RISING, steps=90), "fcn": RISING}, unet={"steps": 90})
    assert "in the last third of their steps: " in own
    assert own.endswith("more steps (train.unet.steps and train.common.steps) may change the ranking.")
    assert said({"unet": RISING}).endswith("may raise them.")


def test_the_key_is_the_budget_where_the_plan_decides_the_steps() -> None:
    for budget, key in (("quick", "budget"), ("thorough", "steps")):
        p = parameters(["unet"], [0])
        p.train["common"]["budget"], p._auto = budget, ("train.common.steps",)
        assert f"more steps (train.common.{key}) may" in sentence({"unet": RISING}, TITLES, p)


def test_the_sentence_says_what_levelled_off_and_what_cannot_be_told() -> None:
    level = (
        "Validation scores{} had levelled off: they gained at most 1 point in the last third of the 60 steps."
    )
    few = (
        "Whether validation scores of {} were still rising cannot be told: too few validations "
        "(train.common.validate_every)."
    )
    assert said({"unet": LEVEL, "fcn": LEVEL}) == level.format("")
    assert said({"unet": FEW, "fcn": FEW}) == few.format("U-Net and FCN-8s")
    assert said({"unet": LEVEL, "fcn": FEW}) == f"{level.format(' of U-Net')} {few.format('FCN-8s')}"


def test_the_verdict_has_the_sentence_where_histories_are_known() -> None:
    p = parameters(["unet", "fcn"], [0, 1])
    models = [model("unet", [0.9, 0.9]), model("fcn", [0.7, 0.7])]
    before = compare(models, p, "group").verdict
    assert "Validation scores" not in before
    rising = [history([0.3, 0.4, 0.5])] * 2
    verdict = compare([replace(one, histories=rising) for one in models], p, "group").verdict
    assert (
        verdict.startswith(before)
        and "U-Net by 10.0 points of IoU and FCN-8s by 10.0" in verdict[len(before) :]
    )
    assert compare([replace(models[0], histories=rising), models[1]], p, "group").verdict == before
