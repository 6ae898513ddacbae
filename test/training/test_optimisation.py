import math

import pytest
import torch

from superglue_ros.training.optimisation import (
    MovingAverage,
    OptimiserConfig,
    ScheduleConfig,
    learning_rate_factor,
    make_optimiser,
)


def test_the_papers_schedule_is_constant_then_exponential():
    config = ScheduleConfig(form="exponential", hold=200_000, decay=0.999998)
    assert learning_rate_factor(199_999, 900_000, config) == 1
    expected = 0.999998**700_000
    assert learning_rate_factor(900_000, 900_000, config) == pytest.approx(expected)


def test_the_reports_schedule_halves_every_ten():
    config = ScheduleConfig(form="step", hold=10, decay=0.5)
    factors = [learning_rate_factor(step, 100, config) for step in (0, 9, 10, 25)]
    assert factors == [1, 1, 0.5, 0.25]


def test_cosine_holds_falls_and_stops_at_its_floor():
    config = ScheduleConfig(form="cosine", warmup=10, hold=100, floor=0.1)
    assert learning_rate_factor(0, 300, config) == pytest.approx(0.1)
    assert learning_rate_factor(100, 300, config) == 1
    assert learning_rate_factor(200, 300, config) == pytest.approx(0.5)
    assert learning_rate_factor(300, 300, config) == 0.1


def test_the_average_follows_its_recurrence():
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = MovingAverage(network, 0.9)
    expected = 0.0
    for step in range(200):
        network.weight.data.fill_(float(step))
        average.update(network, step)
        decay = min(0.9, (step + 1) / (step + 10))
        expected = decay * expected + (1 - decay) * step
    assert average.network.weight.item() == pytest.approx(expected, rel=1e-5)
    assert not average.network.weight.requires_grad


def test_the_named_optimiser_is_made():
    parameters = [torch.nn.Parameter(torch.ones(1))]
    adamw = make_optimiser(parameters, OptimiserConfig(name="adamw", weight_decay=0.1))
    assert type(adamw) is torch.optim.AdamW
    assert adamw.defaults["weight_decay"] == 0.1
    assert type(make_optimiser(parameters, OptimiserConfig())) is torch.optim.Adam
    assert math.isclose(make_optimiser(parameters, OptimiserConfig()).defaults["lr"], 1e-4)
