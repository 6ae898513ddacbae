import numpy as np
import pytest

from superglue_ros.synthetic.worlds.cameras import CLEARANCE_M, MOTIONS, first_camera, next_camera


def moves(world, motion, count=150):
    """(first, next) cameras of a motion, and the distance of what the first sees."""
    rng = np.random.default_rng(3)
    found = []
    while len(found) < count:
        first = first_camera(rng, world.space)
        second = next_camera(rng, world.space, first, motion, 2.0, 0.5)
        if second is not None:
            found.append((first, second))
    return found


@pytest.mark.parametrize("motion", MOTIONS)
def test_cameras_are_rigid_free_and_as_far_apart_as_asked(world, motion):
    for first, second in moves(world, motion):
        for pose in (first, second):
            np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
            assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
            assert world.space.is_free(pose[:3, 3], CLEARANCE_M)
        assert np.linalg.norm(first[:3, 3] - second[:3, 3]) == pytest.approx(0.5)


def test_orbits_turn_towards_what_was_seen_and_drives_go_along_the_view(world):
    aimed, along = [], []
    for first, second in moves(world, "orbit"):
        target = first[:3, 3] + 2.0 * first[:3, 2] - second[:3, 3]
        aimed.append(target @ second[:3, 2] / np.linalg.norm(target))
    assert np.median(aimed) > np.cos(np.radians(12))
    for first, second in moves(world, "drive"):
        along.append(abs((second[:3, 3] - first[:3, 3]) @ first[:3, 2]) / 0.5)
        assert first[:3, 2] @ second[:3, 2] > np.cos(np.radians(30))
    assert np.median(along) > 0.97
    glances = [first[:3, 2] @ second[:3, 2] for first, second in moves(world, "walk")]
    assert np.cos(np.radians(45)) < np.median(glances) < np.cos(np.radians(5))


def test_the_roll_goes_on(world):
    rng = np.random.default_rng(0)
    first = first_camera(rng, world.space)
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    first[:3, :3] = first[:3, :3] @ turn  # a quarter about the optical axis
    ups = []
    for _ in range(60):
        second = next_camera(rng, world.space, first, "drive", 2.0, 0.05)
        if second is not None:
            ups.append(first[:3, 1] @ second[:3, 1])
    assert len(ups) > 10
    assert np.median(ups) > 0.97
