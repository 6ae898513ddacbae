"""Cached features are those of the network, with random keypoints where too few were found."""

from __future__ import annotations

import numpy as np
import torch

from superglue_ros.engines.superpoint import SuperPointEngine
from superglue_ros.networks.superpoint import (
    keypoint_probability,
    non_maximum_suppression,
    sample_descriptors,
    select_keypoints,
)
from superglue_ros.networks.weights import load_superpoint
from superglue_ros.training.data.view_features import superpoint_features


def corners() -> np.ndarray:
    """A noisy chessboard of 96x128 pixels."""
    y, x = np.mgrid[:96, :128]
    board = 60.0 + 120 * ((x // 16 + y // 16) % 2)
    return np.clip(board + np.random.default_rng(0).normal(0, 4, board.shape), 0, 255).astype(
        np.uint8
    )


def test_extract_equals_the_network():
    network, image = load_superpoint("").network, corners()
    with torch.inference_mode():
        logits, descriptors = network(torch.from_numpy(image)[None, None] / 255)
        heat = non_maximum_suppression(keypoint_probability(logits), 4)
        keypoints, scores = select_keypoints(heat[0], 40, 5e-4, 4)
        expected = sample_descriptors(keypoints[None], descriptors, True)[0]
    engine = SuperPointEngine(network, torch.device("cpu"))
    found = superpoint_features(engine, [image, image[::-1].copy()], 40)[0]
    assert len(keypoints) > 20
    assert torch.equal(found.keypoints, keypoints)
    assert torch.allclose(found.scores, scores, atol=1e-5)
    assert torch.allclose(found.descriptors, expected, atol=1e-4)


def test_random_keypoints_fill_up():
    image = corners()
    rng = np.random.default_rng(3)
    engine = SuperPointEngine(load_superpoint("").network, torch.device("cpu"))
    found = superpoint_features(engine, [image], 400, rng)[0]
    assert found.keypoints.shape == (400, 2)
    assert found.descriptors.shape == (400, 256)
    added = found.keypoints[found.scores == 0]
    assert 0 < len(added) < 400
    assert (added >= 4).all()
    assert (added < torch.tensor([124, 92])).all()
    assert torch.allclose(found.descriptors.norm(dim=1), torch.ones(400), atol=1e-4)
