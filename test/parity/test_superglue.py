"""SuperGlue gives what the public implementation in ``transformers`` gives, same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from superglue_ros.networks.superglue import SuperGlue
from superglue_ros.networks.weights import load_superglue, load_superpoint

from .reference import (
    original_superglue_state,
    random_features,
    random_superglue,
    reference_assignment,
)

SMALL = {"hidden_size": 32, "keypoint_encoder_sizes": [8, 16, 32], "layers": 2}
SIZE = torch.tensor([[640.0, 480.0]])


def loaded(reference, path, layout: str = "transformers") -> SuperGlue:
    state = original_superglue_state(reference) if layout == "original" else reference.state_dict()
    torch.save(state, path)
    return load_superglue(path).network


def assign(network: SuperGlue, features, **options) -> torch.Tensor:
    size = SIZE.expand(len(features["scores0"]), -1)
    with torch.inference_mode():
        return network(**features, size0=size, size1=size, **options)


def probability_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.exp() - b.exp()).abs().max())


@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_assignment(tmp_path, layout):
    reference = random_superglue(seed=1, **SMALL)
    features = random_features(60, 60, 32)
    result = assign(loaded(reference, tmp_path / "g.pth", layout), features)
    expected = reference_assignment(reference, features)
    assert (expected[:, :-1, :-1].exp() > 0.2).sum() > 15
    assert (result - expected).abs().max() < 1e-4


def test_unequal_counts_alone_and_in_a_padded_batch(tmp_path):
    reference = random_superglue(seed=2, **SMALL)
    network = loaded(reference, tmp_path / "g.pth")
    counts = [(60, 41), (23, 60), (1, 37)]
    pairs = [random_features(m, n, 32, seed=i) for i, (m, n) in enumerate(counts)]
    padded, mask0, mask1 = padded_batch(pairs, counts, 60)

    # transformers lets padding take part in the marginals. That changes Sinkhorn's way, not where
    # it converges to: enough iterations, then.
    reference.config.sinkhorn_iterations = 500
    batch = assign(network, padded, mask0=mask0, mask1=mask1, iterations=500)
    expected = reference_assignment(reference, padded, (mask0, mask1))

    for i, (m, n) in enumerate(counts):
        alone = assign(network, pairs[i], iterations=500)[0]
        assert probability_difference(batch[i, :m, :n], expected[i, :m, :n]) < 1e-4
        assert probability_difference(batch[i, :m, :n], alone[:m, :n]) < 1e-5
        assert probability_difference(batch[i, -1, :n], alone[-1, :n]) < 1e-5
        assert bool((batch[i, m:-1] == -torch.inf).all())


def padded_batch(pairs, counts, length):
    padded = {}
    for name in pairs[0]:
        rows = [p[name] for p in pairs]
        padded[name] = torch.cat(
            [F.pad(r, (0, 0) * (r.dim() - 2) + (0, length - r.shape[1])) for r in rows]
        )
    position = torch.arange(length)
    mask0 = torch.stack([position < m for m, _ in counts])
    mask1 = torch.stack([position < n for _, n in counts])
    return padded, mask0, mask1


def test_full_size(tmp_path):
    reference = random_superglue(seed=5)
    network = loaded(reference, tmp_path / "g.pth")
    # The parameters of the paper's network (design.md), dustbin included.
    assert sum(p.numel() for p in network.parameters()) == 12_023_297
    features = random_features(200, 200, 256)
    difference = assign(network, features) - reference_assignment(reference, features)
    assert difference.abs().max() < 1e-4


def test_the_bundled_superpoint_of_a_transformers_file_loads_too(tmp_path):
    reference = random_superglue(seed=6, **SMALL)
    torch.save(reference.state_dict(), tmp_path / "both.pth")
    point = load_superpoint(tmp_path / "both.pth").network
    weight = reference.keypoint_detector.encoder.conv_blocks[0].conv_a.weight
    assert torch.equal(point.backbone[0][0].conv.weight, weight)
