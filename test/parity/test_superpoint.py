"""SuperPoint gives what the public implementation in ``transformers`` gives, same weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from superglue_ros.networks.superpoint import (
    keypoint_probability,
    non_maximum_suppression,
    sample_descriptors,
    select_keypoints,
)
from superglue_ros.networks.weights import load_superpoint

from .reference import original_superpoint_state, random_superpoint

SMALL = {
    "encoder_hidden_sizes": [8, 8, 16, 16],
    "decoder_hidden_size": 16,
    "descriptor_decoder_dim": 32,
    "border_removal_distance": 0,
}


# Their border removal takes the score map for a cell map and leaves the right and lower border,
# so the comparison is made without one.
def ours(network, image: torch.Tensor, max_keypoints: int):
    with torch.inference_mode():
        logits, dense = network(image)
        scores = non_maximum_suppression(keypoint_probability(logits), 4)
        keypoints, values = select_keypoints(scores[0], max_keypoints, threshold=0.005, border=0)
        exact = network.config.exact_sampling
        return keypoints, values, sample_descriptors(keypoints[None], dense, exact)[0]


@pytest.mark.parametrize("layout", ["transformers", "original"])
@pytest.mark.parametrize("max_keypoints", [-1, 50])
def test_keypoints_scores_and_descriptors(tmp_path, layout, max_keypoints):
    reference = random_superpoint(seed=3, max_keypoints=max_keypoints, **SMALL)
    state = reference.state_dict()
    torch.save(
        original_superpoint_state(state) if layout == "original" else state, tmp_path / "p.pth"
    )
    loaded = load_superpoint(tmp_path / "p.pth")
    assert loaded.kind == "superpoint-original"
    compare(reference, loaded.network, (96, 136), max_keypoints)


def test_full_size(tmp_path):
    reference = random_superpoint(seed=4, max_keypoints=512, border_removal_distance=0)
    torch.save(reference.state_dict(), tmp_path / "p.pth")
    compare(reference, load_superpoint(tmp_path / "p.pth").network, (240, 320), 512)


def compare(reference, network, size: tuple[int, int], max_keypoints: int) -> None:
    height, width = size
    image = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = reference(image.expand(-1, 3, -1, -1))
    keypoints, scores, descriptors = ours(
        network, image, max_keypoints if max_keypoints >= 0 else 10**6
    )
    pixels = expected.keypoints[0] * torch.tensor([width, height])
    # Keypoints are a set: sort both by position.
    theirs_order = (pixels[:, 1].round() * width + pixels[:, 0].round()).argsort()
    ours_order = (keypoints[:, 1] * width + keypoints[:, 0]).argsort()
    assert len(keypoints) > 40
    assert torch.equal(keypoints[ours_order], pixels[theirs_order].round())
    assert torch.allclose(scores[ours_order], expected.scores[0][theirs_order], atol=1e-5)
    difference = descriptors[ours_order] - expected.descriptors[0][theirs_order]
    assert difference.abs().max() < 1e-4
