"""The benchmark measures what it says, on small inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superglue_ros.bench import measure
from superglue_ros.bench.memory import random_features
from superglue_ros.bench.peers import (
    TransformersSuperGlue,
    TransformersSuperPoint,
    plain_superpoint,
)
from superglue_ros.networks.superglue import SuperGlue, SuperGlueConfig


def small_network() -> SuperGlue:
    torch.manual_seed(0)
    network = SuperGlue(SuperGlueConfig(256, 256, 1, 4, (16,))).eval()
    network.final.weight.data.copy_(14 * torch.eye(256))
    return network.requires_grad_(False)


def test_engine_and_network_agree():
    frames = [random_features(40, seed) for seed in (0, 0, 1)]
    rows = measure.agreement_rows(small_network(), "random", frames)
    assert [row.same_indices for row in rows] == [True, True]
    assert rows[0].matches > 20
    assert max(row.score_difference for row in rows) < 1e-4


def test_peer_holds_our_weights():
    pytest.importorskip("transformers")
    network = small_network()
    reference, query = random_features(40, 0), random_features(40, 0)
    indices, scores = TransformersSuperGlue(network).match(reference, query)
    same, difference = measure.compare(
        measure.reference_match(network, reference, query), indices, scores
    )
    assert same
    assert difference < 1e-4


def test_peer_superpoint_finds_our_keypoints():
    pytest.importorskip("transformers")
    image = torch.rand(1, 1, 64, 80, generator=torch.Generator().manual_seed(0))
    network = plain_superpoint()
    found = TransformersSuperPoint(network, 1000).extract(image)
    assert found.descriptors.shape[2] == 256
    assert np.isfinite(found.descriptors.numpy()).all()


def test_memory_is_that_of_a_fresh_process():
    before = measure.peak_memory_mib(64, "none")
    assert before is not None
    assert 100 < before < 3000
    assert measure.peak_memory_mib(64, "nobody") is None
