from __future__ import annotations

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError
from superglue_ros.evaluation.reports.attention import (
    LayerAttention,
    attention,
    chosen_keypoints,
    draw_rays,
    mean_spans,
    spans,
)
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig
from superglue_ros.types import Correspondences, Features

CONFIG = SuperGlueConfig(
    descriptor_dim=16, width=16, layers=2, heads=2, keypoint_encoder=(8,)
)  # fmt: skip


def features(count: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.standard_normal((count, 16)).astype(np.float32)
    points = rng.uniform(0, [79, 59], (count, 2)).astype(np.float32)
    return Features(points, rng.random(count).astype(np.float32), 80, 60, "test", descriptors)


@pytest.fixture
def network() -> SuperGlue:
    torch.manual_seed(0)
    return SuperGlue(CONFIG).eval()


def test_weights_are_those_that_the_network_uses(network):
    one, two = features(9, 0), features(6, 1)
    layers = list(attention(network, one, two))
    assert [layer.cross for layer in layers] == [False, True, False, True]
    assert layers[0].weights0.shape == (2, 9, 9)
    assert layers[0].weights1.shape == (2, 6, 6)
    assert layers[1].weights0.shape == (2, 9, 6)
    assert layers[1].weights1.shape == (2, 6, 9)
    for layer in layers:
        for weights in (layer.weights0, layer.weights1):
            np.testing.assert_allclose(weights.sum(axis=2), 1, atol=1e-5)
    # Rebuild the first layer's message from the weights, and with it the layer's output.
    first = network.gnn[0]
    with torch.no_grad():
        x = network.encode(*_tensors(one))
        _, _, value = first.project(x)
        message = torch.from_numpy(layers[0].weights0)[None] @ value
        message = first.merge(message.transpose(1, 2).flatten(2))
        rebuilt = x + first.mlp(torch.cat([x, message], dim=-1))
        torch.testing.assert_close(rebuilt, first(x, cross=False), atol=1e-5, rtol=1e-5)


def _tensors(f: Features) -> tuple[torch.Tensor, ...]:
    size = torch.tensor([[f.width, f.height]], dtype=torch.float32)
    arrays = (f.keypoints, f.scores, f.descriptors)
    return (*(torch.from_numpy(a)[None] for a in arrays), size)


def test_span_of_uniform_attention_is_the_mean_distance(network):
    for layer in network.gnn:
        torch.nn.init.zeros_(layer.qkv.weight[:16])
        torch.nn.init.zeros_(layer.qkv.bias[:16])
    one, two = features(7, 0), features(5, 1)
    matches = Correspondences(
        np.array([2, 4], np.int32), np.array([0, 3], np.int32), np.array([0.9, 0.5], np.float32)
    )
    found = spans(network, one, two, matches)

    def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.linalg.norm(a[:, None] - b[None], axis=2).mean())

    p, q = one.keypoints, two.keypoints
    np.testing.assert_allclose(
        found["self"], (mean_distance(p, p) + mean_distance(q, q)) / 2, rtol=1e-5
    )
    np.testing.assert_allclose(
        found["cross"], (mean_distance(q[[0, 3]], q) + mean_distance(p[[2, 4]], p)) / 2, rtol=1e-5
    )
    assert np.isnan(spans(network, one, two, Correspondences.empty())["cross"]).all()
    mean, half = mean_spans([found, found])["self"]
    np.testing.assert_allclose(mean, found["self"])
    np.testing.assert_allclose(half, 0, atol=1e-6)


def test_rays_show_every_layer_and_head(network):
    one, two = features(9, 0), features(6, 1)
    images = np.full((60, 80), 90, np.uint8), np.full((60, 80), 90, np.uint8)
    layers = list(attention(network, one, two))
    matches = Correspondences(
        np.array([5, 1, 3], np.int32), np.array([0, 1, 2], np.int32), np.ones(3, np.float32)
    )
    assert chosen_keypoints(matches) == [5, 1, 3]
    assert chosen_keypoints(Correspondences.empty()) == []
    picture = draw_rays(*images, one, two, layers[:1], [5, 1, 3], scale=1.0)
    assert picture.shape == (64, 2 * 84, 3)
    cross = draw_rays(*images, one, two, [layers[1]], [5], scale=1.0)
    assert cross.shape[1] == 2 * (84 + 84)
    colours = picture.reshape(-1, 3).max(axis=1) - picture.reshape(-1, 3).min(axis=1)
    assert (colours > 100).sum() > 100


def test_a_ray_is_as_opaque_as_its_weight_over_the_largest():
    points = np.array([[10, 30], [70, 30], [10, 55], [70, 55]], np.float32)
    one = Features(points, np.ones(4, np.float32), 80, 60, "test")
    weights = np.array([[[0.0, 0.8, 0.4, 0.01]] * 4], np.float32)
    grey = np.full((60, 80), 128, np.uint8)
    layer = LayerAttention(index=0, cross=False, weights0=weights, weights1=weights)
    picture = draw_rays(grey, grey, one, one, [layer], [0], scale=1.0)
    # Along the strongest the colour itself, save for smooth edges; along the other half of it.
    np.testing.assert_allclose(picture[30, 45], [60, 220, 60], atol=9)
    np.testing.assert_allclose(picture[45, 10], [94, 174, 94], atol=9)
    assert picture[48, 55].tolist() == [128, 128, 128]  # an eightieth is not drawn


def test_a_network_without_layers_has_no_attention():
    network = SuperGlue(SuperGlueConfig(descriptor_dim=16, width=16, graph=False))
    with pytest.raises(ConfigError, match="no attention layers"):
        next(attention(network, features(3, 0), features(3, 1)))
