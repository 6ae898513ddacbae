"""The built-in sequence: the same everywhere, with truth that fits the images."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from superglue_ros.synthetic.demo_room import RoomSequence, built_in_camera, demo_room
from superglue_ros.synthetic.rooms import is_free


@pytest.fixture(scope="module")
def sequence() -> RoomSequence:
    return RoomSequence(frames=60, camera=built_in_camera(160, 120))


def test_frames_are_whole(sequence: RoomSequence) -> None:
    assert len(sequence) == 60
    item = sequence[7]
    assert item.image.shape == (120, 160, 3)
    assert item.depth is not None
    assert (item.depth > 0.3).all()
    np.testing.assert_array_equal(item.image, sequence[7].image)


def test_motion_is_smooth_and_free(sequence: RoomSequence) -> None:
    scene = demo_room()
    poses = [item.T_world_camera for item in sequence]
    stamps = [item.stamp_ns for item in sequence]
    assert set(np.diff(stamps)) == {100_000_000}
    for before, after in pairwise(poses):
        assert before is not None
        assert after is not None
        assert is_free(scene, after[:3, 3])
        assert 0.01 < np.linalg.norm(after[:3, 3] - before[:3, 3]) < 0.12
        cosine = (np.trace(before[:3, :3].T @ after[:3, :3]) - 1) / 2
        assert np.degrees(np.arccos(min(cosine, 1.0))) < 4


def test_truth_fits_the_images(sequence: RoomSequence) -> None:
    """Pixels carried over by depth and pose show what the other image shows."""
    first, second = sequence[20], sequence[24]
    assert first.depth is not None
    assert first.T_world_camera is not None
    assert second.T_world_camera is not None
    matrix = sequence.camera.matrix
    y, x = np.mgrid[:120, :160].reshape(2, -1)
    rays = np.linalg.inv(matrix) @ np.stack([x, y, np.ones_like(x)])
    points = np.vstack([rays * first.depth.reshape(-1), np.ones(x.size)])
    seen = matrix @ (np.linalg.inv(second.T_world_camera) @ first.T_world_camera @ points)[:3]
    u, v = ((seen[i] / seen[2]).reshape(120, 160).astype(np.float32) for i in range(2))
    grey0, grey1 = (cv2.cvtColor(i.image, cv2.COLOR_BGR2GRAY) for i in (first, second))
    warped = cv2.remap(grey1, u, v, cv2.INTER_LINEAR, borderValue=0)
    inside = (u > 1) & (v > 1) & (u < 158) & (v < 118)
    at_truth = np.corrcoef(warped[inside], grey0[inside])[0, 1]
    unmoved = np.corrcoef(grey1[inside], grey0[inside])[0, 1]
    assert at_truth > 0.9
    assert unmoved < 0.6


def test_index_out_of_range(sequence: RoomSequence) -> None:
    with pytest.raises(IndexError):
        sequence[60]
