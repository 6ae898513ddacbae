"""Sub-pixel keypoints lie where the detector's probability is centred."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from superglue_ros.config import Config
from superglue_ros.frontends.base import make_front_end
from superglue_ros.networks.superpoint import refine_keypoints


def bumps(centres: list[tuple[float, float]], width: int = 64, height: int = 48) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return sum(torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * 0.7**2)) for cx, cy in centres)


def test_the_centre_of_a_bump_is_found_between_pixels():
    centres = [(20.3, 14.7), (40.0, 30.0), (51.4, 9.6)]
    whole = torch.tensor(centres).round()
    refined = refine_keypoints(bumps(centres), whole)
    torch.testing.assert_close(refined, torch.tensor(centres), atol=0.03, rtol=0)


@pytest.mark.parametrize("corner", [(0, 0), (63, 47)])
def test_a_corner_of_the_image_is_no_error(corner):
    pixel = torch.tensor([corner], dtype=torch.float32)
    refined = refine_keypoints(bumps([corner]), pixel)
    assert (refined - pixel).abs().max() < 0.6
    assert not refine_keypoints(torch.zeros(48, 64), pixel).isnan().any()


def test_no_keypoints_and_no_radius_change_nothing():
    none, pixels = torch.empty(0, 2), torch.tensor([[3.0, 4.0], [10.0, 7.0]])
    assert refine_keypoints(torch.rand(48, 64), none).shape == (0, 2)
    assert torch.equal(refine_keypoints(torch.rand(48, 64), pixels, radius=0), pixels)


def test_the_setting_moves_keypoints_by_less_than_the_radius():
    generator = np.random.default_rng(0)
    image = np.kron(generator.integers(0, 256, (12, 16)), np.ones((10, 10))).astype(np.uint8)
    config = Config()
    front_end = make_front_end(config, torch.device("cpu"))
    refined = front_end.extract(image)
    front_end.configure(replace(config.front_end, subpixel=False))
    whole = front_end.extract(image)
    assert len(refined) == len(whole) > 20
    assert np.array_equal(whole.keypoints, np.rint(whole.keypoints))
    shift = np.abs(refined.keypoints - whole.keypoints)
    assert shift.max() <= 2
    assert 0 < np.median(shift) < 0.5
    assert np.array_equal(refined.scores, whole.scores)
