"""What the motion of the whole image says of matches, on scenes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.geometry.global_motion import GlobalMotion, global_motion

FOCAL_PX = 500.0
CENTRE_PX = np.array([320.0, 240.0])
ALL = np.arange(120)


def seen(points: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Pixels of a camera at ``position``, turned by 0.1 radians about its vertical axis."""
    cos, sin = np.cos(0.1), np.sin(0.1)
    rotated = (points - position) @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    return FOCAL_PX * rotated[:, :2] / rotated[:, 2:] + CENTRE_PX


def matches(depths: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """120 matches of points between two depths [m], the camera moving by a metre, half a px off."""
    random = np.random.default_rng(0)
    points = random.uniform([-4, -3, depths[0]], [4, 3, depths[1]], (120, 3))
    pixels = (FOCAL_PX * points[:, :2] / points[:, 2:]) + CENTRE_PX
    there = seen(points, np.array([1.0, 0.2, 0.1]))
    return pixels, there + random.normal(0, 0.5, there.shape)


def judged(points: np.ndarray, there: np.ndarray, likely: np.ndarray = ALL) -> GlobalMotion:
    found = global_motion(points, there, likely)
    assert found is not None
    return found


def test_matches_of_a_scene_in_depth_lie_on_epipolar_lines():
    points, there = matches((6.0, 14.0))
    wrong = ALL % 4 == 0
    there[wrong] = np.random.default_rng(1).permutation(there[wrong])
    found = judged(points, there)
    assert found.epipolar[~wrong].min() > 0.7
    assert np.median(found.epipolar[wrong]) < 0.05
    assert found.flatness < 0.05


def test_matches_of_a_plane_are_in_one_place():
    points, there = matches((8.0, 8.0))
    there[7] += [9, 0]  # along the epipolar lines, nearly: only the plane tells
    found = judged(points, there)
    assert found.flatness > 0.9
    assert found.planar[7] < 0.05
    assert np.delete(found.planar, 7).min() > 0.8


def test_a_wall_with_things_before_it_is_less_flat():
    wall, there = matches((8.0, 8.0))
    near, near_there = matches((3.0, 6.0))
    part = ALL % 6 == 0
    wall[part], there[part] = near[part], near_there[part]
    found = judged(wall, there)
    assert 0.1 < found.flatness < 0.6
    assert found.planar[~part].min() > 0.8
    assert np.median(found.planar[part]) < 0.05
    assert found.epipolar.min() > 0.7


def test_what_is_not_likely_is_judged_but_has_no_say():
    points, there = matches((6.0, 14.0))
    likely = ALL[ALL % 5 > 1]
    expected = judged(points, there, likely)
    unlikely = np.setdiff1d(ALL, likely)
    there[unlikely] = np.random.default_rng(2).uniform([0, 0], [640, 480], (len(unlikely), 2))
    found = judged(points, there, likely)
    np.testing.assert_array_equal(found.epipolar[likely], expected.epipolar[likely])
    assert expected.epipolar[unlikely].min() > 0.7
    assert np.median(found.epipolar[unlikely]) < 0.05


def test_only_the_order_of_the_likely_ones_matters():
    points, there = matches((6.0, 14.0))
    order = np.random.default_rng(3).permutation(len(points))
    found = judged(points, there)
    shuffled = judged(points[order], there[order], np.argsort(order))
    np.testing.assert_array_equal(shuffled.epipolar, found.epipolar[order])
    np.testing.assert_array_equal(shuffled.planar, found.planar[order])
    assert shuffled.flatness == found.flatness


def test_swapping_the_images_changes_nothing():
    points, there = matches((6.0, 14.0))
    found, swapped = judged(points, there), judged(there, points)
    np.testing.assert_allclose(swapped.epipolar, found.epipolar, rtol=1e-9)
    np.testing.assert_allclose(swapped.planar, found.planar, rtol=1e-9)
    assert swapped.flatness == found.flatness


def test_no_motion_that_all_follow():
    points, there = matches((6.0, 14.0))
    assert global_motion(points, there, ALL[:15]) is None
    scattered = np.random.default_rng(4).uniform([0, 0], [640, 480], there.shape)
    assert global_motion(points, scattered, ALL) is None
    assert global_motion(points[:0], there[:0], ALL[:0]) is None


@pytest.mark.parametrize("scene", ["one place", "one line", "at rest"])
def test_degenerate_matches_have_finite_evidence(scene):
    points, there = matches((8.0, 8.0))
    if scene == "one place":
        points, there = np.full_like(points, 50.0), np.full_like(there, 60.0)
    elif scene == "one line":
        points[:, 1] = there[:, 1] = 100.0
    else:
        there = points.copy()
    found = global_motion(points, there, ALL)
    if found is not None:
        assert np.isfinite(found.epipolar).all()
        assert np.isfinite(found.planar).all()
        assert 0 <= found.flatness <= 1
