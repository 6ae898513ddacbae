"""What the motion of the whole image says of matches, on scenes that are known."""

from __future__ import annotations

import numpy as np
import pytest

from superglue_ros.geometry.camera import camera_from_info
from superglue_ros.geometry.global_motion import GlobalMotion, global_motion

PINHOLE = camera_from_info(640, 480, [500.0, 0, 320, 0, 500, 240, 0, 0, 1], [0.0] * 5)
ALL = np.arange(120)


@pytest.fixture
def views(scene):
    """120 matches of cameras without distortion, half a px off, all right if not said."""

    def make(planar: bool = False, outliers: float = 0.0):
        return scene(
            count=len(ALL),
            planar=planar,
            outliers=outliers,
            noise=0.35,  # of either image
            camera_ref=PINHOLE,
            camera_query=PINHOLE,
        )

    return make


def judged(points: np.ndarray, there: np.ndarray, likely: np.ndarray = ALL) -> GlobalMotion:
    found = global_motion(points, there, likely)
    assert found is not None
    return found


def test_matches_of_a_scene_in_depth_lie_on_epipolar_lines(views):
    seen = views(outliers=0.25)
    found = judged(seen.ref, seen.query)
    assert found.epipolar[seen.right].min() > 0.7
    assert np.median(found.epipolar[~seen.right]) < 0.05
    assert found.flatness < 0.05


def test_matches_of_a_plane_are_in_one_place(views):
    seen = views(planar=True)
    points, there = seen.ref, seen.query
    there[7] += [9, 0]  # along the epipolar lines, nearly: only the plane tells
    found = judged(points, there)
    assert found.flatness > 0.9
    assert found.planar[7] < 0.05
    assert np.delete(found.planar, 7).min() > 0.8


def test_a_wall_with_things_before_it_is_less_flat(views):
    wall, things = views(planar=True), views()
    part = ALL % 6 == 0
    chosen = part[:, None]
    found = judged(
        np.where(chosen, things.ref, wall.ref), np.where(chosen, things.query, wall.query)
    )
    assert 0.1 < found.flatness < 0.6
    assert found.planar[~part].min() > 0.8
    assert np.median(found.planar[part]) < 0.05
    assert found.epipolar.min() > 0.7


def test_what_is_not_likely_is_judged_but_has_no_say(views):
    seen = views()
    points, there = seen.ref, seen.query
    likely = ALL[ALL % 5 > 1]
    expected = judged(points, there, likely)
    unlikely = np.setdiff1d(ALL, likely)
    there[unlikely] = np.random.default_rng(2).uniform([0, 0], [640, 480], (len(unlikely), 2))
    found = judged(points, there, likely)
    np.testing.assert_array_equal(found.epipolar[likely], expected.epipolar[likely])
    assert expected.epipolar[unlikely].min() > 0.7
    assert np.median(found.epipolar[unlikely]) < 0.05


def test_only_the_order_of_the_likely_ones_matters(views):
    seen = views()
    points, there = seen.ref, seen.query
    order = np.random.default_rng(3).permutation(len(points))
    found = judged(points, there)
    shuffled = judged(points[order], there[order], np.argsort(order))
    np.testing.assert_array_equal(shuffled.epipolar, found.epipolar[order])
    np.testing.assert_array_equal(shuffled.planar, found.planar[order])
    assert shuffled.flatness == found.flatness


def test_swapping_the_images_changes_nothing(views):
    seen = views()
    points, there = seen.ref, seen.query
    found, swapped = judged(points, there), judged(there, points)
    np.testing.assert_allclose(swapped.epipolar, found.epipolar, rtol=1e-9)
    np.testing.assert_allclose(swapped.planar, found.planar, rtol=1e-9)
    assert swapped.flatness == found.flatness


def test_no_motion_that_all_follow(views):
    seen = views()
    points, there = seen.ref, seen.query
    assert global_motion(points, there, ALL[:15]) is None
    scattered = np.random.default_rng(4).uniform([0, 0], [640, 480], there.shape)
    assert global_motion(points, scattered, ALL) is None
    assert global_motion(points[:0], there[:0], ALL[:0]) is None


@pytest.mark.parametrize("kind", ["one place", "one line", "at rest"])
def test_degenerate_matches_have_finite_evidence(views, kind):
    seen = views(planar=True)
    points, there = seen.ref, seen.query
    if kind == "one place":
        points, there = np.full_like(points, 50.0), np.full_like(there, 60.0)
    elif kind == "one line":
        points[:, 1] = there[:, 1] = 100.0
    else:
        there = points.copy()
    found = global_motion(points, there, ALL)
    if found is not None:
        assert np.isfinite(found.epipolar).all()
        assert np.isfinite(found.planar).all()
        assert 0 <= found.flatness <= 1
