import math

import pytest
import torch

from superglue_ros.training.optimisation import (
    MovingAverage,
    Muon,
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


def test_muon_takes_the_matrices_and_adamw_the_rest():
    """A matrix moves along an orthogonal direction whatever its gradient's spectrum, a bias not."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 8)
    before = linear.weight.detach().clone()
    optimiser = make_optimiser(linear.parameters(), OptimiserConfig(name="muon", learning_rate=0.1))
    assert len(optimiser.param_groups) == 2
    left, _, right = torch.linalg.svd(torch.randn(8, 8))
    linear.weight.grad = left @ torch.diag(torch.tensor([100.0, 50, 20, 10, 5, 2, 1, 0.5])) @ right
    linear.bias.grad = torch.ones(8)
    bias = linear.bias.detach().clone()
    optimiser.step()
    singular = torch.linalg.svdvals(linear.weight.detach() - before)
    assert singular[0] / singular[-1] < 4  # of 200
    torch.testing.assert_close(bias - linear.bias.detach(), torch.full((8,), 0.1))
    optimiser.zero_grad()
    assert linear.weight.grad is None


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_batched_muon_steps_as_torchs():
    torch.manual_seed(0)
    shapes = [(24, 8), (8, 8), (24, 8), (8, 16), (8, 8)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    batched = Muon(ours, 0.02, 0.1)
    single = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        batched.step()
        single.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0)
