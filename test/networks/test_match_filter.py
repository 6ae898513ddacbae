"""Filters of matches: the models that weights give, and what the network may depend on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superglue_ros.errors import ConfigError
from superglue_ros.networks.match_filter import (
    MatchFilter,
    MatchFilterConfig,
    match_weights,
    normalised_matches,
)
from superglue_ros.networks.model_fits import (
    epipolar_distance,
    transfer_distance,
    weighted_fundamental,
    weighted_homography,
)

SMALL = {
    "pointcn": MatchFilterConfig(width=8, blocks=2),
    "oanet": MatchFilterConfig(width=8, blocks=2, clusters=5, cluster_blocks=1, stages=2),
}


def scene(count: int, wrong: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Matches (1, N, 4) of a moved camera of focal length 1, the first ``wrong`` at random; E."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([-1, -1, 2], [1, 1, 5], (count, 3))
    angle = 0.1
    rotation = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    t = np.array([0.4, 0.1, 0.05])
    moved = points @ rotation.T + t
    matches = np.hstack([points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]])
    matches[:wrong, 2:] = rng.uniform(-0.5, 0.5, (wrong, 2))
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ rotation
    return torch.from_numpy(matches)[None], torch.from_numpy(essential / np.linalg.norm(essential))


def test_weights_choose_the_matches_that_the_fundamental_matrix_fits():
    matches, essential = scene(40, wrong=15)
    weights = torch.ones(1, 40)
    weights[:, :15] = 0
    found = weighted_fundamental(matches, weights)[0]
    assert torch.minimum((found - essential).norm(), (found + essential).norm()) < 1e-4
    distance = epipolar_distance(matches, found[None])[0]
    assert distance[15:].max() < 1e-4
    assert distance[:15].median() > 0.02
    # By hand: both distances of one point, to the lines E x0 and E' x1.
    x0, x1 = (torch.cat([m, torch.ones(1)]) for m in (matches[0, 0, :2], matches[0, 0, 2:]))
    squares = [((x1 @ found @ x0) / line[:2].norm()) ** 2 for line in (found @ x0, found.T @ x1)]
    assert distance[0] == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-6)


def test_a_homography_is_found_by_its_matches_and_its_gradient_is_finite():
    rng = np.random.default_rng(1)
    truth = torch.tensor([[1.1, 0.1, 0.05], [-0.2, 0.9, 0.1], [0.05, -0.1, 1.0]]).double()
    points = torch.from_numpy(np.c_[rng.uniform(-1, 1, (30, 2)), np.ones(30)])
    there = points @ truth.T
    matches = torch.cat([points[:, :2], there[:, :2] / there[:, 2:]], 1)[None]
    matches[0, :6, 2:] += 0.3
    weights = torch.ones(1, 30)
    weights[:, :6] = 0
    weights.requires_grad_()
    found = weighted_homography(matches, weights)
    distance = transfer_distance(matches, found)[0]
    assert distance[6:].max() < 1e-5
    assert torch.allclose(distance[:6], torch.tensor(0.3 * 2**0.5).double(), atol=1e-4)
    distance.sum().backward()
    assert torch.isfinite(weights.grad).all()
    assert weights.grad[:, :6].abs().max() > 0


@pytest.mark.parametrize("name", SMALL)
def test_the_order_of_the_matches_does_not_matter_but_their_company_does(name):
    torch.manual_seed(0)
    network = MatchFilter(SMALL[name]).eval()
    matches = scene(30, wrong=10)[0].float()
    logits = network(matches)
    assert logits.shape == (1, SMALL[name].stages, 30)
    order = torch.randperm(30)
    torch.testing.assert_close(network(matches[:, order]), logits[:, :, order], atol=1e-4, rtol=0)
    both = network(torch.cat([matches, matches.flip(1)]))
    torch.testing.assert_close(both[:1], logits, atol=1e-4, rtol=0)
    assert (network(matches[:, :15]) - logits[:, :, :15]).abs().max() > 1e-3
    assert network(matches[:, :1]).isfinite().all()


def test_the_second_stage_reads_the_weights_of_the_first():
    torch.manual_seed(0)
    network = MatchFilter(SMALL["oanet"]).eval()
    matches = scene(30, wrong=10)[0].float()
    before = network(matches)
    with torch.no_grad():
        network.parts[0].leave.bias += 5.0  # every match counts in the model now
    after = network(matches)
    torch.testing.assert_close(after[:, 0], before[:, 0] + 5)
    assert (after[:, 1] - before[:, 1]).abs().max() > 1e-4


def test_normalised_matches_and_weights_by_hand():
    pixels = torch.tensor([[0.0, 0.0], [99.0, 49.0], [49.5, 24.5]])
    size = torch.tensor([100, 50])
    found = normalised_matches(pixels, pixels + 1, size, torch.tensor([200, 50]))
    expected = [[-0.99, -0.49], [0.99, 0.49], [0, 0]]
    torch.testing.assert_close(found[:, :2], torch.tensor(expected))
    torch.testing.assert_close(found[2, 2:], torch.tensor([(50.5 - 99.5) / 100, 0.01]))
    weights = match_weights(torch.tensor([-1.0, 0.0, 0.5]))
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, np.tanh(0.5)], dtype=torch.float32))


def test_architectures_without_layers_are_refused():
    with pytest.raises(ConfigError, match="needs width, stages and blocks"):
        MatchFilterConfig(blocks=0)
    with pytest.raises(ConfigError, match="OANet: 2"):
        MatchFilterConfig(blocks=1, clusters=8)
