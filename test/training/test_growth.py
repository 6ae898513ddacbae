"""A grown network computes what the smaller one did, and all that is new can learn."""

from dataclasses import replace

import pytest
import torch

from superglue_ros.errors import WeightsError
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.training.growth import grow

SMALL = SuperGlueConfig(descriptor_dim=64, width=16, layers=2, heads=2, keypoint_encoder=(8,))


def network(config: SuperGlueConfig) -> SuperGlue:
    """A network whose batch norms have seen something, so that a wrong place shows."""
    made = SuperGlue(config)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                for values in (module.running_mean, module.weight, module.bias):
                    values.add_(0.2 * torch.randn_like(values))
                module.running_var.mul_(1 + torch.rand_like(module.running_var))
        made.final.weight.mul_(8)  # scores as wide apart as after training
    return made.eval()


def pair() -> tuple[torch.Tensor, ...]:
    side = [
        torch.rand(1, 12, 2) * 90,
        torch.rand(1, 12),
        torch.nn.functional.normalize(torch.randn(1, 12, 64), dim=2),
        torch.full((1, 2), 100.0),
    ]
    return (*side, *(part.clone() for part in side))


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"layers": 4}, 1e-6),
        ({"width": 24, "heads": 3}, 0.02),  # new rows of the final projection are small, not zero
        ({"width": 48, "heads": 6, "layers": 3}, 0.02),
    ],
)
def test_a_grown_network_computes_the_same(change, tolerance):
    torch.manual_seed(1)
    small, inputs = network(SMALL), pair()
    large = SuperGlue(replace(SMALL, **change)).eval()
    before = small(*inputs)
    assert (large(*inputs) - before).abs().max() > 1
    grow(large, small)
    torch.testing.assert_close(large(*inputs), before, atol=tolerance, rtol=0)


def test_all_that_width_adds_has_a_gradient():
    torch.manual_seed(2)
    small, inputs = network(SMALL), pair()
    large = SuperGlue(replace(SMALL, width=24, heads=3)).eval()
    grow(large, small)
    large(*inputs)[:, :-1, :-1].diagonal(dim1=1, dim2=2).mean().backward()
    for name, parameter in large.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name
    layer = large.gnn[0]
    assert float(layer.qkv.weight.grad[:16, 16:].abs().max()) > 0  # old queries, new channels
    assert float(layer.merge.weight.grad[:16, 16:].abs().max()) > 0  # old messages, the new head


def test_new_channels_show_what_the_old_projection_dropped():
    torch.manual_seed(3)
    small = network(SMALL)
    large = SuperGlue(replace(SMALL, width=24, heads=3))
    grow(large, small)
    old, new = large.input.weight[:16], large.input.weight[16:]
    torch.testing.assert_close(old, small.input.weight)
    assert float((old @ new.T).detach().abs().max()) < 1e-5
    torch.testing.assert_close(new.norm(dim=1), old.norm(dim=1).mean().expand(8))


@pytest.mark.parametrize(
    "change",
    [
        {"width": 24, "heads": 2},  # heads of another size
        {"layers": 1},
        {"descriptor_dim": 32},
        {"keypoint_encoder": (8, 8)},
    ],
)
def test_what_does_not_fit_is_refused(change):
    with pytest.raises(WeightsError, match=r"can't grow into"):
        grow(SuperGlue(replace(SMALL, **change)), SuperGlue(SMALL))


@pytest.mark.parametrize(
    "options",
    [
        {"edges": 3},
        {"scales": (0.25, 1.0)},
        {"temperature": 0.5},
        {"learned_iterations": 100},
        {"top_k": 40, "prune": 0.0},
        {"layers": 3, "edges": 2, "temperature": 2.0},
    ],
)
def test_options_are_added_without_effect(options):
    torch.manual_seed(1)
    small, inputs = network(SMALL), pair()
    large = SuperGlue(replace(SMALL, **options)).eval()
    grow(large, small)
    if large.stop is not None:
        large.stop.linear.bias.data.fill_(20.0)  # all iterations
    torch.testing.assert_close(large(*inputs), small(*inputs), atol=2e-3, rtol=1e-3)


def test_both_dustbins_start_from_the_one_there_was():
    small, large = network(SMALL), SuperGlue(replace(SMALL, separate_dustbins=True))
    small.dustbin.data.fill_(3.0)
    grow(large, small)
    assert large.dustbin.tolist() == [3, 3]


def test_another_input_of_the_encoder_and_width_with_options_are_refused():
    for changes in ({"sinusoids": 2}, {"width": 24, "heads": 3, "edges": 2}):
        with pytest.raises(WeightsError, match="can't grow into"):
            grow(SuperGlue(replace(SMALL, **changes)), network(SMALL))
