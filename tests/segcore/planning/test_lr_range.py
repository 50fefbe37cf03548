"""The learning-rate range test: its curve, its suggestions, and its end when the loss explodes."""

import numpy as np
import pytest

from segcore.params import TrainSettings
from segcore.planning.lr_range import range_test, suggestions
from segcore.training.build import new_model


def test_the_suggestions_are_the_rates_of_the_steepest_and_the_lowest_loss():
    rates = np.geomspace(1e-5, 1, 51)
    loss = 1 / (1 + (rates / 1e-3) ** 2) + np.maximum(0, np.log10(rates / 0.03))
    steepest, lowest = suggestions(list(rates), list(loss))
    assert steepest == pytest.approx(1e-3, rel=0.5) and lowest == pytest.approx(0.03, rel=0.3)
    assert suggestions([1e-5, 1e-4], [1.0, 2.0]) == (1e-5, 1e-5)


def test_rates_increase_and_an_exploding_loss_ends_the_test(prepared_scene):
    p, data = prepared_scene
    settings = TrainSettings(
        weights="none", steps=6, batch=2, crop=32, validate_every=2, model={"encoder": "plain", "width": 4}
    )
    found = range_test(new_model("unet", settings, data, 0), data, settings, p.prepare.window, steps=12)
    assert found.rates[0] == pytest.approx(1e-5) and found.rates[-1] == pytest.approx(0.1)
    assert len(found.losses) == len(found.smooth) == 12 and found.steepest <= found.lowest
    wild = range_test(
        new_model("unet", settings, data, 0), data, settings, p.prepare.window, steps=12, high=1e12
    )
    assert len(wild.rates) < 12 or max(wild.losses) > 2 * wild.losses[0]
