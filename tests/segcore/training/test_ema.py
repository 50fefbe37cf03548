"""The moving average of weights."""

import pytest
import torch

from segcore.training.ema import WeightAverage, decay_of


def test_parameters_and_statistics_are_averaged_and_counters_are_copied():
    model = torch.nn.BatchNorm2d(1)
    average = WeightAverage(model, 0.9)
    weights = []
    for step in (1, 2):
        model(torch.randn(4, 1, 3, 3))
        with torch.no_grad():
            model.weight.add_(step)
        weights.append((model.weight.item(), model.running_mean.item()))
        average.follow(step)
    # below 0.9: the first steps weigh more
    decays = [(1 + n) / (10 + n) for n in (1, 2)]
    for value, start, (one, two) in zip(
        (average.model.weight, average.model.running_mean),
        (1.0, 0.0),
        zip(*weights, strict=True),
        strict=True,
    ):
        expected = decays[1] * (decays[0] * start + (1 - decays[0]) * one) + (1 - decays[1]) * two
        assert value.item() == pytest.approx(expected, rel=1e-5)
    assert average.model.num_batches_tracked == 2 and average.state().keys() == model.state_dict().keys()
    assert WeightAverage(model, 0).model is model and not WeightAverage(model, 0).state()


def test_the_decay_follows_the_number_of_steps():
    assert decay_of("auto", 200) == pytest.approx(0.9) and decay_of("auto", 5) == 0
    assert decay_of(0.99, 5) == 0.99 and decay_of(None, 200) == 0
