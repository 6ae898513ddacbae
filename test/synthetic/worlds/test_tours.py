"""Tours: free poses in small steps, and the same way a second time."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.errors import DataError
from superglue_ros.synthetic.worlds.cameras import CLEARANCE_M
from superglue_ros.synthetic.worlds.tours import TourConfig, tour


def test_a_tour_goes_there_back_and_there_again(world):
    config = TourConfig(length_m=4.0, step_m=0.4, turn_deg=15.0)
    poses = np.array(tour(np.random.default_rng(1), world.space, config))
    centres, views = poses[:, :3, 3], poses[:, :3, 2]
    assert all(world.space.is_free(centre, CLEARANCE_M) for centre in centres)
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.max() < config.step_m + 2 * config.aside_m
    turns = np.degrees(np.arccos(np.clip((views[1:] * views[:-1]).sum(1), -1, 1)))
    assert turns.max() <= config.turn_deg + 1e-6
    np.testing.assert_allclose(views[:, 2], 0, atol=1e-9)  # held level
    # The start is seen once more, after the way back.
    near = np.linalg.norm(centres - centres[0], axis=1) < 0.5
    same = near & (views @ views[0] > np.cos(np.radians(30)))
    assert same[0]
    assert same[len(poses) // 2 :].any()


def test_a_world_too_small_for_the_way_is_refused(world):
    with pytest.raises(DataError, match="no way of 1000 m"):
        tour(np.random.default_rng(0), world.space, TourConfig(length_m=1000.0))
