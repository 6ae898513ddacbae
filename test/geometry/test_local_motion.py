"""What neighbours say of matches, on motions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.geometry.local_motion import NEIGHBOURS, LocalMotion, local_motion

TURN = 1.2 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])


@pytest.fixture
def matches() -> tuple[np.ndarray, np.ndarray]:
    """120 matches of a plane that turns, grows and is seen from the side."""
    points = np.random.default_rng(0).uniform([0, 0], [640, 480], (120, 2))
    there = points @ TURN.T + [30, -20]
    return points, there / (1 + 2e-4 * points[:, :1])


def judged(points: np.ndarray, there: np.ndarray, credible: float = 1.0) -> LocalMotion:
    return local_motion(points, there, np.full(len(points), credible))


def test_matches_of_one_surface_support_each_other(matches):
    found = judged(*matches)
    assert found.support.min() > 0.8 * 2 * NEIGHBOURS
    assert np.median(found.misfit) < 0.5  # the scale changes within a neighbourhood
    half = judged(*matches, credible=0.5)
    np.testing.assert_allclose(half.support, found.support / 2, rtol=0.02)


def test_a_gross_error_has_no_support(matches):
    points, there = matches
    there[7] += [180, 90]
    found = judged(points, there)
    assert found.support[7] < 3
    assert np.delete(found.support, 7).min() > 0.6 * 2 * NEIGHBOURS


def test_a_near_miss_does_not_fit(matches):
    """Ten pixels are five times the noise, in both images: twice log(1 + 5^2), scale apart."""
    points, there = matches
    there[7] += [6, 8]
    found = judged(points, there)
    assert found.support[7] > 10
    assert found.misfit[7] == pytest.approx(2 * np.log1p(25), rel=0.15)
    assert np.delete(found.misfit, 7).max() < 0.5 * found.misfit[7]


def test_two_motions_beside_each_other_both_have_support(matches):
    points, there = matches
    near = points[:, 0] < 250  # in front of the rest: moves three times as far
    there[near] += [90, 0]
    support = judged(points, there).support
    for part in (near, ~near):
        assert np.median(support[part]) > 0.85 * 2 * NEIGHBOURS


def test_incredible_neighbours_have_no_say(matches):
    points, there = matches
    credible = np.zeros(len(points))
    credible[3] = 1.0
    found = local_motion(points, there, credible)
    assert found.support[3] == 0
    assert found.support.max() <= 2
    others = np.arange(len(points)) != 3
    assert (found.support[others] > 0.5).any()


def test_rivals_for_a_keypoint_say_nothing_of_each_other():
    points, there = np.array([[50.0, 50.0]] * 2), np.array([[60.0, 60.0], [200.0, 90.0]])
    np.testing.assert_array_equal(judged(points, points).support, 0)
    there_again = judged(points, there).support  # in the second image they are neighbours
    np.testing.assert_allclose(there_again, 0, atol=0.1)


def test_order_and_direction_do_not_matter(matches):
    points, there = matches
    there[::9] += np.random.default_rng(1).uniform(-80, 80, there[::9].shape)
    credible = np.random.default_rng(2).uniform(0.1, 1, len(points))
    found = local_motion(points, there, credible)
    order = np.random.default_rng(3).permutation(len(points))
    shuffled = local_motion(points[order], there[order], credible[order])
    swapped = local_motion(there, points, credible)
    for name in ("support", "misfit"):
        value = getattr(found, name)
        np.testing.assert_allclose(getattr(shuffled, name), value[order], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(getattr(swapped, name), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_few_matches(matches, count):
    found = judged(*(one[:count] for one in matches))
    assert found.support.shape == found.misfit.shape == (count,)
    assert (found.support <= 2 * max(count - 1, 0)).all()
    assert np.isfinite(found.misfit).all()
    if count > 1:
        assert found.support.min() > 0
