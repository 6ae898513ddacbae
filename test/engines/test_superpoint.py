"""The compiled engine gives the maps of the network, at every border and in every strip."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from superglue_ros.engines import superpoint as superpoint_engine
from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superpoint import (
    SuperPoint,
    SuperPointConfig,
    keypoint_probability,
    non_maximum_suppression,
)

CPU = torch.device("cpu")


def random_network(batch_norm: bool, context: float = 0.0) -> SuperPoint:
    """Random parameters; large shifts of the batch norms make a wrong border show."""
    torch.manual_seed(0)
    config = SuperPointConfig((4, 6, 8, 8), 12, 16, batch_norm, context=context)
    network = SuperPoint(config).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 2)
            module.running_mean.normal_(0, 1)
            module.running_var.uniform_(0.5, 2)
    return network


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("strip_bytes", [1, 2**20])
@pytest.mark.parametrize("size", [(1, 64, 40), (2, 24, 32), (1, 8, 8)])
@pytest.mark.parametrize("context", [0.0, 0.5])
def test_equals_the_network(monkeypatch, batch_norm, strip_bytes, size, context):
    monkeypatch.setattr(superpoint_engine, "STRIP_BYTES", strip_bytes)  # 1: strips of eight rows
    network = random_network(batch_norm, context)
    engine = SuperPointEngine(network, CPU)
    batch, height, width = size
    images = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits, descriptors = network(images)
        probability = keypoint_probability(logits)
    for _ in range(2):  # the second time in memory that is already there
        maps = engine.maps(images)
        assert (maps[0] - probability).abs().max() < 1e-5
        assert (maps[1] - descriptors).abs().max() < 1e-5


def test_images_of_changing_size():
    network = random_network(True)
    engine = SuperPointEngine(network, CPU)
    for size in [(64, 40), (32, 80), (64, 40)]:
        image = torch.rand(1, 1, *size)
        with torch.inference_mode():
            expected = network(image)
        assert torch.allclose(engine.maps(image)[0], keypoint_probability(expected[0]), atol=1e-5)


def test_negative_batch_norm_scale_before_pooling():
    network = random_network(True)
    network.backbone[0][1].bn.weight.data[:2] *= -1
    image = torch.rand(1, 1, 32, 24)
    with torch.inference_mode():
        expected = network(image)
    assert torch.allclose(
        SuperPointEngine(network, CPU).maps(image)[0], keypoint_probability(expected[0]), atol=1e-5
    )


def test_bfloat16_is_near():
    network = random_network(False)
    image = torch.rand(1, 1, 32, 24)
    with torch.inference_mode():
        logits, descriptors = network(image)
        probability = keypoint_probability(logits)
    maps = SuperPointEngine(network, CPU, torch.bfloat16).maps(image)
    assert maps[0].dtype == maps[1].dtype == torch.float32
    assert (maps[0] - probability).abs().max() < 0.05 * probability.max()
    assert (maps[1] * descriptors).sum(1).min() > 0.99


@pytest.mark.parametrize("radius", [1, 2, 3, 4, 7])
def test_suppression_keeps_the_maxima_of_every_square(radius):
    scores = torch.rand(2, 30, 41, generator=torch.Generator().manual_seed(radius))

    def pool(x):
        return F.max_pool2d(x, 2 * radius + 1, 1, radius)

    kept = non_maximum_suppression(scores, radius)
    assert torch.equal(kept[kept > 0], scores[kept > 0])
    assert ((scores == pool(scores)) <= (kept > 0)).all(), "every maximum stays"
    near = pool((kept > 0).float()) > 0
    assert near[:, radius:-radius, radius:-radius].float().mean() > 0.95
    positions = (kept[0] > 0).nonzero().float()
    apart = torch.cdist(positions, positions, p=torch.inf) + 99 * torch.eye(len(positions))
    assert apart.min() > radius
